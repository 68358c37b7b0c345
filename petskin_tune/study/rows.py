"""Rows of a study as Optuna's tables keep them, for what must be written in one transaction of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.orm import Session

from petskin_tune.database.storage import models
from petskin_tune.study import attributes
from petskin_tune.study.spec import CHANGEABLE, StudySpec


def to_json(spec: StudySpec) -> Any:
    """The spec as the study's attribute has it."""
    return spec.model_dump(mode="json")


def changeable(spec: StudySpec) -> dict[str, Any]:
    """What may change at any time, in the form of :func:`to_json`."""
    return spec.model_dump(mode="json", include=set(CHANGEABLE))


def new_attribute(study_id: int, key: str, value: Any) -> Any:
    """The row of a user attribute that the study has not yet."""
    return models.StudyUserAttributeModel(study_id=study_id, key=key, value_json=json.dumps(value))


def attribute(session: Session, study_id: int, key: str) -> Any:
    """The row of a user attribute of the study; None where it has none of that name."""
    return session.query(models.StudyUserAttributeModel).filter_by(study_id=study_id, key=key).one_or_none()


def keep_attribute(session: Session, study_id: int, key: str, value: Any | None) -> None:
    """Set a user attribute of the study, or delete it (None), under the study's lock."""
    row = attribute(session, study_id, key)
    if row is None and value is not None:
        session.add(new_attribute(study_id, key, value))
    elif row is not None and value is not None:
        row.value_json = json.dumps(value)
    elif row is not None:
        session.delete(row)


def waiting_trial(
    point: Mapping[str, Any], spec: StudySpec, origin: str, nonce: str, noted: Mapping[str, Any] | None = None
) -> FrozenTrial:
    """A trial that waits, as ``optuna.Study.enqueue_trial`` makes one; what is not searched is the trial's own.

    Args:
        point: what it is to train with; searched names left out are drawn.
        spec: of the study.
        origin: where the point comes from, see ``attributes.ORIGIN``.
        nonce: no other trial of the database has it; by it a retry after a lost answer finds the trial again.
        noted: more of its user attributes.
    """
    searched = {name: value for name, value in point.items() if name in spec.search}
    fixed = {name: value for name, value in point.items() if name not in spec.search}
    return create_trial(
        state=TrialState.WAITING,
        system_attrs={attributes.POINT: searched, attributes.ENQUEUED: nonce},
        user_attrs={attributes.ORIGIN: origin, **({attributes.FIXED: fixed} if fixed else {}), **(noted or {})},
    )
