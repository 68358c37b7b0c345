"""How much of a soak is done: all of it, or the share that `.ci/run` has the time for."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from typing import Any

import pytest

SHARE = float(os.environ.get("PETSKIN_TUNE_SOAK", "1"))


def times(whole: int, least: int) -> int:
    """How often to do what a whole soak does ``whole`` times; ``least`` whatever the share."""
    return min(whole, max(least, round(whole * SHARE)))


def part(values: Iterable[Any], least: int) -> list[Any]:
    """Parameters of a slow test: all of ``values``, or that share of them, the same each time; ``least`` anyhow."""
    whole = list(values)
    chosen = random.Random(1).sample(range(len(whole)), times(len(whole), least))
    return [whole[index] for index in sorted(chosen)]


def first(count: int, values: Iterable[Any]) -> list[Any]:
    """Parameters of a test: the first ``count`` of ``values`` are tried always, the others by the slow run."""
    chosen = list(values)
    return [*chosen[:count], *(pytest.param(value, marks=pytest.mark.slow) for value in chosen[count:])]
