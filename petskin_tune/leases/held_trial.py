"""A trial that this worker owns, and every write to it. Each write renews the lease, or does not happen."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, TypeVar

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from petskin_tune.database import queries
from petskin_tune.database.storage import models, rows
from petskin_tune.database.unreadable import value_of
from petskin_tune.errors import LeaseLost
from petskin_tune.faults import reach
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.lease import Held, Lease, SnapshotPointer, read_leases
from petskin_tune.study import attributes

Result = TypeVar("Result")


class HeldTrial:
    """The writes to one held trial; all raise :class:`LeaseLost` when it has another owner or was finished by a person.

    Every method is one transaction and may be repeated: a second call with the same arguments changes nothing.
    """

    def __init__(self, claims: Claims, held: Held) -> None:
        self.held = held
        self.storage = claims.storage
        self.number = held.number
        self.last_write = time.monotonic()  # when the lease was renewed last
        self._claims = claims
        self._ours = {"trial_id": held.trial_id, "token": held.token}

    @property
    def lease_seconds(self) -> float:
        """How long its lease lasts without renewal; a person may change it."""
        return self._claims.seconds

    def read(self) -> FrozenTrial:
        """The trial as it stands in the database.

        Raises:
            LeaseLost: a person deleted it.
        """
        try:
            return self.storage.get_trial(self.held.trial_id)
        except KeyError as error:
            raise LeaseLost(f"trial {self.number} was deleted") from error

    @cached_property
    def birth(self) -> str | None:
        """What no other trial was marked with at its birth, read once; None: somebody has altered it.

        Raises:
            LeaseLost: a person deleted it.
        """
        mark = self.read().system_attrs.get(attributes.MARK)
        return mark if isinstance(mark, str) else None

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
            session.execute(queries.INSERT_VALUE, row)
            self._set_attributes(session, models.TrialUserAttributeModel, user_attributes)
            return study_news(session, self._claims.study_id)

        news = self._write(work)
        reach("report-sent")
        return news or {}

    def values_at(self, epoch: int) -> dict[int, tuple[TrialState, float]]:
        """State and reported fitness at ``epoch`` of every trial trained here that reached it, by trial number."""
        wanted = {"study_id": self._claims.study_id, "step": epoch, "foreign": attributes.FOREIGN}

        def work(session: Session) -> dict[int, tuple[TrialState, float]]:
            rows = session.execute(queries.VALUES_AT_STEP, wanted)
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

        self._write(work, ending=("done", state.name))
        reach("told")

    def point_to(self, pointer: SnapshotPointer) -> None:
        """Make a verified snapshot the one that the trial is resumed from."""
        reach("before-snapshot-pointer")
        row = {
            **self._ours,
            "key": pointer.key,
            "sha256": pointer.sha256,
            "epoch": pointer.position.epoch,
            "batch": pointer.position.batch,
        }

        def work(session: Session) -> None:
            session.execute(queries.POINT_TO_SNAPSHOT[self._dialect], row)

        self._write(work)
        reach("snapshot-committed")

    def fall_back_to(self, pointer: SnapshotPointer) -> None:
        """Forget the newest snapshot, which is no good: the one before is the newest then, and is kept as such."""
        row = {**self._ours, "key": pointer.key}

        def work(session: Session) -> None:
            session.execute(queries.FALL_BACK, row)

        self._write(work)

    def release(self, reason: str) -> None:
        """Give the trial back, so that the next worker goes on at once."""
        self._write(lambda _session: None, ending=("released", reason))
        reach("lease-released")

    def freeze(self) -> None:
        """Keep the trial for later: whoever thinks more of it than of anything new goes on from its snapshot."""
        reach("before-freeze")
        self._write(lambda _session: None, ending=("frozen", None))
        reach("frozen")

    def go_on_if(
        self,
        unchanged: Callable[[Session], bool],
        until: int | None,
        epoch: int,
        going_on: Callable[[Session], object] = lambda _session: None,
    ) -> bool | None:
        """Go on to ``until`` epochs (None: it is to be frozen), provided that ``unchanged`` under the study's lock.

        The lease keeps the answer, so that whoever takes the trial over before it is frozen does not ask again.

        Args:
            unchanged: asked in the transaction.
            until: epochs in all.
            epoch: just reported (1-based).
            going_on: done in the same transaction when it goes on.

        Returns:
            whether it goes on; None: something has changed.

        Raises:
            LeaseLost: the trial has another owner.
        """

        def work(session: Session) -> bool | None:
            self._claims.fence.require_kept(session)
            known = session.execute(queries.UNTIL_OF, self._ours).scalar()
            if known is not None and (known == 0 or known > epoch):  # it is decided; the acknowledgement was lost
                return known > 0
            if not unchanged(session):
                return None
            session.execute(queries.SET_UNTIL, {**self._ours, "until": until or 0})
            if until is not None:
                going_on(session)
            return until is not None

        return self._write(work)

    def count_crash(self) -> int:
        """Record that the trial's process died under this worker; the crashes in a row, this one counted in."""
        lease = self.lease()
        crashes = 1 if lease.progressed() else lease.crashes + 1
        row = {**self._ours, "crashes": crashes, "seconds_lost": lease.seconds_lost + lease.lost()}

        def work(session: Session) -> None:
            session.execute(queries.COUNT_DEATH[self._dialect], row)

        self._write(work)
        return crashes

    def lease(self) -> Lease:
        """Its lease as it stands."""
        for lease in read_leases(self.storage, self._claims.study_id, only_unfinished=True):
            if (lease.trial_id, lease.token) == (self.held.trial_id, self.held.token):
                return lease
        raise self._lost()

    def renew(self) -> bool:
        """Renew the lease once, on a connection of its own; False: another owner. Errors are the caller's."""
        with self.storage.engine.begin() as connection:
            renewed = rows(connection.execute(queries.RENEW[self._dialect], self._renewal)) == 1
        if renewed:
            self.last_write = time.monotonic()
        return renewed

    def _write(
        self,
        work: Callable[[Session], Result],
        ending: tuple[Literal["released", "frozen", "done"], str | None] | None = None,
    ) -> Result | None:
        """Run ``work`` in one transaction that renews the lease first; again from its start after an outage.

        Args:
            work: must be idempotent, see :meth:`petskin_tune.database.storage.PetskinStorage.transaction`.
            ending: state and reason with which the same transaction ends the lease.

        Returns:
            what ``work`` returned; None where the lease was ended by an attempt whose acknowledgement was lost.

        Raises:
            LeaseLost: the trial has another owner or is finished; nothing was written.
        """

        def transaction(session: Session) -> Result | None:
            if not self._renewed_in(session):
                if ending and session.execute(queries.STATE_OF, self._ours).scalar() == ending[0]:
                    return None
                raise self._lost()
            result = work(session)
            if ending:
                session.execute(queries.SET_STATE, {**self._ours, "state": ending[0], "reason": ending[1]})
            reach("before-commit")
            return result

        try:
            result = self.storage.transaction(transaction)
        except UpdateFinishedTrialError as error:  # by a person, between the renewal and this write
            raise LeaseLost(f"trial {self.number} was finished by somebody else") from error
        self.last_write = time.monotonic()
        return result

    def _renewed_in(self, session: Session) -> bool:
        """Renew the lease in the transaction of ``session``; from here to its end nobody can take the trial over."""
        reach("before-renewal")
        renewed = rows(session.execute(queries.RENEW[self._dialect], self._renewal)) == 1
        if renewed:
            reach("renewed")
        return renewed

    @property
    def _renewal(self) -> dict[str, Any]:
        return {**self._ours, "seconds": self.lease_seconds}

    def _lost(self) -> LeaseLost:
        token = self.held.token
        return LeaseLost(f"trial {self.number} has another owner or is finished (token {token} is not in force)")

    @property
    def _dialect(self) -> str:
        return self.storage.engine.name

    def _set_attributes(self, session: Session, model: Any, values: Mapping[str, Any]) -> None:
        if not values:
            return
        row: dict[str, Any] = {"trial_id": self.held.trial_id}
        for n, (key, value) in enumerate(values.items()):
            row |= {f"key{n}": key, f"value{n}": json.dumps(value)}
        session.execute(queries.set_attributes(model.__tablename__, len(values)), row)


def study_news(session: Session, study_id: int) -> dict[str, Any]:
    """What other processes may have said to all workers of a study: the spec in force, a request to stop."""
    rows = session.execute(
        queries.STUDY_NEWS, {"study_id": study_id, "spec": attributes.SPEC, "stop": attributes.STOP_REQUESTED}
    )
    return {row.key: value_of(row.value_json) for row in rows}


def _value(stored: float | None, kind: str) -> float:
    model = models.TrialIntermediateValueModel
    return float(model.stored_repr_to_intermediate_value(stored, model.TrialIntermediateValueType[kind]))
