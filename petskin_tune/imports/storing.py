"""Foreign trials into the study, each once; of a run that has gone on since, the longer record replaces the shorter."""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial
from sqlalchemy.orm import Session

from petskin_tune.database.storage import models
from petskin_tune.database.unreadable import value_of
from petskin_tune.imports.tune_logs import FITNESS_OF
from petskin_tune.study import attributes
from petskin_tune.study.foreign import foreign_of
from petskin_tune.study.study import Study

_AT_ONCE = 25  # trials in a transaction: other processes wait for its end
_Curve = Mapping[int, float]


@dataclass(frozen=True)
class Added:
    """What the study has gained.

    Attributes:
        trials: those added, with their numbers.
        more: by how many epochs those of them go on that the study held shorter, by number.
    """

    trials: Sequence[FrozenTrial]
    more: Mapping[int, int]


@dataclass(frozen=True)
class _Known:
    """A foreign trial that the study holds, as far as it is needed to tell it."""

    trial_id: int
    digest: str
    settings: str
    scale: str
    diverged: bool


def add(study: Study, trials: Sequence[FrozenTrial]) -> Added:
    """Add foreign trials to the study, but for those that it holds already.

    Args:
        study: open for writing.
        trials: as :func:`petskin_tune.imports.fitting.fit` makes them.
    """
    said = {_said(trial)["settings"] for trial in trials}
    known, lengths = study.storage.transaction(lambda session: _before(study.id, said, session))
    trials = _renamed(trials, known)
    for batch in _batches(trials):
        study.storage.transaction(lambda session: _add(study, batch, session))  # noqa: B023
    added = {_said(trial)["digest"] for trial in trials} - {one.digest for one in known}
    stored = [trial for trial in study.trials() if (kept := foreign_of(trial)) and kept.digest in added]
    more = {one.number: len(one.intermediate_values) - lengths[one.number] for one in stored if one.number in lengths}
    return Added(stored, more)


def _said(trial: FrozenTrial) -> dict[str, Any]:
    kept: dict[str, Any] = trial.user_attrs[attributes.FOREIGN]
    return kept


def _before(study_id: int, settings: set[str], session: Session) -> tuple[list[_Known], dict[int, int]]:
    """What the study holds, and how many epochs, by number, of what has some of these settings."""
    known = _known(study_id, session)
    alike = (_row(one.trial_id, session) for one in known if one.settings and one.settings in settings)
    return known, {row.number: len(row.intermediate_values) for row in alike if row is not None}


def _renamed(trials: Sequence[FrozenTrial], known: Iterable[_Known]) -> list[FrozenTrial]:
    """The trials, those of a log that the study knows already with the scale that it has there."""
    theirs = {one.digest: one.scale for one in known if one.scale.startswith(FITNESS_OF) and not one.diverged}
    names: dict[str, str] = {}
    for said in map(_said, trials):
        if said["scale"].startswith(FITNESS_OF) and said["digest"] in theirs:
            names.setdefault(said["scale"], theirs[said["digest"]])
    return [_of_scale(trial, names.get(_said(trial)["scale"])) for trial in trials]


def _of_scale(trial: FrozenTrial, scale: str | None) -> FrozenTrial:
    if scale is None:
        return trial
    renamed = copy.copy(trial)
    renamed.user_attrs = {**trial.user_attrs, attributes.FOREIGN: {**_said(trial), "scale": scale}}
    return renamed


def _add(study: Study, trials: Sequence[FrozenTrial], session: Session) -> None:
    study.fence.require(session)
    known = _known(study.id, session)
    digests = {one.digest for one in known}
    records: dict[str, list[int]] = defaultdict(list)  # ids of trials by their settings
    for one in known:
        records[one.settings].append(one.trial_id)
    number = session.query(models.TrialModel).filter_by(study_id=study.id).count()  # Optuna's own rule
    for trial in trials:
        said, curve = _said(trial), trial.intermediate_values
        of_run = records[said["settings"]] if said["settings"] else []
        rows = [row for trial_id in of_run if (row := _row(trial_id, session)) is not None]
        if said["digest"] in digests or any(_goes_on(_curve(row), curve) for row in rows):
            continue
        digests.add(said["digest"])
        if shorter := next((row for row in rows if _goes_on(curve, _curve(row))), None):
            of_run.remove(shorter.trial_id)
            of_run.append(_replace(shorter, trial, session))
        else:
            of_run.append(_insert(study.id, number, trial, session))
            number += 1


# ---- of one run, two records -----------------------------------------------------------------------------------------


def _row(trial_id: int, session: Session) -> Any:
    """The row of a foreign trial; None of one that a worker of ours has made or taken, or that has not ended."""
    row: Any = session.get(models.TrialModel, trial_id)
    ours = row is None or any(kept.key == attributes.MARK for kept in row.system_attributes)
    return None if ours or not row.state.is_finished() else row


def _curve(row: Any) -> _Curve:
    read = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return {kept.step: read(kept.intermediate_value, kept.intermediate_value_type) for kept in row.intermediate_values}


def _goes_on(longer: _Curve, shorter: _Curve) -> bool:
    """Whether a curve is the other one and more; zeros alone tell no run from another."""
    begun = sorted(longer.items())[: len(shorter)]
    same = repr(begun) == repr(sorted(shorter.items()))  # where both are no number, too
    return same and len(longer) > len(shorter) and any(value > 0 for value in shorter.values())


def _replace(row: Any, trial: FrozenTrial, session: Session) -> int:
    """Put a trial in the place of another one, with what people noted on that; its id.

    It is a new row of the same number: Optuna, wherever the study is open, reads no row of a finished trial twice.
    """
    old, study_id = row.trial_id, row.study_id
    new = _insert(study_id, row.number, trial, session)
    for kind, kept in (
        (models.TrialUserAttributeModel, trial.user_attrs),
        (models.TrialSystemAttributeModel, trial.system_attrs),
    ):
        for noted in session.query(kind).filter(kind.trial_id == old, kind.key.not_in(list(kept))):
            session.add(kind(trial_id=new, key=noted.key, value_json=noted.value_json))
    for prefix in ("dashboard:{}:", "dashboard:artifacts:{}:"):  # by which optuna-dashboard keeps it with the study
        of_study = session.query(models.StudySystemAttributeModel).filter_by(study_id=study_id)
        for noted in of_study.filter(models.StudySystemAttributeModel.key.startswith(prefix.format(old))):
            noted.key = prefix.format(new) + noted.key.removeprefix(prefix.format(old))
    session.delete(row)
    session.flush()
    return new


# ---- rows ------------------------------------------------------------------------------------------------------------


def _insert(study_id: int, number: int, trial: FrozenTrial, session: Session) -> int:
    """As Optuna stores a finished trial, but all its rows at once: a server far away answers once a trial. Its id."""
    times = {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}
    row = models.TrialModel(study_id=study_id, number=number, state=trial.state, **times)
    session.add(row)
    session.flush()
    session.add_all([kind(trial_id=row.trial_id, **columns) for kind, columns in _parts(trial)])
    session.flush()
    return int(row.trial_id)


def _parts(trial: FrozenTrial) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Optuna's table and the columns of every row that belongs to the trial."""
    for objective, value in enumerate(trial.values or []):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        yield models.TrialValueModel, {"objective": objective, "value": stored, "value_type": kind}
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        columns = {"param_name": name, "param_value": distribution.to_internal_repr(value)}
        yield models.TrialParamModel, {**columns, "distribution_json": distribution_to_json(distribution)}
    for step, value in trial.intermediate_values.items():
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
        columns = {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}
        yield models.TrialIntermediateValueModel, columns
    for key, value in trial.user_attrs.items():
        yield models.TrialUserAttributeModel, {"key": key, "value_json": json.dumps(value)}
    for key, value in trial.system_attrs.items():
        yield models.TrialSystemAttributeModel, {"key": key, "value_json": json.dumps(value)}


def _known(study_id: int, session: Session) -> list[_Known]:
    rows = (
        session.query(models.TrialModel.trial_id, models.TrialUserAttributeModel.value_json)
        .join(models.TrialModel, models.TrialModel.trial_id == models.TrialUserAttributeModel.trial_id)
        .filter(models.TrialModel.study_id == study_id, models.TrialUserAttributeModel.key == attributes.FOREIGN)
        .order_by(models.TrialModel.number)
    )
    read = ((trial_id, value_of(text)) for trial_id, text in rows)
    return [_known_as(trial_id, kept) for trial_id, kept in read if isinstance(kept, dict)]


def _known_as(trial_id: int, kept: Mapping[str, Any]) -> _Known:
    digest, settings, scale = (str(kept.get(name) or "") for name in ("digest", "settings", "scale"))
    return _Known(trial_id, digest, settings, scale, bool(kept.get("diverged")))


def _batches(trials: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(trials)
    while batch := list(islice(rest, _AT_ONCE)):
        yield batch
