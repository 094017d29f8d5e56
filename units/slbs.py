"""Load balancers: listed in an inventory that somebody else keeps, picked from it ("sync SLBs")."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext

from units import audit
from units.errors import Refused
from units.models import Namespace, Slb


@dataclass(frozen=True, slots=True)
class Entry:
    """A load balancer of the inventory; ``unit`` is the code of its unit."""

    unit: str
    id: str
    name: str
    address: str

    @property
    def key(self) -> str:
        """What identifies it in a form."""
        return f"{self.unit}/{self.id}"


def inventory() -> list[Entry]:
    """All load balancers that there are to pick from.

    Raises:
        Refused: there is no inventory, or it cannot be read.
    """
    if not settings.SLB_INVENTORY:
        raise Refused(
            gettext(
                "There is no SLB inventory. Set MSHA_SLB_INVENTORY to a YAML file that lists"
                " unit, id, name and address of each load balancer."
            )
        )
    path = Path(settings.SLB_INVENTORY)
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refused(
            gettext("The SLB inventory %(path)s cannot be read: %(why)s") % {"path": path, "why": error}
        ) from error
    if not isinstance(rows, list):
        raise Refused(gettext("The SLB inventory %(path)s is not a list.") % {"path": path})
    return [_entry(path, number, row) for number, row in enumerate(rows, start=1)]


def to_pick(namespace: Namespace) -> list[Entry]:
    """The load balancers of the namespace's units that were not picked yet.

    Raises:
        Refused: as `inventory`.
    """
    codes = set(namespace.units.values_list("code", flat=True))
    picked = set(Slb.objects.filter(namespace=namespace).values_list("unit__code", "external_id"))
    return [entry for entry in inventory() if entry.unit in codes and (entry.unit, entry.id) not in picked]


def pick(namespace: Namespace, keys: Collection[str], *, actor: object) -> list[Slb]:
    """The chosen load balancers, added to the namespace.

    Raises:
        ValidationError: a name is taken.
        Refused: as `inventory`.
    """
    units = {unit.code: unit for unit in namespace.units.all()}
    added = []
    with transaction.atomic():
        for entry in to_pick(namespace):
            if entry.key not in keys:
                continue
            slb = Slb(unit=units[entry.unit], name=entry.name, address=entry.address, external_id=entry.id)
            slb.full_clean()
            slb.save()
            audit.record(actor, "slb.pick", slb.name, namespace=namespace, after=asdict(entry))
            added.append(slb)
    return added


def remove(slb: Slb, *, actor: object) -> None:
    """The load balancer is not known here any more; the inventory still lists it.

    Raises:
        Refused: a cluster has it.
    """
    if slb.cluster is not None:
        raise Refused(
            gettext("SLB %(name)s stands before cluster %(cluster)s. Take it out of the cluster first.")
            % {"name": slb.name, "cluster": slb.cluster.name}
        )
    with transaction.atomic():
        before = {"name": slb.name, "unit": slb.unit.code, "id": slb.external_id, "address": slb.address}
        namespace = slb.namespace
        slb.delete()
        audit.record(actor, "slb.delete", before["name"], namespace=namespace, before=before)


def _entry(path: Path, number: int, row: Any) -> Entry:
    fields = {key: row.get(key) for key in ("unit", "id", "name", "address")} if isinstance(row, dict) else {}
    if not fields or not all(isinstance(value, str) and value.strip() for value in fields.values()):
        raise Refused(
            gettext("Entry %(number)d of the SLB inventory %(path)s lacks unit, id, name or address.")
            % {"number": number, "path": path}
        )
    return Entry(**{key: str(value).strip() for key, value in fields.items()})
