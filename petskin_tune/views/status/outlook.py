"""What the search expected of another day when it last chose, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from petskin_tune.study import attributes

_LITTLE = 0.1  # a chance below which a day is better spent otherwise


def sentence(stored: Mapping[str, Any]) -> str | None:
    """For people; None where the search has not said anything.

    Args:
        stored: the study's user attributes, checked.
    """
    found = stored.get(attributes.OUTLOOK)
    if found is None:
        return None
    chance, noise = found["chance"], found["noise"]
    said = f"another day of search has a chance of at most {chance:.0%} to beat the best by more than the noise"
    advice = "; train the best at length instead: petskin-tune train" if chance < _LITTLE else ""
    return f"{said} ({noise:.2g}){advice}"
