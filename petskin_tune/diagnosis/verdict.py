"""Ask every rule, and say only what helps: the gravest first, nothing on a healthy run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from petskin_tune.diagnosis.curves import Curves, from_history
from petskin_tune.diagnosis.finding import Finding
from petskin_tune.diagnosis.rules.divergence import diverged
from petskin_tune.diagnosis.rules.learning_rate import learning_rate_too_low, never_warmed_up, still_improving
from petskin_tune.diagnosis.rules.masks import class_never_found, mask_worse_than_box
from petskin_tune.diagnosis.rules.overfitting import overfitting
from petskin_tune.diagnosis.rules.standstill import not_learning, nothing_found, stuck
from petskin_tune.errors import UsageError

LEAST_EPOCHS = 5  # a shorter run says nothing but that it diverged


def judge(curves: Curves) -> list[Finding]:
    """All findings on one run; none on a healthy or a very short one."""
    if finding := diverged(curves):
        return [finding]  # what other curves show of a broken model means nothing
    curves = curves.sound()
    if len(curves) < LEAST_EPOCHS:
        return []
    course = never_warmed_up(curves) or not_learning(curves) or nothing_found(curves)
    course = course or stuck(curves) or overfitting(curves)
    # A run that still climbs is told so once, with its cause where that is known.
    course = course or learning_rate_too_low(curves) or still_improving(curves)
    return [finding for finding in (course, class_never_found(curves), mask_worse_than_box(curves)) if finding]


def findings(history: Mapping[str, Sequence[float]], arguments: Mapping[str, Any]) -> dict[str, str]:
    """What the curves of an ended trial show, the gravest first: ``{"overfitting": "Overfitting since epoch 31: …"}``.

    Args:
        history: one value an epoch in every column, named as in ``results.csv``.
        arguments: Ultralytics', in force.

    Returns:
        nothing for a healthy or a very short trial.
    """
    try:
        curves = from_history(history, arguments)
    except UsageError:  # not a single epoch
        return {}
    return {finding.kind: finding.message for finding in judge(curves)}
