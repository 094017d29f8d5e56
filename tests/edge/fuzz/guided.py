"""The same properties driven by coverage: ``make fuzz-guided``, which installs atheris.

atheris follows the branches of h11, wsproto and the edge into corners that no grammar of ours names; it makes
nothing small and knows no structure. What breaks a property is written into the corpus, ``found-crash-...``.
"""

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["msha.edge", "h11", "wsproto"]):
    from tests.edge.fuzz.corpus import CORPUS, KINDS
    from tests.edge.fuzz.properties import PROPERTIES


def main() -> None:
    """Ends the process: status 0 when time is up, another one when a property does not hold."""
    parser = argparse.ArgumentParser(description="Try the properties of one kind of input, led by coverage.")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument(
        "--learnt", type=Path, required=True, help="directory for inputs that reach new branches"
    )
    options = parser.parse_args()
    checks = [one.check for one in PROPERTIES.values() if one.kind is KINDS[options.kind]]

    def examine(data: bytes) -> None:
        cuts = [len(data) // 2, len(data) // 3, 1]
        for check in checks:
            check(data, cuts)

    learnt = options.learnt / options.kind
    learnt.mkdir(parents=True, exist_ok=True)
    kept = CORPUS / options.kind
    arguments = [
        f"-max_total_time={options.seconds}",
        f"-artifact_prefix={kept}/found-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *arguments, "-verbosity=0", str(learnt), str(kept)], examine)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
