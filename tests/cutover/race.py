"""Many drivers and two starters at once in the database of the environment; prints JSON.

Run as ``python -m tests.cutover.race`` by `test_races`, once per database.
"""

import json
import os
import threading
from collections.abc import Callable

import django

DRIVERS, ROUNDS = 4, 3


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "msha.settings")
    django.setup()
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    from cutover import jobs, previews, services, steps
    from cutover.errors import Refused
    from cutover.models import Cutover
    from cutover.safety import approval, stored
    from tests.cutover.builders import (
        NEW_RANGES,
        OLD_RANGES,
        make_checked,
        make_scene,
        take_to,
        without_second_look,
    )
    from units.models import Snapshot

    previews.COUNT_DEADLINE_S = 0.01
    without_second_look()
    jobs.in_background = lambda work: None  # type: ignore[assignment]  # the drivers are ours alone
    scene = make_scene(per_unit=2)
    errors: list[str] = []

    def together(works: list[Callable[[], object]]) -> None:
        """All run at the same time, each with a connection of its own."""
        barrier = threading.Barrier(len(works))

        def guarded(work: Callable[[], object]) -> None:
            barrier.wait(20)
            try:
                work()
            except Exception as error:  # noqa: BLE001  reported to the test
                errors.append(repr(error))
            finally:
                connections.close_all()

        threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    # Two operators start two cutovers of one namespace at the same moment.
    starters = [make_checked(scene), make_checked(scene, {"center": ["0~5999"], "unbj": ["6000~9999"]})]
    outcomes: dict[int, str] = {}

    def start(cutover: Cutover) -> None:
        try:
            services.start(cutover, "op", scene.namespace.name)
            outcomes[cutover.number] = "started"
        except Refused as refusal:
            outcomes[cutover.number] = str(refusal)

    together([lambda c=cutover: start(c) for cutover in starters])
    for cutover in starters:
        cutover.refresh_from_db()
        if cutover.state == Cutover.State.STARTING:
            services.abort(cutover, "op", "only one was wanted")

    # Many drivers hear the same acks, while nodes go on acking and draining.
    published: list[int] = []
    for number in range(ROUNDS):
        ranges = NEW_RANGES if number % 2 == 0 else OLD_RANGES
        cutover = make_checked(scene, ranges)
        before = Snapshot.objects.filter(namespace=scene.namespace).count()
        services.start(cutover, "op", scene.namespace.name)

        def drive(pk: int = cutover.pk) -> None:
            for _ in range(200):
                if steps.advance(pk) not in Cutover.ACTIVE:
                    return

        def play(cutover: Cutover = cutover) -> None:
            take_to(scene, Cutover.objects.get(pk=cutover.pk), Cutover.State.DONE)

        together([drive] * DRIVERS + [play])
        cutover.refresh_from_db()
        published.append(Snapshot.objects.filter(namespace=scene.namespace).count() - before)
        if cutover.state != Cutover.State.DONE:
            errors.append(f"{cutover} is {cutover.state}: {services.status(cutover)['waiting']}")
            break
    # Somebody approves what he has looked at, while somebody else edits it and looks at it anew.
    stored.save(scene.namespace, {"approval": True}, "boss")
    draft = make_checked(scene, {"center": ["0~7000"], "unbj": ["7001~9999"]})
    unseen: list[str] = []
    for number in range(ROUNDS):
        draft.refresh_from_db()
        seen, last = approval.digest(draft), 7100 + number

        def approve(seen: str = seen) -> None:
            try:
                services.approve(Cutover.objects.get(pk=draft.pk), "ann", seen=seen)
            except Refused:
                pass

        def edit(last: int = last) -> None:
            mine = Cutover.objects.get(pk=draft.pk)
            ranges = {"center": [f"0~{last}"], "unbj": [f"{last + 1}~9999"]}
            services.update_draft(mine, ranges=ranges, actor="op")
            services.preview(mine, "op")

        together([approve, edit])
        draft.refresh_from_db()
        if draft.approved_by and draft.approved_digest != approval.digest(draft):
            unseen.append(draft.approved_digest)
    rows = list(Snapshot.objects.order_by("version").values_list("version", "epoch", "kind"))
    print(
        json.dumps(
            {"rows": rows, "outcomes": outcomes, "published": published, "errors": errors, "unseen": unseen}
        )
    )


if __name__ == "__main__":
    main()
