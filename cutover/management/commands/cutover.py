"""Takes a whole cutover from rule to report in one process: with neither Redis nor Celery nor any page."""

import getpass
import json
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from cutover import checking, driving, emergency, sentences, services, watch
from cutover.kinds import ToZero
from cutover.models import Check, Cutover
from msha.steering.errors import MshaError
from msha.steering.rule_text import parse_exact, parse_ranges
from units import alarm_calls
from units.models import Namespace

EVERY_S = 0.2
#: Clients come back within their own retry time; the report is made when most of them have.
SETTLES_S = 3.0
#: An edge whose agent says nothing for so long is not live; longer waits for one that has just started.
NODES_WITHIN_S = 6.0

State = Cutover.State


class Command(BaseCommand):
    help = (
        "Previews, checks, starts and drives a cutover to its end, and prints its report. It needs the"
        " database, and a console process that the edges are connected to (any one; its pages need not be"
        " reachable); Redis and Celery are not needed. Ctrl-C leaves the cutover to the console, which"
        " brings it to its end by itself: look at it with mshactl cutover status."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("-n", "--namespace", required=True, metavar="NAMESPACE")
        parser.add_argument("--unit-type", metavar="NAME", help="Default: the namespace's default unit type.")
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument(
            "--ranges", metavar="RULE", help="The new rule, as center=0~6380,unbj=6381~9999; + joins ranges."
        )
        what.add_argument("--to-zero", metavar="UNIT", help="This unit gives everything to the others.")
        what.add_argument("--number", type=int, metavar="N", help="Start or go on with this cutover.")
        parser.add_argument("--exact", metavar="IDS", help="With --ranges: exact ids, as unbj=42+43.")
        parser.add_argument("--reason", default="", metavar="TEXT", help="Why; kept in the audit trail.")
        parser.add_argument(
            "--skip",
            action="append",
            default=[],
            metavar="CHECK=REASON",
            help="Skip this check if it fails. May be given several times.",
        )
        parser.add_argument(
            "--override",
            action="append",
            default=[],
            metavar="RULE",
            help="Override this safety rule, or all, for the --reason.",
        )
        parser.add_argument(
            "--emergency",
            action="store_true",
            help="The losing unit is gone: its nodes that are not connected are declared dead.",
        )
        parser.add_argument(
            "--i-have-fenced",
            default="",
            metavar="HOW",
            help="With --emergency: how it was made sure (power, SLB, disk) that none of those nodes starts"
            " again from its file. The promise that no id is served twice rests on it.",
        )
        parser.add_argument("--by", default="", metavar="NAME", help="Who acts. Default: the login name.")
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="The report.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["emergency"] and not (options["i_have_fenced"].strip() and options["reason"].strip()):
            raise CommandError(
                "--emergency declares nodes dead on your word: give --reason, and say with --i-have-fenced"
                " how you made sure that none of them serves any more."
            )
        actor = f"{options['by'] or getpass.getuser()} (manage.py cutover)"
        try:
            cutover = self._wanted(options, actor)
            self._switch(cutover, options, actor)
            if not cutover.active:
                self._prepare(cutover, options, actor)
            watch.tell_alarms()
            self._drive(cutover, options, actor)
        except MshaError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Left to the console, which goes on with it.", returncode=130) from None
        self._report(cutover, options["output"])

    # -- before it starts --

    def _wanted(self, options: dict[str, Any], actor: str) -> Cutover:
        namespace = Namespace.objects.filter(name=options["namespace"]).first()
        if namespace is None:
            raise CommandError(f"There is no namespace {options['namespace']}.")
        if options["number"] is not None:
            found = Cutover.objects.filter(namespace=namespace, number=options["number"]).first()
            if found is None or found.ended:
                raise CommandError(f"There is no cutover #{options['number']} that could go on.")
            return found
        asked: dict[str, Any] = {"actor": actor, "reason": options["reason"]}
        if options["to_zero"]:
            asked["wish"] = ToZero(options["to_zero"])
        else:
            asked["ranges"] = parse_ranges(options["ranges"])
            asked["exact"] = None if options["exact"] is None else parse_exact(options["exact"])
        unit_type = options["unit_type"] or namespace.default_unit_type
        return services.create_draft(namespace, unit_type, **asked)

    def _switch(self, cutover: Cutover, options: dict[str, Any], actor: str) -> None:
        """It is an emergency where it was asked to be one, also if it runs already."""
        if options["emergency"] and not cutover.emergency:
            services.set_mode(
                cutover, Cutover.Mode.EMERGENCY, actor, options["reason"], cutover.namespace.name
            )

    def _prepare(self, cutover: Cutover, options: dict[str, Any], actor: str) -> None:
        """It was previewed, checked and started."""
        shown = services.preview(cutover, actor)
        self._say(f"Cutover #{cutover.number}: {shown.moved_ids} ids move, {shown.sessions} sessions now.")
        for move in shown.moves:
            self._say(f"  {move.text} {move.losing} → {move.gaining}: {move.ids}, {move.sessions} sessions")
        self._confirm(cutover, options)
        if options["override"]:
            services.override(cutover, options["override"], actor, options["reason"])
        self._check(cutover, options, actor)
        services.start(cutover, actor, cutover.namespace.name)

    def _confirm(self, cutover: Cutover, options: dict[str, Any]) -> None:
        if options["yes"]:
            return
        try:
            said = input(f"Start cutover #{cutover.number} of {options['namespace']}? [y/N] ")
        except EOFError:
            said = ""
            self._say("Nobody is there to ask: pass --yes to go ahead without a question.")
        if said.strip().lower() != "y":
            raise CommandError(f"Nothing was changed; draft #{cutover.number} is kept.")

    def _check(self, cutover: Cutover, options: dict[str, Any], actor: str) -> None:
        """Every check is passed or skipped.

        Raises:
            CommandError: one is not; says which, and why.
        """
        skips = dict(part.split("=", 1) for part in options["skip"] if "=" in part)
        if len(skips) != len(options["skip"]):
            raise CommandError("Write --skip as CHECK=REASON.")
        services.run_prechecks(cutover, actor)
        checking.run(cutover.pk)
        while cutover.checks.filter(state__in=(Check.State.PENDING, Check.State.RUNNING)).exists():
            checking.take_over()  # another process has taken one
            time.sleep(EVERY_S)
        failed = list(cutover.checks.filter(state=Check.State.FAILED))
        for check in failed:
            if check.key in skips:
                services.skip_check(cutover, check.key, actor, skips[check.key])
                self._say(f"Skipped: {check.title} ({check.reason})")
        left = [check for check in failed if check.key not in skips]
        if left:
            told = "\n".join(f"  {check.key}: {check.reason}" for check in left)
            raise CommandError(
                f"These checks have not passed; cutover #{cutover.number} was not started:\n{told}\n"
                f"Put it right, or skip with --skip CHECK=REASON, and run: --number {cutover.number}"
            )
        cutover.refresh_from_db()

    # -- while it runs --

    def _drive(self, cutover: Cutover, options: dict[str, Any], actor: str) -> None:
        """The cutover has ended; each thing that happened was said."""
        told, since, silent = 0, time.monotonic(), _silent(cutover)
        while True:
            driving.look_at_everything()
            cutover.refresh_from_db()
            told = self._tell(cutover, told)
            if not cutover.active:
                return
            silent &= _silent(cutover)
            if options["emergency"] and silent and time.monotonic() - since > NODES_WITHIN_S:
                self._declare(cutover, silent, options, actor)
            time.sleep(EVERY_S)

    def _declare(self, cutover: Cutover, silent: set[str], options: dict[str, Any], actor: str) -> None:
        """Nodes that were silent all the time are dead; one that has only just reconnected never is."""
        for losing in emergency.losing_units(cutover):
            if silent & set(losing.silent):
                names = services.declare_unit_dead(
                    cutover,
                    losing.unit,
                    actor=actor,
                    typed=losing.unit,
                    reason=options["reason"],
                    fencing=options["i_have_fenced"],
                    names=silent,
                )
                self._say(f"Declared dead: {', '.join(names)}")

    def _tell(self, cutover: Cutover, told: int) -> int:
        for event in cutover.events.filter(pk__gt=told).order_by("pk"):
            self._say(f"{event.at:%H:%M:%S} {sentences.event(event)}")
            told = event.pk
        return told

    # -- afterwards --

    def _report(self, cutover: Cutover, output: str) -> None:
        end = time.monotonic() + SETTLES_S
        while time.monotonic() < end:  # who comes back late is counted
            driving.count_late(cutover.pk)
            time.sleep(EVERY_S)
        alarm_calls.look()  # the threads end with this process
        report = services.report(cutover)
        if output == "json":
            self.stdout.write(json.dumps(report, ensure_ascii=False, indent=2, default=str))
        else:
            self.stdout.write("\n".join(_lines(cutover, report)))
        if cutover.state != State.DONE:
            raise CommandError(cutover.outcome or f"Cutover #{cutover.number} was not done.")

    def _say(self, text: str) -> None:
        self.stderr.write(text)


def _silent(cutover: Cutover) -> set[str]:
    """Names of nodes of losing units of which nothing is heard."""
    return {name for losing in emergency.losing_units(cutover) for name in losing.silent}


def _lines(cutover: Cutover, report: dict[str, Any]) -> Iterator[str]:
    took = timezone.now() if cutover.ended_at is None else cutover.ended_at
    seconds = (took - cutover.started_at).total_seconds() if cutover.started_at else 0.0
    yield f"{cutover}: {report['phase_title']} after {seconds:.1f} s. {report['outcome']}"
    figures = cutover.figures
    yield (
        f"Sessions closed: {figures.get('sessions_closed', 0)}, back: {figures.get('reconnected', 0)};"
        f" ids were frozen for {figures.get('frozen_ms') or 0} ms at most."
    )
    yield f"Started by {cutover.started_by}. All of it: mshactl cutover report {cutover.number} -o json"
