"""How much of a soak is done: all of it, or on a slow machine the share that `.ci/run` finds it has the time for."""

from __future__ import annotations

import os

SHARE = float(os.environ.get("PETSKIN_TUNE_SOAK", "1"))


def times(whole: int, least: int) -> int:
    """How often to do what a soak does ``whole`` times on a machine that is quick enough; ``least`` on any."""
    return min(whole, max(least, round(whole * SHARE)))
