"""``python -m msha.demo``: the whole product on one machine, with 200 simulated clients."""

import os
import sys
from pathlib import Path

import click

from msha.demo import plan, supervisor
from msha.demo.fleet import REPOSITORY
from msha.demo.processes import end_with_parent


@click.command()
@click.option("--reset", is_flag=True, help="Forget the state of earlier runs, and start nothing.")
@click.option("--clients", default=200, show_default=True, type=click.IntRange(0, 5000))
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=REPOSITORY / ".demo",
    help="Where the state is kept.",
)
@click.option("--with-parent", is_flag=True, help="Stop, too, when the process that started this one ends.")
def main(reset: bool, clients: int, directory: Path, with_parent: bool) -> None:
    """Run everything on this machine until Ctrl-C. A rerun goes on with the same state."""
    directory = directory.resolve()
    if reset:
        sys.exit(supervisor.reset(directory))
    if with_parent:
        end_with_parent()
    redis_url = os.environ.get("REDIS_URL", "").strip() or None
    sys.exit(supervisor.run(plan.demo(directory, redis_url=redis_url, clients=clients)))


if __name__ == "__main__":
    main()
