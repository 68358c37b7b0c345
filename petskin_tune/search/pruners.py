"""When to give a trial up: verdicts as pure functions of the curves.

Optuna's own pruners note "rung completed" at a trial before they answer, so that a verdict that died with its worker
comes out otherwise the second time. Here nothing is noted: the same curves give the same verdict, in whatever process.
Fitness is maximised, epochs are 1-based, and a verdict is asked for right after its epoch was reported.

``asha``       at each rung a trial goes on when it is among the best 1 / reduction_factor of all that reported there
               (SuccessiveHalvingPruner's rule: of fewer than that many, the best goes on).
``hyperband``  the same within brackets that begin to judge later and later (HyperbandPruner's brackets).
``median``     a trial ends when its best epoch so far is below the median of the complete trials at this epoch
               (MedianPruner's rule).

Where this is not what Optuna does, it is on purpose: rungs may be any epochs, there is no verdict at the last epoch (a
trial that got there is complete), the number of Hyperband's brackets is computed in whole numbers (Optuna's logarithm
of 243 to the base 3 is 4), and `median` counts the complete trials that got to this epoch.
"""

from __future__ import annotations

import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from petskin_tune.language import figure
from petskin_tune.study.spec import StudySpec


@dataclass(frozen=True)
class Peer:
    """What one other trial of the study says at one epoch."""

    value: float  # fitness reported at that epoch; may be nan
    complete: bool = False  # its trial is COMPLETE


@dataclass(frozen=True)
class Verdict:
    """Whether a trial ends or pauses after an epoch, and why, in words for the trial's log."""

    prune: bool
    reason: str
    freeze: bool = False  # keep it for later

    @property
    def ends(self) -> bool:
        """Whether nothing more of it is trained for now."""
        return self.prune or self.freeze


def is_over(spec: StudySpec, epoch: int, own: Mapping[int, float]) -> bool:
    """Whether a trial's training is over after ``epoch``: its last one, or ``patience_epochs`` have passed in vain.

    Then it is complete, whatever others think of it. The rule is Ultralytics' ``EarlyStopping``.

    Args:
        spec: the study.
        epoch: 1-based.
        own: the trial's fitness by epoch; later epochs than ``epoch`` are not looked at.
    """
    best, best_epoch = 0.0, 0
    for number in range(1, epoch + 1):
        if number in own and (own[number] > best or best == 0):
            best, best_epoch = own[number], number
    return epoch >= spec.epochs or (spec.patience_epochs is not None and epoch - best_epoch >= spec.patience_epochs)


def decides_at(spec: StudySpec, number: int, epoch: int) -> bool:
    """Whether there is a verdict on trial ``number`` after ``epoch``; where there is none, no peers need be read."""
    pruner = spec.pruner
    if epoch >= spec.epochs:
        return False
    if pruner.name == "median":
        return epoch > (pruner.min_epochs or 0)
    return epoch in rungs(spec, number)


def rungs(spec: StudySpec, number: int) -> tuple[int, ...]:
    """The epochs at which trial ``number`` has to be among the best: those of the study, or of its bracket."""
    pruner = spec.pruner
    if pruner.name == "asha":
        return pruner.rungs or ()
    if pruner.name == "hyperband":
        return _bracket_rungs(spec, bracket(spec, number))
    return ()


def verdict(spec: StudySpec, number: int, epoch: int, own: Mapping[int, float], peers: Mapping[int, Peer]) -> Verdict:
    """Whether trial ``number`` ends after ``epoch``.

    Args:
        spec: the study; ``decides_at(spec, number, epoch)`` must hold.
        number: the trial's number.
        epoch: the epoch just reported, 1-based.
        own: the trial's fitness by epoch; later epochs than ``epoch`` are not looked at.
        peers: the other trials that reported ``epoch``, by number, in any state; ``number`` itself is passed over.
    """
    others = {peer: said for peer, said in peers.items() if peer != number}
    if spec.pruner.name == "median":
        return _median(spec.pruner.startup_trials, epoch, own, others)
    if spec.pruner.name == "hyperband":
        own_bracket = bracket(spec, number)
        others = {peer: said for peer, said in others.items() if bracket(spec, peer) == own_bracket}
    return _rung(spec.pruner.reduction_factor, epoch, own[epoch], others)


def bracket(spec: StudySpec, number: int) -> int:
    """Hyperband's bracket of trial ``number``, chosen as Optuna's HyperbandPruner does; 0 judges first."""
    count = _brackets(spec)
    budgets = [math.ceil(count * spec.pruner.reduction_factor**s / (s + 1)) for s in reversed(range(count))]
    place = binascii.crc32(f"{spec.study}_{number}".encode()) % sum(budgets)
    for index, budget in enumerate(budgets):
        place -= budget
        if place < 0:
            return index
    raise AssertionError("the place lies below the sum of the budgets")


def _brackets(spec: StudySpec) -> int:
    """floor(log_eta(epochs / min_epochs)) + 1, in whole numbers."""
    count, reached = 1, (spec.pruner.min_epochs or 1) * spec.pruner.reduction_factor
    while reached <= spec.epochs:
        count, reached = count + 1, reached * spec.pruner.reduction_factor
    return count


def _bracket_rungs(spec: StudySpec, index: int) -> tuple[int, ...]:
    found = []
    rung = (spec.pruner.min_epochs or 1) * spec.pruner.reduction_factor**index
    while rung < spec.epochs:
        found.append(rung)
        rung *= spec.pruner.reduction_factor
    return tuple(found)


def _rung(factor: int, epoch: int, value: float, others: Mapping[int, Peer]) -> Verdict:
    if math.isnan(value):
        return Verdict(True, f"epoch {epoch}: fitness is not a number")
    reached = sorted([value, *(peer.value for peer in others.values() if not math.isnan(peer.value))], reverse=True)
    places = max(1, len(reached) // factor)
    needed = reached[places - 1]
    standing = f"epoch {epoch}: {figure(value, '.4f')}, place {reached.index(value) + 1} of {len(reached)}"
    return Verdict(value < needed, f"{standing}, the best {places} go on (from {figure(needed, '.4f')})")


def _median(startup: int, epoch: int, own: Mapping[int, float], others: Mapping[int, Peer]) -> Verdict:
    reported = [value for at, value in own.items() if at <= epoch and not math.isnan(value)]
    complete = [peer.value for peer in others.values() if peer.complete and not math.isnan(peer.value)]
    if len(complete) < startup:
        return Verdict(False, f"epoch {epoch}: {len(complete)} complete trials of {startup} to compare with")
    if not reported:
        return Verdict(True, f"epoch {epoch}: fitness is not a number")
    best, middle = max(reported), median(complete)
    return Verdict(
        best < middle,
        f"epoch {epoch}: best {figure(best, '.4f')}, the median of {len(complete)} trials is {figure(middle, '.4f')}",
    )
