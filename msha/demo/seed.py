"""``python -m msha.demo.seed``: the database is migrated and holds the demo's users, model and first version.

Run again, it changes nothing that is there: what an operator did to the demo stays done.
"""

import json
import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from msha.demo.fleet import Login

if TYPE_CHECKING:
    from units.models import Namespace

AUTHOR = "demo"
USERS = {"admin": "demo", "operator": "olga", "viewer": "victor"}
"""By role; the passwords are made on the first run."""


@click.command()
@click.option("--directory", required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--node", "nodes", multiple=True, help="NAME=CLUSTER:TOKEN-FILE, once for each edge node.")
def main(directory: Path, nodes: tuple[str, ...]) -> None:
    """Migrate and seed."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=0)
    print("database migrated", flush=True)
    _make_users(directory / "logins.json")
    _make_model((directory / "topology.yaml").read_text(), directory / "slb-inventory.yaml")
    for node in nodes:
        name, _, place = node.partition("=")
        cluster, _, token_file = place.partition(":")
        _make_node(name, cluster, Path(token_file))


def _make_users(logins: Path) -> None:
    """One user of each role exists; their names, passwords and API tokens stand in the file."""
    from django.contrib.auth.models import Group, User

    from units.models import ApiToken
    from units.tokens import API_PREFIX, make_token

    stored = json.loads(logins.read_text()) if logins.exists() else {}
    for role, name in USERS.items():
        if role in stored and User.objects.filter(username=name).exists():
            continue
        password, token = secrets.token_urlsafe(9), make_token(API_PREFIX)
        user = User.objects.create_user(name, password=password, is_staff=True, is_superuser=role == "admin")
        if role != "admin":
            user.groups.add(Group.objects.get(name=role))
        ApiToken.objects.create(user=user, name="demo", token_hash=token.hash)
        stored[role] = asdict(Login(name, password, token.text))
    logins.touch(0o600)
    logins.write_text(json.dumps(stored, indent=2))
    print("users: " + ", ".join(f"{login['user']} ({role})" for role, login in stored.items()), flush=True)


def _make_model(topology_text: str, inventory: Path) -> None:
    """The namespace of the topology file is there and published; one that was published before stays as it
    is."""
    from domains import topology
    from units.models import Namespace

    wanted = topology.parse(topology_text)
    namespace = Namespace.objects.filter(name=wanted.namespace).first()
    if namespace is None or not namespace.version:
        # Load balancers are picked for units, and clusters take those that were picked.
        clusters = tuple(replace(cluster, slbs=()) for cluster in wanted.clusters)
        topology.apply(replace(wanted, clusters=clusters, domains=()), AUTHOR, comment="the demo begins")
        namespace = Namespace.objects.get(name=wanted.namespace)
        _pick_slbs(namespace, inventory, {name for cluster in wanted.clusters for name in cluster.slbs})
        applied = topology.apply(wanted, AUTHOR, effect=True, comment="the demo begins")
        print(*applied.sentences, sep="\n", flush=True)
        namespace.refresh_from_db()
    print(f"namespace {namespace}: version {namespace.version} is in effect", flush=True)


def _pick_slbs(namespace: "Namespace", inventory: Path, names: set[str]) -> None:
    from units import audit
    from units.models import Slb, Unit

    units = {unit.code: unit for unit in Unit.objects.filter(namespace=namespace)}
    for entry in yaml.safe_load(inventory.read_text()):
        unit = units.get(entry["unit"])
        if unit is None or entry["name"] not in names:
            continue
        picked, created = Slb.objects.get_or_create(
            unit=unit,
            external_id=entry["id"],
            defaults={"name": entry["name"], "address": entry["address"]},
        )
        if created:
            audit.record(AUTHOR, "slb.pick", picked.name, namespace=namespace, after=entry)


def _make_node(name: str, cluster_name: str, token_file: Path) -> None:
    """The node is registered in the cluster, and a token that opens its control stream is in the file."""
    from units import enrolment
    from units.models import Cluster, EdgeNode
    from units.tokens import hash_of

    cluster = Cluster.objects.select_related("unit__namespace").get(name=cluster_name)
    node = EdgeNode.objects.filter(name=name, namespace=cluster.namespace).first()
    if node is None:
        _, token = enrolment.register(cluster.unit, name, actor=AUTHOR, cluster=cluster)
    elif token_file.exists() and hash_of(token_file.read_text().strip()) == node.token_hash:
        return
    elif node.state == EdgeNode.State.DEAD:
        print(f"{name} was declared dead; it stays away until `make demo-reset`", flush=True)
        return
    else:
        token = enrolment.replace_token(node, actor=AUTHOR)
    token_file.touch(0o600)
    token_file.write_text(token.text + "\n")
    print(f"node {name} is registered in cluster {cluster_name}", flush=True)


if __name__ == "__main__":
    main()
