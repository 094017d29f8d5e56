"""Which permissions a change of the topology needs."""

from typing import Any

from msha.steering.topology import Act, Difference
from units.access import require

_MODELS = {
    "namespace": "units.{}_namespace",
    "unit": "units.{}_unit",
    "unit type": "units.{}_unittype",
    "cluster": "units.{}_cluster",
    "domain": "domains.{}_domain",
}
_ACTS = {Act.CREATE: "add", Act.UPDATE: "change", Act.DELETE: "delete"}


def view() -> tuple[str, ...]:
    """What it takes to look at a whole topology."""
    return ("units.view_unit", "units.view_unittype", "units.view_cluster", "domains.view_domain")


def require_for(user: Any, change: Difference) -> None:
    """The user may make this change.

    Raises:
        Forbidden: names the missing permission.
    """
    require(user, _MODELS[change.kind].format(_ACTS[change.act]))
