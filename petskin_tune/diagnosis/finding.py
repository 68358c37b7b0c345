"""One thing that curves show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "diverged",
    "not-learning",
    "nothing-found",
    "stuck",
    "overfitting",
    "never-warmed-up",
    "learning-rate-too-low",
    "class-never-found",
    "mask-worse-than-box",
    "still-improving",
]

NOTHING_FOUND = 0.01  # a mask mAP50-95 below which a model finds nothing
CLEARLY_FOUND = 5 * NOTHING_FOUND  # and one from which on it clearly finds something


@dataclass(frozen=True)
class Finding:
    """One thing that curves show.

    Attributes:
        kind: its name.
        epoch: 1-based epoch since which it holds; None where it holds for the whole run.
        message: what is seen, with the numbers.
        advice: what to try.
        numbers: the same numbers for programs.
    """

    kind: Kind
    epoch: int | None
    message: str
    advice: str
    numbers: Mapping[str, float] = field(default_factory=dict)
