"""The birth of a study: in one transaction with its start points, so that of racing workers one creates it."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

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
        if instead_of is not None and not _delete_untouched(session, instead_of):
            return
        direction = models.StudyDirectionModel(objective=0, direction=StudyDirection.MAXIMIZE)
        row = models.StudyModel(study_name=spec.study, directions=[direction])
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


def _delete_untouched(session: Session, study: Study) -> bool:
    """Delete the study and what waits in it, if it is still there; False where a worker or a person was faster."""
    if not study.fence.is_kept(session):
        return True
    row = session.get(models.StudyModel, study.id, populate_existing=True)
    if row is None or not all(_waits_as_start_point(trial) for trial in row.trials):
        return False
    session.delete(row)
    session.flush()
    return True


def _waits_as_start_point(trial: Any) -> bool:
    origin = next((row.value_json for row in trial.user_attributes if row.key == attributes.ORIGIN), None)
    return trial.state == TrialState.WAITING and origin == json.dumps(START_POINT)


def name_metric(study: Study) -> None:
    """Let Optuna's own tools say what is maximised, in a study from before it was written at birth, too."""
    if study.optuna.metric_names is None:
        study.storage.set_study_system_attr(study.id, attributes.METRIC_NAMES, [attributes.METRIC])
