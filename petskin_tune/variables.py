"""Environment variables that hold seconds: what a scheduler's file sets once for every worker that it starts."""

from __future__ import annotations

import math
import os

from petskin_tune.errors import UsageError

GRACE = "TUNE_GRACE_SECONDS"  # from SIGTERM to SIGKILL
PATIENCE = "TUNE_PATIENCE_SECONDS"  # how long a worker that starts waits for what does not answer


def seconds(name: str, default: float) -> float:
    """The seconds that the variable ``name`` holds; ``default`` where it is not set, or empty.

    Raises:
        UsageError: it holds something else.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise UsageError(f"{name} must be a number of seconds, not {text[:80]!r}.")
    return found
