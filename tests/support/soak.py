"""How much of a soak is done: all of it, or the share that `.ci/run` has the time for."""

from __future__ import annotations

import os

SHARE = float(os.environ.get("PETSKIN_TUNE_SOAK", "1"))


def times(whole: int, least: int) -> int:
    """How often to do what a whole soak does ``whole`` times; ``least`` whatever the share."""
    return min(whole, max(least, round(whole * SHARE)))
