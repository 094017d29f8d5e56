"""A second person approves a cutover at a shell: with neither pages nor API."""

import getpass
import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth import authenticate
from django.core.management.base import BaseCommand, CommandError

from cutover.models import Cutover
from cutover.previews import stored_preview
from cutover.safety import approval
from msha.steering.errors import MshaError


class Command(BaseCommand):
    help = (
        "Shows what a cutover would do, and approves it in the name of a user who gives the password here."
        " It wants somebody other than who asked for the cutover, with the permission to approve."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("-n", "--namespace", required=True, metavar="NAMESPACE")
        parser.add_argument("--number", type=int, required=True, metavar="N", help="Of the cutover.")
        parser.add_argument("--user", required=True, metavar="NAME", help="Who approves.")
        parser.add_argument("--comment", default="", metavar="TEXT", help="Kept with the approval.")
        parser.add_argument(
            "--password-stdin", action="store_true", help="Read the password from standard input."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        rows = Cutover.objects.filter(namespace__name=options["namespace"], number=options["number"])
        cutover = rows.select_related("namespace").first()
        if cutover is None:
            raise CommandError(
                f"Namespace {options['namespace']} has no cutover #{options['number']}, or does not exist."
            )
        seen = approval.digest(cutover)
        preview = stored_preview(cutover)
        if preview is not None:
            self.stdout.write(preview.impact)
        name = self._known(options["user"], password_from_stdin=options["password_stdin"])
        try:
            approval.approve(cutover, name, options["comment"], seen)
        except MshaError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{cutover} is approved by {name}.")

    def _known(self, name: str, *, password_from_stdin: bool) -> str:
        """The user's name, if the password is theirs and they may approve."""
        if password_from_stdin:
            password = sys.stdin.readline().rstrip("\n")
        elif sys.stdin.isatty():
            password = getpass.getpass(f"Password of {name}: ")
        else:
            raise CommandError("Nobody can be asked for the password here: give it with --password-stdin.")
        user = authenticate(username=name, password=password)
        if user is None:
            raise CommandError(f"That is not the password of {name}, or {name} may not log in.")
        if not user.has_perm(approval.PERMISSION):
            raise CommandError(f"{name} may not approve cutovers: ask somebody who may.")
        return user.get_username()
