"""Drives cutovers with neither Redis nor Celery nor a console."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from cutover import driving, watch
from cutover.hooks import calling
from cutover.models import Cutover
from units import alarm_calls

EVERY_S = 0.25


class Command(BaseCommand):
    help = "Takes every step of running cutovers whose gate is passed; --watch until none is running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--watch", action="store_true", help="Go on until no cutover is running (Ctrl-C ends it earlier)."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        told: dict[int, str] = {}
        while True:
            running = driving.look_at_everything()
            if not options["watch"] and calling.call_due():  # threads would end with this process
                running = driving.look_at_everything()
            self._tell(told)
            if not options["watch"] or not running:
                break
            watch.tell_alarms()
            time.sleep(EVERY_S)
        alarm_calls.look()  # threads would end with this process
        if not told:
            self.stdout.write("No cutover is running.")

    def _tell(self, told: dict[int, str]) -> None:
        """Each state is said once."""
        followed = Cutover.objects.filter(pk__in=told) | Cutover.objects.filter(state__in=Cutover.ACTIVE)
        for cutover in followed.select_related("namespace"):
            if told.get(cutover.pk) != cutover.state:
                told[cutover.pk] = cutover.state
                self.stdout.write(f"{cutover}: {cutover.state} {cutover.outcome}".rstrip())
