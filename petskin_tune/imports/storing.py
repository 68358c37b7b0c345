"""Foreign trials into the study, each once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

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
    for trial in trials:
        digest = trial.user_attrs[attributes.FOREIGN]["digest"]
        if digest not in known:
            known.add(digest)
            study.storage._get_prepared_new_trial(study.id, trial, session)


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
