"""The batches of a cutover with what is planned of each, for pages and the API."""

from typing import Any

from cutover.batches import batches
from cutover.models import Cutover
from cutover.pacing.planning import stage_of


def batches_of(cutover: Cutover) -> list[dict[str, Any]]:
    """Every batch with its stage, from 1, and the sessions counted for it; null where nobody counted."""
    pace = cutover.plan.get("pace", {})
    closes, brings = pace.get("closes", []), pace.get("brings", [])
    told = []
    for index, batch in enumerate(batches(cutover)):
        counted = index < len(closes) and bool(closes[index])
        told.append(
            {
                **batch.as_dict(),
                "stage": stage_of(cutover, index) + 1,
                "closes": closes[index] if counted else None,
                "brings": brings[index] if counted else None,
            }
        )
    return told
