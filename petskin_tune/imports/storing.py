"""Foreign trials into the study, each once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial
from sqlalchemy.orm import Session

from petskin_tune.database import queries
from petskin_tune.database.storage import models
from petskin_tune.study import attributes
from petskin_tune.study.foreign import foreign_of
from petskin_tune.study.study import Study

_AT_ONCE = 25  # trials in a transaction: other processes wait for its end


def add(study: Study, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Add foreign trials to the study, but for those that it holds already; those added, with their numbers.

    Args:
        study: open for writing.
        trials: as :func:`petskin_tune.imports.fitting.fit` makes them.
    """
    before = study.storage.transaction(lambda session: _digests(study.id, session))
    for batch in _batches(trials):
        study.storage.transaction(lambda session: _add(study, batch, session))  # noqa: B023
    added = {trial.user_attrs[attributes.FOREIGN]["digest"] for trial in trials} - before
    return [trial for trial in study.trials() if (kept := foreign_of(trial)) and kept.digest in added]


def _add(study: Study, trials: Sequence[FrozenTrial], session: Session) -> None:
    session.execute(queries.LOCK_STUDY[study.storage.engine.name], {"study_id": study.id})
    known = _digests(study.id, session)
    number = session.query(models.TrialModel).filter_by(study_id=study.id).count()  # Optuna's own rule
    for trial in trials:
        digest = trial.user_attrs[attributes.FOREIGN]["digest"]
        if digest not in known:
            known.add(digest)
            _insert(study.id, number, trial, session)
            number += 1


def _insert(study_id: int, number: int, trial: FrozenTrial, session: Session) -> None:
    """As Optuna stores a finished trial, but all its rows at once: a server far away answers once a trial."""
    times = {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}
    row = models.TrialModel(study_id=study_id, number=number, state=trial.state, **times)
    session.add(row)
    session.flush()
    session.add_all([kind(trial_id=row.trial_id, **columns) for kind, columns in _parts(trial)])
    session.flush()


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


def _digests(study_id: int, session: Session) -> set[str]:
    rows = (
        session.query(models.TrialUserAttributeModel.value_json)
        .join(models.TrialModel, models.TrialModel.trial_id == models.TrialUserAttributeModel.trial_id)
        .filter(models.TrialModel.study_id == study_id, models.TrialUserAttributeModel.key == attributes.FOREIGN)
    )
    return {str(kept.get("digest")) for (text,) in rows if isinstance(kept := json.loads(text), dict)}


def _batches(trials: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(trials)
    while batch := list(islice(rest, _AT_ONCE)):
        yield batch
