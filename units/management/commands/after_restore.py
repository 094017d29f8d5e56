from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from msha.steering.errors import MshaError
from units import restore
from units.models import Namespace


class Command(BaseCommand):
    help = (
        "After the database was restored from a backup: stops publishing, and resumes it above the fleet's"
        " highest version once every enrolled node has reported. Run it before the consoles start (it stops),"
        " and again when the nodes are connected (it resumes). Nodes that were registered after the backup"
        " are unknown here: register them again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("-n", "--namespace", help="only this namespace; default: all")
        parser.add_argument(
            "--snapshot",
            type=Path,
            help="snapshot.json from the state directory of the node that is furthest ahead",
        )

    def handle(self, *, namespace: str | None, snapshot: Path | None, **_: Any) -> None:
        rows = Namespace.objects.order_by("name")
        if namespace is not None:
            rows = rows.filter(name=namespace)
            if not rows:
                raise CommandError(f"There is no namespace {namespace}.")
        if snapshot is not None and namespace is None:
            raise CommandError("A snapshot is of one namespace: say which with -n.")
        body = None if snapshot is None else _read(snapshot)
        refusals = [refusal for row in rows if (refusal := self._resumed(row, body))]
        if refusals:
            raise CommandError("\n".join(refusals))

    def _resumed(self, row: Namespace, body: bytes | None) -> str:
        restore.stop(row)
        try:
            done = restore.resume(row, actor="manage.py after_restore", body=body)
        except MshaError as error:
            return f"{error}\nPublishing stays stopped in namespace {row.name}."
        self.stdout.write(f"{row.name}: publishing goes on at version {done.version}, epoch {done.epoch}.")
        return ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}.") from error
