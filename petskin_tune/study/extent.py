"""How far a study is: trials of its target, or epochs of its budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from petskin_tune.study import attributes
from petskin_tune.study.spec import StudySpec
from petskin_tune.text import counted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Extent:
    """How much of a study is done.

    Attributes:
        done: trials that are over, or epochs that are trained.
        of: in all; None: it is not known.
        unit: of both.
    """

    done: int
    of: int | None
    unit: Literal["trial", "epoch"] = "trial"

    @property
    def left(self) -> int:
        """At least 0."""
        return max(0, (self.of or 0) - self.done)

    def __str__(self) -> str:
        verb = "trained" if self.unit == "epoch" else "done"
        if self.of is not None and self.done > self.of:  # what had begun was trained to its end
            return f"all {self.whole} and {self.done - self.of} more {verb}"
        return f"{self.done} {self.unit}s {verb}" if self.of is None else f"{self.done} of {self.whole} {verb}"

    @property
    def whole(self) -> str:
        """``60 trials`` or ``540 epochs``."""
        return counted(self.of or 0, self.unit)


def extent(spec: StudySpec | None, ours: Iterable[FrozenTrial]) -> Extent:
    """How far the study is.

    Args:
        spec: of the study; None: it is not ours.
        ours: the trials that its workers began.
    """
    if spec is not None and spec.budget is not None:
        return Extent(sum(len(trial.intermediate_values) for trial in ours), spec.budget, "epoch")
    return Extent(sum(trial.state.is_finished() for trial in ours), spec.target_trials if spec else None)


def begun_here(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Those that workers of ours began, as far as the trials say it themselves."""
    return [trial for trial in trials if attributes.MARK in trial.system_attrs]
