"""``python -m tests.support.run_demo DIRECTORY PORT...``: what `make demo` runs, on other ports and with 20
clients."""

import sys
from pathlib import Path

from msha.demo import plan, supervisor

if __name__ == "__main__":
    directory, *ports = sys.argv[1:]
    sys.exit(supervisor.run(plan.on_ports(Path(directory), [int(port) for port in ports], clients=20)))
