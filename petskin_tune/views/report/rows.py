"""What the report knows of each trial, read once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from petskin_tune.diagnosis.curves import LEAST_NOISE, noise
from petskin_tune.diagnosis.explain import kinds_of
from petskin_tune.diagnosis.search import USUAL_NOISE, reference_of, reference_trial
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import ranked
from petskin_tune.study.best.repeats import gain_of, repeats_of
from petskin_tune.study.foreign import without_foreign
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_kind, spec_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

    from petskin_tune.leases.lease import Lease
    from petskin_tune.study.best.gain import Against, Gain
    from petskin_tune.study.spec import StudySpec
    from petskin_tune.views.holds import Hold

ENOUGH_FOR_NOISE = 4  # epochs of a curve

_STATES = {"FAIL": "failed"}

Group = Literal["complete", "pruned", "frozen", "suspended", "running", "failed", "waiting"]


@dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
        state: Optuna's in small letters, "failed", "frozen", or "suspended": nobody trains it now.
        kind: of the failure that ended it; such a trial may be "pruned" for Optuna.
        value: its value, or its best epoch so far; mask mAP50-95.
        curve: (epoch, fitness) of its epochs, fitness finite.
        seconds: spent training, over all workers; of a trial that is not ours, from its start to its end.
        lost: seconds of training that were done twice.
        findings: kinds of what its curves show.
    """

    trial: FrozenTrial
    state: str
    kind: str | None
    value: float | None
    curve: tuple[tuple[int, float], ...]
    seconds: float
    best_epoch: int | None
    worker: str | None
    origin: str | None
    resumes: int
    lost: float
    findings: tuple[str, ...]

    @property
    def number(self) -> int:
        """Optuna's number of the trial."""
        return self.trial.number

    @property
    def params(self) -> dict[str, Any]:
        """Its searched parameters."""
        return self.trial.params

    @property
    def group(self) -> Group:
        """How it is drawn: as its state, or as a failure whatever Optuna was told."""
        if self.kind:
            return "failed"
        return self.state  # type: ignore[return-value]

    @property
    def ended_with_value(self) -> bool:
        """Whether its value is final and can be compared."""
        return self.group in ("complete", "pruned") and self.value is not None

    @property
    def begin(self) -> datetime | None:
        """When it began, by its worker's clock."""
        return self.trial.datetime_start

    @property
    def end(self) -> datetime | None:
        """When it ended, by its worker's clock."""
        return self.trial.datetime_complete


@dataclass(frozen=True)
class Table:
    """A study at one instant.

    Attributes:
        rows: its trials by number.
        order: the numbers of those that ended with a value, best first.
        space: name and distribution of every parameter that a trial has: searched ones first, as the study file has
            them.
        defaults: the trial that tried Ultralytics' defaults, complete or not; else the first start point.
        noise: of mask mAP from one epoch to the next: the median of the study's own curves.
        noise_curves: of how many; 0: it is what public runs show.
        gain: what repetitions of its best trial have shown.
        is_of_repetitions: it repeats trials of another study; the best of its own is the luckiest.
    """

    name: str
    spec: StudySpec | None
    rows: tuple[Row, ...]
    order: tuple[int, ...]
    space: dict[str, BaseDistribution]
    defaults: Row | None
    noise: float
    noise_curves: int
    gain: Gain | None = None
    is_of_repetitions: bool = False

    @property
    def best(self) -> Row | None:
        """The first in :attr:`order`."""
        return self.row(self.order[0]) if self.order else None

    def row(self, number: int) -> Row:
        """Trial ``number``."""
        found = self.rows[number] if number < len(self.rows) else None
        if found is not None and found.number == number:
            return found
        return next(row for row in self.rows if row.number == number)

    @property
    def reference(self) -> Against:
        """What :attr:`defaults` began with."""
        return reference_of(self.spec)

    @property
    def valued(self) -> list[Row]:
        """The trials whose values can be compared, by number."""
        return [row for row in self.rows if row.ended_with_value]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Parameters with more than one possible value."""
        return {name: known for name, known in self.space.items() if not known.single()}


def read(study: Study, leases: Sequence[Lease], holds: Mapping[int, Hold]) -> Table:
    """Read a study, ours or anybody's, without the runs of elsewhere; nothing is written.

    Args:
        study: of Optuna.
        leases: of the study.
        holds: who holds each trial that has not ended, by its number.
    """
    trials = sorted(without_foreign(study.get_trials(deepcopy=False)), key=lambda trial: trial.number)
    held = {lease.number: lease for lease in leases}
    rows = tuple(_row(trial, held.get(trial.number), holds.get(trial.number)) for trial in trials)
    spec = spec_of(study)
    median, curves = _noise(rows)
    is_of_repetitions = repeats_of(study.user_attrs) is not None
    table = Table(
        name=study.study_name,
        spec=spec,
        rows=rows,
        order=() if is_of_repetitions else tuple(trial.number for trial in ranked(trials, study.user_attrs)),
        space=_space(trials, spec),
        defaults=None,
        noise=median,
        noise_curves=curves,
        gain=gain_of(study.user_attrs),
        is_of_repetitions=is_of_repetitions,
    )
    start = reference_trial(trials, spec)
    return table if start is None else replace(table, defaults=table.row(start.number))


def _row(trial: FrozenTrial, lease: Lease | None, hold: Hold | None) -> Row:
    known = recorded(trial)
    curve = tuple((e, float(v)) for e, v in sorted(trial.intermediate_values.items()) if math.isfinite(v))
    values = [value for value in trial.values or () if math.isfinite(value)] or [value for _, value in curve]
    value = max(values, default=None)
    return Row(
        trial=trial,
        state=_state(trial, hold),
        kind=failure_kind(trial),
        value=value,
        curve=curve,
        seconds=known.get(attributes.SECONDS) or _duration(trial),
        best_epoch=known.get(attributes.BEST_EPOCH) or next((epoch for epoch, v in curve if v == value), None),
        worker=known.get(attributes.WORKER),
        origin=known.get(attributes.ORIGIN),
        resumes=lease.resumes if lease else known.get(attributes.RESUMES, 0),
        lost=lease.seconds_lost if lease else 0.0,
        findings=kinds_of(trial),
    )


def _state(trial: FrozenTrial, hold: Hold | None) -> str:
    if hold is None or hold == "training":
        return _STATES.get(trial.state.name, trial.state.name.lower())
    return "frozen" if hold == "frozen" else "suspended"


def _duration(trial: FrozenTrial) -> float:
    return trial.duration.total_seconds() if trial.duration else 0.0


def _noise(rows: Sequence[Row]) -> tuple[float, int]:
    """The usual noise of a complete curve; the first rises of a training that learns are no noise."""
    curves = [row.curve for row in rows if row.state == "complete" and len(row.curve) >= ENOUGH_FOR_NOISE]
    found = [noise(np.array([value for _, value in curve])) for curve in curves]
    if not found:
        return USUAL_NOISE, 0
    return max(float(np.median(found)), LEAST_NOISE), len(found)


def _space(trials: Sequence[FrozenTrial], spec: StudySpec | None) -> dict[str, BaseDistribution]:
    """The newest distribution of every parameter: a range may have been widened."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        found.update(trial.distributions)
    first = [name for name in (spec.search if spec else ()) if name in found]
    return {name: found[name] for name in (*first, *sorted(found.keys() - set(first)))}
