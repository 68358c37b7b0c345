"""States of imaginary searches: smooth landscapes, curves that rise to them, and noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from petskin_tune.search.freeze_thaw.state import SearchState, TrialRecord
from petskin_tune.study.spec import Choices, Range

SPACE: Mapping[str, Range | Choices] = {
    "lr0": Range(low=1e-5, high=1e-1, log=True),
    "momentum": Range(low=0.6, high=0.98),
    "optimizer": Choices(choices=("SGD", "AdamW", "MuSGD")),
    "batch": Range(low=4, high=64, integer=True),
}
EPOCHS = 27


def trial(number: int, curve: Any = (), standing: Any = "frozen", **settings: Any) -> TrialRecord:
    """A trial somewhere in SPACE, different for every number."""
    draw = np.random.default_rng(number)
    point = {
        "lr0": float(10 ** draw.uniform(-5, -1)),
        "momentum": float(draw.uniform(0.6, 0.98)),
        "optimizer": ("SGD", "AdamW", "MuSGD")[number % 3],
        "batch": int(draw.integers(4, 65)),
    }
    until = settings.pop("until", None)
    return TrialRecord(number, point | settings, tuple(map(float, curve)), standing, until)


def end_of(point: Mapping[str, Any]) -> float:
    """Fitness after a full run without noise: best at lr0 1e-3 with AdamW."""
    return 0.5 - 0.05 * (math.log10(point["lr0"]) + 3) ** 2 - 0.05 * (point["optimizer"] != "AdamW")


def rising(number: int, epochs: int, standing: Any = "frozen", noise: float = 0.002, **settings: Any) -> TrialRecord:
    """A trial whose curve approaches ``end_of`` its point."""
    point = trial(number, **settings).point
    draw = np.random.default_rng([number, 1])
    times = np.arange(1, epochs + 1)
    curve = end_of(point) * -np.expm1(-times / 6) + noise * draw.standard_normal(epochs)
    return TrialRecord(number, point, tuple(map(float, curve)), standing)


def state(*trials: TrialRecord, **settings: Any) -> SearchState:
    """A study of SPACE with these trials."""
    return SearchState(**{"space": SPACE, "epochs": EPOCHS, "trials": trials, **settings})


def search_of(count: int, **settings: Any) -> SearchState:
    """A search under way: most trials frozen at 3 epochs, every fourth at 9, every tenth complete."""
    lengths = [EPOCHS if n % 10 == 9 else 9 if n % 4 == 3 else 3 for n in range(count)]
    return state(*(rising(n, e, "complete" if e == EPOCHS else "frozen") for n, e in enumerate(lengths)), **settings)
