"""Who owns a running trial: births, take-overs, renewals. Every trial of ours has one row in ``trial_leases``.

A trial and its lease are born in one transaction. Whoever holds the row's ``token`` owns the trial; a take-over is one
compare-and-set that raises it. A worker that comes back from the dead still has its old token, and every write under it
is refused (:meth:`Leases.write`).
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, TypeVar

from optuna.trial import TrialState
from sqlalchemy.orm import Session

from petskin_tune.database import queries as schema
from petskin_tune.database.engine import CONNECT_SECONDS, RETRY_MAX_SECONDS
from petskin_tune.database.storage import PetskinStorage, models
from petskin_tune.errors import LeaseLost
from petskin_tune.faults import reach
from petskin_tune.identity import Identity
from petskin_tune.leases.expiry import Watch
from petskin_tune.leases.lease import MAX_CRASHES, Held, Lease, SnapshotPointer, read_leases
from petskin_tune.study import attributes

__all__ = ["MAX_CRASHES", "Held", "Lease", "Leases", "SnapshotPointer", "read_leases"]

Result = TypeVar("Result")

LONE_WAIT_SECONDS = 120.0  # a lone worker waits out a lease that ends sooner rather than start a new trial
LOOK_AGAIN_SECONDS = 1.0


def grace(seconds: float) -> float:
    """How long a claimer looks on after it saw that a lease of ``seconds`` ran out.

    A living owner that reaches the database has renewed by then: its next renewal was due within a third of the lease;
    if that failed, another attempt follows, which may take as long as a connection may take.
    """
    third = seconds / 3
    return third + min(third, RETRY_MAX_SECONDS) + min(third, float(CONNECT_SECONDS))


class Leases:
    """The leases of one study, as one worker uses them, from one thread (:meth:`renew`, :meth:`write` and
    :meth:`adjust`: from any).

    Args:
        storage: of the study.
        study_id: Optuna's.
        worker: this worker's name, for people.
        seconds: how long a lease lasts without renewal.
        snapshot_seconds: the study's snapshot interval: an owner that lived longer had its chance; 0: after every
            epoch, whose length nobody here knows.
        identity: of this worker.
        alone: nobody on another machine can be at work (a home on a network disk has one owner at a time).
        clock: monotonic seconds, injected by tests.
    """

    def __init__(
        self,
        storage: PetskinStorage,
        study_id: int,
        worker: str,
        seconds: float,
        snapshot_seconds: float,
        *,
        identity: Identity | None = None,
        alone: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.storage = storage
        self.study_id = study_id
        self.worker = worker
        self.seconds = seconds
        self.snapshot_seconds = snapshot_seconds
        self.identity = identity or Identity.mine()
        self.alone = alone
        self._watch = Watch(clock)
        self._failures = storage.patience.failures  # that the watch knows of
        self._declared_gone: set[tuple[int, int]] | None = None  # (trial id, token) of the owners that a person buried

    def adjust(self, seconds: float, snapshot_seconds: float) -> None:
        """A person changed the study's lease or its snapshot interval: they hold from the next write on."""
        self.seconds = seconds
        self.snapshot_seconds = snapshot_seconds

    # ---- births ----

    def next_trial(self, target: int) -> Held | None:
        """Take the oldest waiting trial, or create a new one; None when the study has ``target`` configurations.

        The count, the trial and its lease are one transaction under the lock of the study's row.
        """
        nonce = uuid.uuid4().hex

        def work(session: Session) -> Held | None:
            self._lock_study(session)
            born = session.execute(schema.FIND_BIRTH, {"nonce": nonce}).one_or_none()
            if born is not None:  # the acknowledgement of the first attempt was lost
                return Held(born.trial_id, born.number, token=1)
            if session.execute(schema.COUNT_OURS, {"study_id": self.study_id}).scalar_one() >= target:
                return None
            trial = self._pop_waiting(session) or self._new(session)
            self.storage._set_trial_attr_without_commit(
                session, models.TrialSystemAttributeModel, trial.trial_id, attributes.MARK, nonce
            )
            session.flush()
            self._insert(session, trial.trial_id, nonce)
            reach("before-birth")
            return Held(trial.trial_id, trial.number, token=1)

        held = self.storage.transaction(work)
        if held:
            reach("trial-born")
        return held

    def _lock_study(self, session: Session) -> None:
        session.execute(schema.LOCK_STUDY[self._dialect], {"study_id": self.study_id})

    def _pop_waiting(self, session: Session) -> Any | None:
        while (trial_id := session.execute(schema.FIRST_WAITING, {"study_id": self.study_id}).scalar()) is not None:
            trial = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            session.refresh(trial)
            if trial.state == TrialState.WAITING:  # a person's own `study.optimize` may have been faster
                trial.state = TrialState.RUNNING
                trial.datetime_start = datetime.now()
                return trial
        return None

    def _new(self, session: Session) -> Any:
        return self.storage._get_prepared_new_trial(self.study_id, None, session)

    def _insert(
        self, session: Session, trial_id: int, nonce: str, state: str = "running", reason: str | None = None
    ) -> None:
        row = {"trial_id": trial_id, "study_id": self.study_id, "nonce": nonce, "state": state, "reason": reason}
        session.execute(schema.INSERT[self._dialect], {**row, **self._owner()})

    def _owner(self) -> dict[str, Any]:
        return {"worker": self.worker, "identity": self.identity.to_json(), "seconds": self.seconds}

    def adopt_unleased(self) -> None:
        """Give a released lease to RUNNING trials that carry our mark, have none and are older than a lease."""

        def find(session: Session) -> list[int]:
            before = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(seconds=self.seconds)
            wanted = {"study_id": self.study_id, "mark": attributes.MARK, "before": before}
            return list(session.execute(schema.UNLEASED, wanted).scalars())

        def work(session: Session) -> None:
            self._lock_study(session)
            for trial_id in find(session):
                self._insert(session, trial_id, uuid.uuid4().hex, "released", "had no lease")

        if self.storage.transaction(find):  # births never leave one behind: no lock is taken for nothing
            self.storage.transaction(work)

    def count(self) -> int:
        """How many configurations the study has so far: trials that one of our workers created or took."""
        wanted = {"study_id": self.study_id}
        return self.storage.transaction(lambda session: session.execute(schema.COUNT_OURS, wanted).scalar_one())

    # ---- take-over ----

    def take_over(self, *, by_command: bool = False, leave: Collection[int] = ()) -> Held | None:
        """Claim the oldest running trial whose owner is gone, or None.

        Args:
            by_command: a person says that the owners are gone (``--take-over``): those that the first such call finds,
                but for the workers that the same command has started beside this one.
            leave: trial ids that this worker must not touch.
        """
        leases = self.read(only_unfinished=True)
        if by_command and self._declared_gone is None:
            self._declared_gone = {
                (lease.trial_id, lease.token) for lease in leases if self._may_be_declared_gone(lease)
            }
        for lease in leases:
            if lease.trial_id in leave:
                continue
            known = self._is_known_to_be_gone(lease)
            if (known or self._is_silent(lease)) and (held := self._claim(lease, at_once=not known)):
                return held
        return None

    def _may_be_declared_gone(self, lease: Lease) -> bool:
        return lease.identity != self.identity and not lease.identity.is_living_sibling()

    def _is_known_to_be_gone(self, lease: Lease) -> bool:
        if lease.state == "released" or (lease.trial_id, lease.token) in (self._declared_gone or ()):
            return True
        alive = lease.identity.is_alive()
        return alive is False or (alive is None and self.alone)

    def _is_silent(self, lease: Lease) -> bool:
        return lease.expires_in < 0 and self._watch.expired_for(lease) >= grace(lease.seconds)

    def worth_waiting_for(self, leave: Collection[int] = ()) -> float | None:
        """Seconds after which to look again, where a worker had better wait than start a new trial; else None.

        That is when a lease has run out (the grace is shorter than any trial), or when nobody is known to live and
        somebody's lease may be a dead one's that ends within two minutes.

        Args:
            leave: trial ids that this worker must not touch, and so does not wait for.
        """
        others = [lease for lease in self.read(only_unfinished=True) if lease.state == "running"]
        others = [lease for lease in others if lease.identity != self.identity and lease.trial_id not in leave]
        if any(lease.expires_in < 0 for lease in others):
            return LOOK_AGAIN_SECONDS
        if not others or any(self._is_known_to_live(lease) for lease in others):
            return None
        soonest = min(lease.expires_in for lease in others)
        return LOOK_AGAIN_SECONDS if soonest <= LONE_WAIT_SECONDS else None

    def _is_known_to_live(self, lease: Lease) -> bool:
        if (alive := lease.identity.is_alive()) is not None:
            return alive
        return self._watch.has_moved(lease)

    def _claim(self, lease: Lease, *, at_once: bool = False) -> Held | None:
        """Take the trial, unless its lease has changed since it was read.

        Args:
            lease: as it was read.
            at_once: not after an outage, which the owner may not have survived as quickly as this claimer.
        """
        nonce = uuid.uuid4().hex
        crashes, vanishes = self._deaths_with(lease)
        seconds_lost = lease.seconds_lost + lease.lost()
        seen = {"trial_id": lease.trial_id, "token": lease.token, "beat": lease.beat, "nonce": nonce}
        deaths: dict[str, Any] = {"crashes": crashes, "vanishes": vanishes, "seconds_lost": seconds_lost}

        attempts = itertools.count()

        def work(session: Session) -> int | None:
            if next(attempts) == 0 or not at_once:
                claimed = session.execute(schema.CLAIM[self._dialect], {**seen, **deaths, **self._owner()})
                if _rows(claimed) == 1:
                    return lease.token + 1
            # Another claimer was faster; or this one, when the acknowledgement of its first attempt was lost.
            return session.execute(schema.FIND_CLAIM, {"trial_id": lease.trial_id, "nonce": nonce}).scalar()

        token = self.storage.transaction(work)
        if token is None:
            return None
        reach("trial-claimed")
        return Held(lease.trial_id, lease.number, token, replace(lease, **deaths))

    def _deaths_with(self, lease: Lease) -> tuple[int, int]:
        """(crashes, vanishes) in a row, the death that made this take-over possible counted in.

        A machine that vanished is no crash of the trial, unless it had the time for a snapshot and left none.
        """
        if lease.progressed():
            return 0, 0
        if lease.state == "released":
            return lease.crashes, lease.vanishes
        lived = lease.held_for - lease.silence
        if self.snapshot_seconds > 0 and 2 * self.snapshot_seconds + lease.seconds < lived:
            return lease.crashes + 1, lease.vanishes
        return lease.crashes, lease.vanishes + 1

    # ---- a held trial ----

    def write(self, held: Held, work: Callable[[Session], Result]) -> Result:
        """Run ``work`` in one transaction that renews the lease first; again from its start after an outage.

        Args:
            held: the trial that is written to.
            work: must be idempotent, see :meth:`petskin_tune.database.storage.PetskinStorage.transaction`.

        Raises:
            LeaseLost: the trial has another owner or is finished; nothing was written.
        """

        def renew_and_work(session: Session) -> Result:
            self.renew_or_refuse(session, held)
            result = work(session)
            reach("before-commit")
            return result

        return self.storage.transaction(renew_and_work)

    def renew_or_refuse(self, session: Session, held: Held) -> None:
        """Renew the lease in the transaction of ``session``; from here to its end nobody can take the trial over.

        Raises:
            LeaseLost: the trial has another owner or is finished.
        """
        reach("before-renewal")
        if _rows(session.execute(schema.RENEW[self._dialect], self._renewal(held))) != 1:
            raise LeaseLost(
                f"trial {held.number} has another owner or is finished (token {held.token} is not in force)"
            )
        reach("renewed")

    def renew(self, held: Held) -> bool:
        """Renew once, on a connection of its own; False: the trial has another owner. Errors are the caller's."""
        with self.storage.engine.begin() as connection:
            return _rows(connection.execute(schema.RENEW[self._dialect], self._renewal(held))) == 1

    def _renewal(self, held: Held) -> dict[str, Any]:
        return {"trial_id": held.trial_id, "token": held.token, "seconds": self.seconds}

    def release(self, held: Held, reason: str) -> None:
        """Give the trial back: the next worker goes on at once.

        Raises:
            LeaseLost: it was another's already, or is finished.
        """
        self.end(held, "released", reason)
        reach("lease-released")

    def end(
        self,
        held: Held,
        state: Literal["released", "done"],
        reason: str,
        work: Callable[[Session], None] = lambda _session: None,
    ) -> None:
        """Run ``work`` as the last write under a lease, and end the lease in the same transaction.

        Raises:
            LeaseLost: the trial has another owner or is finished; nothing was written.
        """
        ours = {"trial_id": held.trial_id, "token": held.token}

        def renew_work_and_end(session: Session) -> None:
            try:
                self.renew_or_refuse(session, held)
            except LeaseLost:
                if session.execute(schema.STATE_OF, ours).scalar() == state:
                    return  # the acknowledgement of the first attempt was lost
                raise
            work(session)
            session.execute(schema.SET_STATE, {**ours, "state": state, "reason": reason})
            reach("before-commit")

        self.storage.transaction(renew_work_and_end)

    def count_crash(self, held: Held) -> int:
        """Record that the trial's process died under this worker; the crashes in a row, this one counted in.

        Raises:
            LeaseLost: the trial has another owner.
        """
        lease = self.lease_of(held)
        crashes = 1 if lease.progressed() else lease.crashes + 1
        seconds_lost = lease.seconds_lost + lease.lost()
        row = {"trial_id": held.trial_id, "token": held.token, "crashes": crashes, "seconds_lost": seconds_lost}
        self.write(held, lambda session: session.execute(schema.COUNT_DEATH[self._dialect], row))
        return crashes

    def lease_of(self, held: Held) -> Lease:
        """The lease of a held trial as it stands.

        Raises:
            LeaseLost: the trial has another owner or is finished.
        """
        for lease in self.read(only_unfinished=True):
            if (lease.trial_id, lease.token) == (held.trial_id, held.token):
                return lease
        raise LeaseLost(f"trial {held.number} has another owner or is finished")

    def read(self, *, only_unfinished: bool = False) -> list[Lease]:
        """All leases of the study by trial number, or those of trials that are not over."""
        leases = read_leases(self.storage, self.study_id, only_unfinished=only_unfinished)
        if (failures := self.storage.patience.failures) != self._failures:  # owners may have been cut off as well
            self._failures = failures
            self._watch.begin_again()
        self._watch.read(leases)
        return leases

    @property
    def _dialect(self) -> str:
        return self.storage.engine.name


def _rows(result: Any) -> int:
    return result.rowcount
