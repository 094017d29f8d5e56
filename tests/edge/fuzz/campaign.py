"""Run the properties for as long as there is time: ``python -m tests.edge.fuzz.campaign --seconds 600``.

An input that breaks a property is made as small as Hypothesis can make it and kept in the corpus, where it
fails the tests until somebody has looked, given it a name and corrected the code or the property.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import cycle

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.edge.fuzz.mutation import CUTS
from tests.edge.fuzz.properties import PROPERTIES, Property

_EXAMPLES_PER_ROUND = 1500


class Campaign:
    """One run.

    Attributes:
        tried: examples by property.
        broken: the properties that do not hold, with the file that shows it.
    """

    def __init__(self, chosen: Iterable[Property], seconds: float, first_seed: int) -> None:
        self.tried: Counter[str] = Counter()
        self.broken: dict[str, str] = {}
        self._chosen = list(chosen)
        self._until = time.monotonic() + seconds
        self._seeds = iter(range(first_seed, sys.maxsize))

    def run(self) -> None:
        """One round of each property after the other, until time is up or none is left that holds."""
        for one in cycle(self._chosen):
            if time.monotonic() > self._until or len(self.broken) == len(self._chosen):
                return
            if one.name not in self.broken:
                self._round(one)

    def _round(self, one: Property) -> None:
        last: list[bytes] = [b""]

        @seed(next(self._seeds))
        @settings(
            max_examples=_EXAMPLES_PER_ROUND,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.target, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(one.inputs, CUTS)
        def examine(data: bytes, cuts: list[int]) -> None:
            if time.monotonic() > self._until and one.name not in self.broken:
                return
            last[0] = data
            self.tried[one.name] += 1
            one.check(data, cuts)

        try:
            examine()
        except Exception as error:  # noqa: BLE001  any of them is what we are here for
            path = one.kind.keep(last[0], "found")
            self.broken[one.name] = path.name
            sentence = str(error).partition("\n")[0] or type(error).__name__
            print(f"BROKEN {one.name}: {one.sentence}\n  {sentence}\n  shown by {path}", flush=True)


def main() -> int:
    """Exit status 1 if a property does not hold."""
    parser = argparse.ArgumentParser(description="Try the properties of heads and frames on ever new inputs.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of the first round")
    parser.add_argument("properties", nargs="*", help=f"all, or some of {', '.join(PROPERTIES)}")
    options = parser.parse_args()
    unknown = set(options.properties) - set(PROPERTIES)
    if unknown:
        parser.error(f"no such property: {', '.join(sorted(unknown))}")
    print(f"seed {options.seed}", flush=True)
    campaign = Campaign(
        (PROPERTIES[name] for name in options.properties or PROPERTIES), options.seconds, options.seed
    )
    campaign.run()
    for name, tried in campaign.tried.items():
        print(f"{tried:>9} {name}: {'BROKEN' if name in campaign.broken else 'holds'}")
    return 1 if campaign.broken else 0


if __name__ == "__main__":
    sys.exit(main())
