"""What comparable trials of the same study did: the only witness to whether a loss is the floor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from petskin_tune import text as words
from petskin_tune.diagnosis.curves import Curves, fitness_noise, from_history
from petskin_tune.diagnosis.finding import Finding
from petskin_tune.diagnosis.verdict import LEAST_EPOCHS
from petskin_tune.errors import UsageError
from petskin_tune.language import _, several
from petskin_tune.study import attributes
from petskin_tune.study.stored import recorded

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

GAINS = ("box", "cls", "dfl", "cls_pw")  # they scale the losses; trials that differ in one have no common loss
LOWER = 0.03  # a validation loss that is lower by this share is lower


def curves_of(trial: FrozenTrial) -> Curves | None:
    """The curves of a trial; None before its first epoch."""
    known = recorded(trial)
    arguments = {**known.get(attributes.ARGUMENTS, {}), **trial.params}
    try:
        return from_history(known.get(attributes.HISTORY, {}), arguments)
    except UsageError:
        return None


def compare(
    trial: FrozenTrial,
    trials: Sequence[FrozenTrial],
    findings: Sequence[Finding],
    curves_by_number: Mapping[int, Curves | None],
) -> list[str]:
    """Sentences on ``trial`` beside the others of its study; empty where there is nothing to compare."""
    mine = curves_by_number[trial.number]
    if mine is None:
        return []
    known = ((other, curves_by_number[other.number]) for other in trials if other.number != trial.number)
    others = [(other, curves) for other, curves in known if curves]
    said = [_rank(mine, [curves for other, curves in others]), _nearest_better(trial, mine, others)]
    if any(finding.kind in ("stuck", "not-learning") for finding in findings):
        said.append(_floor(mine, others))
    return [sentence for sentence in said if sentence]


def _rank(mine: Curves, others: Sequence[Curves]) -> str | None:
    epoch = len(mine)
    peers = [float(np.nanmax(curves.fitness[:epoch])) for curves in others if len(curves) >= epoch]
    if not peers:
        return None
    place = 1 + sum(value > mine.fitness[mine.best] for value in peers)
    return _("After {epochs} it is the {place} of {trials} trials that got so far.").format(
        epochs=several(epoch, _("{count} epoch"), _("{count} epochs")),
        place=words.ordinal(place),
        trials=len(peers) + 1,
    )


def _nearest_better(trial: FrozenTrial, mine: Curves, others: Sequence[tuple[FrozenTrial, Curves]]) -> str | None:
    best = mine.fitness[mine.best]
    margin = 2 * fitness_noise(mine)
    better = [(other, curves) for other, curves in others if curves.fitness[curves.best] > best + margin]
    if not better:
        return None
    other, curves = min(better, key=lambda pair: sum(_distances(trial, pair[0]).values()))
    apart = sorted(_distances(trial, other).items(), key=lambda item: -item[1])
    changed = ", ".join(
        _("{name} {there} instead of {here}").format(
            name=name, there=words.parameter(other.params[name]), here=words.parameter(trial.params[name])
        )
        for name, distance in apart[:2]
        if distance > 0
    )
    value = float(curves.fitness[curves.best])
    return _("The nearest better trial is {number} ({score} {value:.3f}): {changed}.").format(
        number=other.number, score=mine.score, value=value, changed=changed or _("the same values")
    )


def _floor(mine: Curves, others: Sequence[tuple[FrozenTrial, Curves]]) -> str | None:
    """Whether anybody went below the loss at which this one stands still (validation losses: no augmentation)."""
    if mine.val_loss is None:
        return None
    level = float(np.min(mine.val_loss))
    known = [
        (float(np.min(curves.val_loss)), other.number)
        for other, curves in others
        if curves.val_loss is not None and len(curves) >= LEAST_EPOCHS and _same_gains(mine, curves)
    ]
    if not known:
        return None
    least, number = min(known)
    if least < (1 - LOWER) * level:
        return _(
            "Trial {number} went down to a validation loss of {least:.3g}, this one to {level:.3g}: it is no floor of "
            "these images and labels."
        ).format(number=number, least=least, level=level)
    return _(
        "None of {trials} went clearly below its validation loss of {level:.3g} (the lowest: {least:.3g}, trial "
        "{number}): it may well be the floor of this model on these images."
    ).format(
        trials=several(len(known), _("{count} comparable trial"), _("{count} comparable trials")),
        level=level,
        least=least,
        number=number,
    )


def _same_gains(one: Curves, other: Curves) -> bool:
    return all(one.arguments.get(name) == other.arguments.get(name) for name in GAINS)


def _distances(one: FrozenTrial, other: FrozenTrial) -> dict[str, float]:
    """How far two trials lie apart in each parameter both have, 0 to 1 of its range."""
    return {
        name: _apart(one.params[name], other.params[name], distribution)
        for name, distribution in one.distributions.items()
        if name in one.params and name in other.params
    }


def _apart(one: object, other: object, distribution: BaseDistribution) -> float:
    low, high = getattr(distribution, "low", None), getattr(distribution, "high", None)
    if low is None or high is None or low == high:
        return float(one != other)
    scale = math.log if getattr(distribution, "log", False) else float
    return abs(scale(one) - scale(other)) / (scale(high) - scale(low))  # type: ignore[arg-type]
