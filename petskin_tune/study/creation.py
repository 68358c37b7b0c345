"""The birth of a study: in one transaction with its start points, so that of racing workers one creates it."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from petskin_tune.database import queries
from petskin_tune.database.storage import PetskinStorage, models
from petskin_tune.study import attributes
from petskin_tune.study.rows import new_attribute, to_json, waiting_trial
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.study import Study, find_study

START_POINT = "start point"  # where a trial comes from that the study file asks for


def create_study(
    storage: PetskinStorage,
    spec: StudySpec,
    *,
    points: tuple[Mapping[str, Any], ...],
    attributes_of_study: Mapping[str, Any],
    waiting: Sequence[FrozenTrial] = (),
    instead_of: Study | None = None,
) -> Study:
    """Create the study with its start points in one transaction, or open it when another worker was faster.

    Args:
        storage: where.
        spec: of the study.
        points: tried first.
        waiting: trials of :func:`~petskin_tune.study.rows.waiting_trial` that are tried after them.
        attributes_of_study: set with it.
        instead_of: an untouched study (:func:`is_untouched`) of this name, deleted in the same transaction.
    """
    stored = {**attributes_of_study, attributes.SPEC: to_json(spec), attributes.UID: uuid.uuid4().hex[:12]}

    def work(session: Session) -> None:
        other_id = {} if instead_of is None else _delete_untouched(session, instead_of)
        if other_id is None:
            return
        direction = models.StudyDirectionModel(objective=0, direction=StudyDirection.MAXIMIZE)
        row = models.StudyModel(study_name=spec.study, directions=[direction], **other_id)
        session.add(row)
        session.flush()
        for key, value in stored.items():
            session.add(new_attribute(row.study_id, key, value))
        session.add(
            models.StudySystemAttributeModel(
                study_id=row.study_id, key=attributes.METRIC_NAMES, value_json=json.dumps([attributes.METRIC])
            )
        )
        of_points = (waiting_trial(point, spec, START_POINT, uuid.uuid4().hex) for point in points)
        for template in (*of_points, *waiting):
            storage._get_prepared_new_trial(row.study_id, template, session)

    with contextlib.suppress(IntegrityError):  # the name is taken: by a faster worker, or by our own lost attempt
        storage.transaction(work)
    study = find_study(storage, spec.study)
    assert study is not None
    return study


def is_untouched(study: Study) -> bool:
    """Whether the study holds nothing but the start points of its file, none of them begun."""
    return all(
        trial.state == TrialState.WAITING and trial.user_attrs.get(attributes.ORIGIN) == START_POINT
        for trial in study.trials()
    )


def _delete_untouched(session: Session, study: Study) -> dict[str, int] | None:
    """Delete the study and what waits in it; None where a worker or a person was faster.

    Returns an id for the study that takes its place: SQLite would give it the same one, and a worker that still has the
    old study open would train trials of the new one.
    """
    session.execute(queries.LOCK_STUDY[study.storage.engine.name], {"study_id": study.id})
    row = session.get(models.StudyModel, study.id, populate_existing=True)
    if row is None or not all(_waits_as_start_point(trial) for trial in row.trials):
        return None
    highest = session.query(func.max(models.StudyModel.study_id)).scalar()
    session.delete(row)
    session.flush()
    return {"study_id": highest + 1} if study.storage.engine.name == "sqlite" else {}


def _waits_as_start_point(trial: Any) -> bool:
    origin = next((row.value_json for row in trial.user_attributes if row.key == attributes.ORIGIN), None)
    return trial.state == TrialState.WAITING and origin == json.dumps(START_POINT)


def name_metric(study: Study) -> None:
    """Let Optuna's own tools say what is maximised, in a study from before it was written at birth, too."""
    if study.optuna.metric_names is None:
        study.storage.set_study_system_attr(study.id, attributes.METRIC_NAMES, [attributes.METRIC])
