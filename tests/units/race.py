"""Publishes and enrols from many threads at once in the database of the environment; prints JSON.

Run as ``python -m tests.units.race`` by `test_races`, once per database.
"""

import json
import threading
from collections.abc import Callable
from typing import Any

import django

PUBLISHERS, PUBLISHES, NODES = 4, 6, 8


def main() -> None:
    django.setup()
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", verbosity=0)
    from tests.units.builders import a_hello, a_published_namespace, make_node
    from units import enrolment, publishing
    from units.models import EdgeNode, Namespace, Snapshot
    from units.publishing import Change

    namespace = a_published_namespace()
    unit = namespace.units.get(code="unbj")
    nodes = [make_node(unit)[0] for _ in range(NODES)]
    for node in nodes:
        enrolment.greet(node.pk, a_hello(), "c1")
    counted: dict[int, list[int]] = {}
    joined: dict[int, int] = {}
    errors: list[str] = []
    start = threading.Barrier(PUBLISHERS + NODES)

    def compute(row: Namespace, newest: dict[str, Any] | None, *, step: bool) -> Change:
        assert newest is not None
        enrolled = EdgeNode.objects.filter(namespace=row, state=EdgeNode.State.ENROLLED)
        counted[newest["version"] + 1] = sorted(enrolled.values_list("pk", flat=True))
        if step:
            return Change(rule={**newest["rule"], "epoch": newest["rule"]["epoch"] + 1})
        return Change(config=newest["config"])

    def publisher() -> None:
        for number in range(PUBLISHES):
            publishing.publish(
                namespace.pk,
                author="race",
                compute=lambda row, newest, step=bool(number % 2): compute(row, newest, step=step),
            )

    def joiner(node: EdgeNode) -> None:
        delivery = enrolment.join(node.pk, "c1")
        assert delivery is not None
        joined[node.pk] = delivery.version

    def guarded(work: Callable[[], None]) -> None:
        start.wait(20)
        try:
            work()
        except Exception as error:  # noqa: BLE001  reported to the test
            errors.append(repr(error))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=guarded, args=(publisher,)) for _ in range(PUBLISHERS)]
    threads += [threading.Thread(target=guarded, args=(lambda node=node: joiner(node),)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    rows = Snapshot.objects.order_by("version").values_list("version", "epoch", "kind")
    print(json.dumps({"rows": list(rows), "counted": counted, "joined": joined, "errors": errors}))


if __name__ == "__main__":
    main()
