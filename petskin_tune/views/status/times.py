"""The time of a study: what it has trained, what was spared and lost, and when it ends at this pace."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from petskin_tune.study import attributes
from petskin_tune.study.extent import Extent
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_kind

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from petskin_tune.leases.lease import Lease


@dataclass(frozen=True)
class Spent:
    """Seconds over all trials and workers.

    Attributes:
        trained: of training and validation that count.
        saved: that the epochs would have taken which pruned and frozen trials were spared.
        lost: of work that was done twice, because a machine was gone.
    """

    trained: float
    saved: float
    lost: float


def spent(spec: StudySpec | None, ours: Sequence[FrozenTrial], leases: Iterable[Lease]) -> Spent:
    """What the trials took.

    Args:
        spec: of the study; None: it is not ours.
        ours: the trials that its workers began.
        leases: of the study.
    """
    leases = list(leases)
    frozen = {lease.trial_id for lease in leases if lease.state == "frozen"}
    pruned = [trial for trial in ours if trial.state.name == "PRUNED" and failure_kind(trial) is None]
    spared = [*pruned, *(trial for trial in ours if trial._trial_id in frozen)]
    return Spent(
        trained=sum(seconds for trial in ours if (seconds := _seconds(trial))),
        saved=sum(_spared(trial, spec.epochs) for trial in spared) if spec else 0.0,
        lost=sum(lease.seconds_lost for lease in leases),
    )


def _seconds(trial: FrozenTrial) -> float:
    return float(recorded(trial).get(attributes.SECONDS, 0.0))


def _spared(trial: FrozenTrial, epochs: int) -> float:
    """The epochs that it did not train, at its own pace."""
    done = len(trial.intermediate_values)
    return (epochs - done) * _seconds(trial) / done if done else 0.0


def work_left(
    spec: StudySpec | None, ours: Sequence[FrozenTrial], extent: Extent, reached: Iterable[int] = ()
) -> float | None:
    """Seconds that the study takes one worker from here on, if its trials are as those before; None: not known yet.

    Args:
        spec: of the study; None: it is not ours.
        ours: the trials that its workers began.
        extent: how far the study is.
        reached: the last epochs of the trials that are trained to their ends, whatever is left of the budget: those
            that are neither over nor frozen.
    """
    epochs, seconds = sum(len(trial.intermediate_values) for trial in ours), sum(map(_seconds, ours))
    if spec is None or not epochs or not seconds:
        return None
    if extent.unit == "epoch":
        last = sum(max(0, spec.epochs - epoch) for epoch in reached)
        return (extent.left or last) * seconds / epochs
    ended = [_seconds(trial) for trial in ours if trial.state.is_finished() and _seconds(trial)]
    each = mean(ended) if ended else spec.epochs * seconds / epochs
    begun = sum(min(each, _seconds(trial)) for trial in ours if not trial.state.is_finished())
    return max(0.0, extent.left * each - begun)
