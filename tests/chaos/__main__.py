"""``python -m tests.chaos DIRECTORY``: the verdict on journals that were kept."""

import sys
from pathlib import Path

from tests.chaos.campaign import Course
from tests.chaos.checker import judge
from tests.chaos.figures import report

if __name__ == "__main__":
    verdict = judge(Path(sys.argv[1]))
    print(*report(Course(), verdict), sep="\n")
    sys.exit(1 if verdict.violations else 0)
