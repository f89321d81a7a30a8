"""Figures that the model card in a network's folder reports of it: the ``model-index`` of its ``README.md``.

The card is somebody's text: whatever cannot be read is no figure, never an error.
"""

from pathlib import Path
from typing import Any

from worker.sources.folder_files import CARD_FILE

_OTHER_NAMES = {"r_squared": "r2"}
_MOST_BYTES = 2**20


def read_reported(folder: Path) -> dict[str, float]:
    """Reads the lowest value of each score that a network's card reports, as a share of 1; empty without a card."""
    # The library's cards take a second to import.
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    path = folder / CARD_FILE
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        card = ModelCard(path.read_text(encoding="utf-8", errors="replace"), ignore_metadata_errors=True)
        results: list[Any] = getattr(card.data, "eval_results", None) or []
    except (OSError, ValueError, TypeError, KeyError, AttributeError, YAMLError):
        return {}
    lowest: dict[str, float] = {}
    for result in results:
        name = _OTHER_NAMES.get(str(result.metric_type).lower(), str(result.metric_type).lower())
        value = _share(result.metric_value)
        if value is not None:
            lowest[name] = min(value, lowest.get(name, value))
    return lowest


def _share(value: Any) -> float | None:
    """A value between 0 and 1, or a percentage as one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    share = value / 100 if 1 < value <= 100 else float(value)
    return share if 0 < share <= 1 else None
