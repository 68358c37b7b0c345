"""Is the search searching: trials that all end alike, and a best that is no better than the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from petskin_tune.diagnosis.comparison import curves_of
from petskin_tune.diagnosis.curves import fitness_noise
from petskin_tune.language import _
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import so_far
from petskin_tune.study.foreign import without_foreign
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_kind

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from petskin_tune.study.best.gain import Against, Gain

IN_A_ROW = 5  # trials that end alike before it is said
ENOUGH_TRIALS = 10  # finished ones, before the best is held against the defaults
USUAL_NOISE = 0.007  # of mask mAP50-95 from one epoch to the next, median of public YOLO segmentation runs

Concern = Literal["same-value", "same-failure", "no-better-than-defaults"]


def concerns(
    trials: Sequence[FrozenTrial], spec: StudySpec | None, first: FrozenTrial | None, in_a_row: int = IN_A_ROW
) -> dict[Concern, str]:
    """What is wrong with the search itself, each in a sentence; empty where nothing is. ``first`` is the best trial."""
    trials = without_foreign(trials)
    said: dict[Concern, str | None] = {
        "same-value": _same_value(trials, in_a_row),
        "same-failure": _same_failure(trials, in_a_row),
        "no-better-than-defaults": _no_better_than_defaults(trials, spec, first),
    }
    return {concern: sentence for concern, sentence in said.items() if sentence}


def warnings(
    trials: Sequence[FrozenTrial], spec: StudySpec | None, first: FrozenTrial | None, gain: Gain | None = None
) -> list[str]:
    """The sentences of :func:`concerns`, after as many trials in a row as the study lets fail alike.

    Args:
        trials: of the study.
        spec: of the study; None: it is not ours.
        first: the study's best trial; None: it has none.
        gain: what repetitions of the best trial have shown, which is more than single trials can.
    """
    said = concerns(trials, spec, first, spec.max_identical_failures if spec else IN_A_ROW)
    if gain is not None and gain.verdict == "gain":
        said.pop("no-better-than-defaults", None)
    return list(said.values())


def identical_failures(trials: Sequence[FrozenTrial]) -> tuple[str, int] | None:
    """The kind of failure with which the trials that ended last all ended, and how many in a row; None: otherwise.

    A trial that goes on, or is frozen, counts as well as soon as it has a value, at its beginning.
    """
    judged = (trial for trial in without_foreign(trials) if trial.state.is_finished() or is_healthy(trial))
    newest_first = sorted(judged, key=_ended_or_begun, reverse=True)
    kinds = [failure_kind(trial) for trial in newest_first]
    if not kinds or kinds[0] is None:
        return None
    return kinds[0], next((index for index, kind in enumerate(kinds) if kind != kinds[0]), len(kinds))


def is_healthy(trial: FrozenTrial) -> bool:
    """Whether a trial has a value, and has not failed."""
    return failure_kind(trial) is None and (bool(trial.values) or so_far(trial) is not None)


def _ended_or_begun(trial: FrozenTrial) -> tuple[datetime, int]:
    return trial.datetime_complete or trial.datetime_start or datetime.min, trial.number


def _ended(trial: FrozenTrial) -> tuple[datetime, int]:
    return trial.datetime_complete or datetime.min, trial.number


def _same_value(trials: Sequence[FrozenTrial], in_a_row: int) -> str | None:
    complete = [trial for trial in sorted(trials, key=_ended) if trial.state.name == "COMPLETE" and trial.values]
    last = complete[-in_a_row:]
    if len(last) < in_a_row or len({trial.values[0] for trial in last}) > 1:
        return None
    return _(
        "The last {count} complete trials have the same value, {value:.4g}: what is searched has no effect, or nothing "
        "is learnt at all."
    ).format(count=in_a_row, value=last[0].values[0])


def _same_failure(trials: Sequence[FrozenTrial], in_a_row: int) -> str | None:
    found = identical_failures(trials)
    if found is None or found[1] < in_a_row:
        return None
    kind, count = found
    newest = max((trial for trial in trials if failure_kind(trial) == kind), key=_ended)
    message = recorded(newest).get(attributes.FAILURE, {}).get("message", "")
    said = _("The last {count} trials all failed in the same way, {kind}.")
    if message:
        said = _("The last {count} trials all failed in the same way, {kind}: {message}")
    return said.format(count=count, kind=kind, message=message)


def _no_better_than_defaults(
    trials: Sequence[FrozenTrial], spec: StudySpec | None, first: FrozenTrial | None
) -> str | None:
    defaults = defaults_trial(trials, spec)
    finished = sum(trial.state.is_finished() for trial in trials)
    if defaults is None or first is None or not defaults.values or finished < ENOUGH_TRIALS:
        return None
    curves = curves_of(first)
    margin = 2 * (fitness_noise(curves) if curves else USUAL_NOISE)
    ahead = first.values[0] - defaults.values[0]
    if ahead > margin:
        return None
    if first.number == defaults.number:
        return _(
            "The defaults themselves are the best trial after {finished} trials: widen the ranges, or accept the "
            "defaults."
        ).format(finished=finished)
    if ahead < -margin:
        return _(
            "The best trial ({number}) lies below the defaults (trial {defaults}): {ahead:+.4f}, noise {noise:.4f} "
            "after {finished} trials: widen the ranges, or accept the defaults."
        ).format(number=first.number, defaults=defaults.number, ahead=ahead, noise=margin / 2, finished=finished)
    return _(
        "The best trial ({number}) lies within noise of the defaults (trial {defaults}): {ahead:+.4f}, noise "
        "{noise:.4f} after {finished} trials: widen the ranges, or accept the defaults."
    ).format(number=first.number, defaults=defaults.number, ahead=ahead, noise=margin / 2, finished=finished)


def defaults_trial(trials: Sequence[FrozenTrial], spec: StudySpec | None) -> FrozenTrial | None:
    """The trial that tried `defaults`, if it is complete."""
    found = reference_trial(trials, spec) if spec is not None and "defaults" in spec.start else None
    return found if found is not None and found.state.name == "COMPLETE" else None


def reference_trial(trials: Sequence[FrozenTrial], spec: StudySpec | None) -> FrozenTrial | None:
    """The trial by which the best is measured, complete or not: that of `defaults`, else the first start point.

    Start points are enqueued first and in order.
    """
    starts = [trial for trial in trials if recorded(trial).get(attributes.ORIGIN) == "start point"]
    place = spec.start.index("defaults") if spec is not None and "defaults" in spec.start else 0
    in_order = sorted(starts, key=lambda trial: trial.number)
    return in_order[place] if place < len(in_order) else None


def reference_of(spec: StudySpec | None) -> Against:
    """What :func:`reference_trial` tried."""
    return "defaults" if spec is None or "defaults" in spec.start else "start point"
