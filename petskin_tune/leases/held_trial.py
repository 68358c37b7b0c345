"""A trial that this worker owns, and every write to it. Each write renews the lease, or does not happen."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from petskin_tune.database import queries as schema
from petskin_tune.database.storage import models
from petskin_tune.errors import LeaseLost
from petskin_tune.faults import reach
from petskin_tune.leases.claims import Held, Leases, SnapshotPointer
from petskin_tune.study import attributes

Result = TypeVar("Result")


class HeldTrial:
    """The writes to one held trial; all raise :class:`LeaseLost` when it has another owner or was finished by a person.

    Every method is one transaction and may be repeated: a second call with the same arguments changes nothing.
    """

    def __init__(self, leases: Leases, held: Held) -> None:
        self.leases = leases
        self.held = held
        self.storage = leases.storage
        self.number = held.number
        self.last_write = time.monotonic()  # when the lease was renewed last

    def read(self) -> FrozenTrial:
        """The trial as it stands in the database.

        Raises:
            LeaseLost: a person deleted it.
        """
        try:
            return self.storage.get_trial(self.held.trial_id)
        except KeyError as error:
            raise LeaseLost(f"trial {self.number} was deleted") from error

    def store_draw(
        self,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        system_attributes: Mapping[str, Any],
        user_attributes: Mapping[str, Any],
    ) -> None:
        """Store all parameters of the trial, and what the sampler wants remembered, at once."""
        reach("before-parameters")

        def work(session: Session) -> None:
            stored = {
                row.param_name
                for row in session.query(models.TrialParamModel).filter_by(trial_id=self.held.trial_id).all()
            }
            for name, value in params.items():
                if name not in stored:
                    distribution = distributions[name]
                    self.storage._set_trial_param_without_commit(
                        session,
                        self.held.trial_id,
                        name,
                        distribution.to_internal_repr(value),
                        distribution,
                        previous_distribution=distribution,  # else it is compared with any trial's, a person's too
                    )
            self._set_attributes(session, models.TrialSystemAttributeModel, system_attributes)
            self._set_attributes(session, models.TrialUserAttributeModel, user_attributes)

        self._write(work)
        reach("parameters-stored")

    def describe(self, user_attributes: Mapping[str, Any]) -> None:
        """Set user attributes."""
        self._write(lambda session: self._set_attributes(session, models.TrialUserAttributeModel, user_attributes))

    def report(self, epoch: int, fitness: float, user_attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Report the fitness after ``epoch`` (1-based) epochs. What was reported before is never overwritten.

        Returns:
            what other processes may have said meanwhile: see :func:`study_news`.
        """
        reach("before-report")
        stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(fitness)
        row = {"trial_id": self.held.trial_id, "step": epoch, "value": stored, "kind": kind.name}

        def work(session: Session) -> dict[str, Any]:
            session.execute(schema.INSERT_VALUE, row)
            self._set_attributes(session, models.TrialUserAttributeModel, user_attributes)
            return study_news(session, self.leases.study_id)

        news = self._write(work)
        reach("report-sent")
        return news

    def values_at(self, epoch: int) -> dict[int, tuple[TrialState, float]]:
        """State and reported fitness at ``epoch`` of every trial of the study that reached it, by trial number."""

        def work(session: Session) -> dict[int, tuple[TrialState, float]]:
            rows = session.execute(schema.VALUES_AT_STEP, {"study_id": self.leases.study_id, "step": epoch})
            return {number: (TrialState[state], _value(value, kind)) for number, state, value, kind in rows}

        return self.storage.transaction(work)

    def tell(
        self,
        state: TrialState,
        value: float | None,
        user_attributes: Mapping[str, Any],
        system_attributes: Mapping[str, Any],
    ) -> None:
        """Finish the trial, and with it the lease.

        Args:
            state: how it ended.
            value: its fitness, if it has one.
            user_attributes: to set with it.
            system_attributes: to set with it.

        Raises:
            LeaseLost: it has another owner, or was finished by somebody else.
            ValueError: the value is not a number, which Optuna's tables cannot hold.
        """
        if value is not None and math.isnan(value):
            raise ValueError(f"trial {self.number} cannot be finished with nan")
        reach("before-tell")

        def work(session: Session) -> None:
            trial = session.get(models.TrialModel, self.held.trial_id, with_for_update=True)
            assert trial is not None  # its lease would be gone with it
            self._set_attributes(session, models.TrialUserAttributeModel, user_attributes)
            self._set_attributes(session, models.TrialSystemAttributeModel, system_attributes)
            self.storage.check_trial_is_updatable(trial.trial_id, trial.state)
            if value is not None:
                self.storage._set_trial_value_without_commit(session, trial, 0, value)
            trial.state = state
            trial.datetime_complete = datetime.now()
            session.flush()

        self._transaction(lambda: self.leases.end(self.held, "done", state.name, work))
        reach("told")

    def point_to(self, pointer: SnapshotPointer) -> None:
        """Make a verified snapshot the one that the trial is resumed from."""
        reach("before-snapshot-pointer")
        row = {
            "trial_id": self.held.trial_id,
            "token": self.held.token,
            "key": pointer.key,
            "sha256": pointer.sha256,
            "epoch": pointer.position.epoch,
            "batch": pointer.position.batch,
        }

        def work(session: Session) -> None:
            session.execute(schema.POINT_TO_SNAPSHOT[self.storage.engine.name], row)

        self._write(work)
        reach("snapshot-committed")

    def fall_back_to(self, pointer: SnapshotPointer) -> None:
        """Forget the newest snapshot, which is no good: the one before is the newest then, and is kept as such."""
        row = {"trial_id": self.held.trial_id, "token": self.held.token, "key": pointer.key}

        def work(session: Session) -> None:
            session.execute(schema.FALL_BACK, row)

        self._write(work)

    def release(self, reason: str) -> None:
        """Give the trial back, so that the next worker goes on at once."""
        self.leases.release(self.held, reason)

    def renew(self) -> bool:
        """Renew the lease once; False: the trial has another owner. Errors are the caller's."""
        renewed = self.leases.renew(self.held)
        if renewed:
            self.last_write = time.monotonic()
        return renewed

    def _write(self, work: Callable[[Session], Result]) -> Result:
        return self._transaction(lambda: self.leases.write(self.held, work))

    def _transaction(self, run: Callable[[], Result]) -> Result:
        try:
            result = run()
        except UpdateFinishedTrialError as error:  # by a person, between the renewal and this write
            raise LeaseLost(f"trial {self.number} was finished by somebody else") from error
        self.last_write = time.monotonic()
        return result

    def _set_attributes(self, session: Session, model: Any, values: Mapping[str, Any]) -> None:
        if not values:
            return
        row: dict[str, Any] = {"trial_id": self.held.trial_id}
        for n, (key, value) in enumerate(values.items()):
            row |= {f"key{n}": key, f"value{n}": json.dumps(value)}
        session.execute(schema.set_attributes(model.__tablename__, len(values)), row)


def study_news(session: Session, study_id: int) -> dict[str, Any]:
    """What other processes may have said to all workers of a study: the spec in force, a request to stop."""
    rows = session.execute(
        schema.STUDY_NEWS, {"study_id": study_id, "spec": attributes.SPEC, "stop": attributes.STOP_REQUESTED}
    )
    return {row.key: json.loads(row.value_json) for row in rows}


def _value(stored: float | None, kind: str) -> float:
    model = models.TrialIntermediateValueModel
    return float(model.stored_repr_to_intermediate_value(stored, model.TrialIntermediateValueType[kind]))
