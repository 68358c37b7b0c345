"""Who owns a running trial: births and take-overs. Every trial of ours has one row in ``trial_leases``.

A trial and its lease are born in one transaction. Whoever holds the row's ``token`` owns the trial; a take-over is one
compare-and-set that raises it. A worker that comes back from the dead still has its old token, and every write under it
is refused (:mod:`petskin_tune.leases.held_trial`).
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from optuna.trial import TrialState
from sqlalchemy.orm import Session

from petskin_tune.database import queries
from petskin_tune.database.storage import PetskinStorage, models, rows
from petskin_tune.faults import reach
from petskin_tune.identity import Identity
from petskin_tune.leases.expiry import Gone, Seen, Watch, why_gone
from petskin_tune.leases.lease import Held, Lease, read_leases
from petskin_tune.study import attributes
from petskin_tune.study.fence import Fence

LONE_WAIT_SECONDS = 120.0  # a lone worker waits out a lease that ends sooner rather than start a new trial


class Claims:
    """The trials of one study, as one worker creates and claims them, from one thread (:meth:`adjust`: from any).

    Args:
        storage: of the study.
        fence: of the study.
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
        fence: Fence,
        worker: str,
        seconds: float,
        snapshot_seconds: float,
        *,
        identity: Identity | None = None,
        alone: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.storage = storage
        self.study_id = fence.id
        self.fence = fence
        self.worker = worker
        self.seconds = seconds
        self.snapshot_seconds = snapshot_seconds
        self.identity = identity or Identity.mine()
        self.alone = alone
        self._watch = Watch(clock)
        self._failures = storage.patience.failures  # of the database that the watch knows of
        self._declared_gone: set[tuple[int, int]] | None = None  # (trial id, token) of the owners that a person buried

    def adjust(self, seconds: float, snapshot_seconds: float) -> None:
        """A person changed the study's lease or its snapshot interval: they hold from the next write on."""
        self.seconds = seconds
        self.snapshot_seconds = snapshot_seconds

    # ---- births ----

    def next_trial(self, target: int) -> Held | None:
        """Take the oldest waiting trial, or create a new one; None when the study has ``target`` configurations.

        The count, the trial and its lease are one transaction under the lock of the study's row.

        Raises:
            UsageError: somebody deleted the study, or has begun to.
        """
        nonce = uuid.uuid4().hex

        def work(session: Session) -> Held | None:
            self.fence.require(session)
            born = session.execute(queries.FIND_BIRTH, {"nonce": nonce}).one_or_none()
            if born is not None:  # the acknowledgement of the first attempt was lost
                return Held(born.trial_id, born.number, token=1)
            if session.execute(queries.COUNT_OURS, {"study_id": self.study_id}).scalar_one() >= target:
                return None
            return self.bear(session, self.pop_waiting(session) or self.new_trial(session), nonce)

        held = self.storage.transaction(work)
        if held:
            reach("trial-born")
        return held

    def bear(self, session: Session, trial: Any, nonce: str, until: int | None = None) -> Held:
        """Mark a trial (a row of Optuna's) as ours and insert its lease, in the transaction of ``session``."""
        self.storage._set_trial_attr_without_commit(
            session, models.TrialSystemAttributeModel, trial.trial_id, attributes.MARK, nonce
        )
        session.flush()
        self._insert(session, trial.trial_id, nonce, until=until)
        reach("before-birth")
        return Held(trial.trial_id, trial.number, token=1)

    def pop_waiting(self, session: Session) -> Any | None:
        """The oldest trial that a person or the study file has enqueued (a row of Optuna's), now RUNNING."""
        while (trial_id := session.execute(queries.FIRST_WAITING, {"study_id": self.study_id}).scalar()) is not None:
            trial = models.TrialModel.find_or_raise_by_id(trial_id, session, for_update=True)
            session.refresh(trial)
            if trial.state == TrialState.WAITING:  # a person's own `study.optimize` may have been faster
                trial.state = TrialState.RUNNING
                trial.datetime_start = datetime.now()
                return trial
        return None

    def new_trial(self, session: Session) -> Any:
        """A new RUNNING trial, a row of Optuna's."""
        return self.storage._get_prepared_new_trial(self.study_id, None, session)

    def _insert(
        self,
        session: Session,
        trial_id: int,
        nonce: str,
        state: str = "running",
        reason: str | None = None,
        until: int | None = None,
    ) -> None:
        row = {"trial_id": trial_id, "study_id": self.study_id, "nonce": nonce, "state": state, "reason": reason}
        session.execute(queries.INSERT[self._dialect], {**row, "until": until, **self.owner()})

    def owner(self) -> dict[str, Any]:
        """What a lease says of its owner, when this worker is it."""
        return {"worker": self.worker, "identity": self.identity.to_json(), "seconds": self.seconds}

    def adopt_unleased(self) -> None:
        """Give a released lease to RUNNING trials that carry our mark, have none and are older than a lease.

        Births leave none behind; a database that a person has put together from parts of others may hold some.

        Raises:
            UsageError: there are some, and somebody deleted the study, or has begun to.
        """

        def find(session: Session) -> list[int]:
            before = datetime.now(timezone.utc).replace(tzinfo=None) - timedelta(seconds=self.seconds)
            wanted = {"study_id": self.study_id, "mark": attributes.MARK, "before": before}
            return list(session.execute(queries.UNLEASED, wanted).scalars())

        def work(session: Session) -> None:
            self.fence.require(session)
            for trial_id in find(session):
                self._insert(session, trial_id, uuid.uuid4().hex, "released", "had no lease")

        if self.storage.transaction(find):  # no lock is taken for nothing
            self.storage.transaction(work)

    def count(self) -> int:
        """How many configurations the study has so far: trials that one of our workers created or took."""
        wanted = {"study_id": self.study_id}
        return self.storage.transaction(lambda session: session.execute(queries.COUNT_OURS, wanted).scalar_one())

    # ---- take-over ----

    def take_over(
        self, leases: Sequence[Seen] | None = None, *, by_command: bool = False, leave: Collection[int] = ()
    ) -> Held | None:
        """Claim the oldest running trial whose owner is gone, or None.

        Args:
            leases: as they were just read; None: they are read now.
            by_command: a person says that the owners are gone (``--take-over``): those that the first such call finds,
                but for the workers that the same command has started beside this one.
            leave: trial ids that this worker must not touch.

        Raises:
            UsageError: there is one, and somebody deleted the study, or has begun to.
        """
        leases = self.read() if leases is None else leases
        gone = self.gone(leases, by_command=by_command)
        for lease in (seen.lease for seen in leases):
            why = None if lease.trial_id in leave else gone.get((lease.trial_id, lease.token))
            if why and (held := self._claim(lease, first_time_only=why is Gone.SILENT)):
                return held
        return None

    def gone(self, leases: Sequence[Seen], *, by_command: bool = False) -> dict[tuple[int, int], Gone]:
        """Which owners of unfinished trials are gone, and why, by (trial id, token).

        Args:
            leases: as they were just read.
            by_command: see :meth:`take_over`.
        """
        if by_command and self._declared_gone is None:
            self._declared_gone = {
                (seen.lease.trial_id, seen.lease.token) for seen in leases if self._may_be_declared_gone(seen.lease)
            }
        gone = {}
        for seen in leases:
            key = (seen.lease.trial_id, seen.lease.token)
            if why := why_gone(seen, declared=key in (self._declared_gone or ()), alone=self.alone):
                gone[key] = why
        return gone

    def _may_be_declared_gone(self, lease: Lease) -> bool:
        return lease.identity != self.identity and not lease.identity.is_living_sibling()

    def should_wait(self, leases: Sequence[Seen] | None = None, leave: Collection[int] = ()) -> bool:
        """Whether a worker had better look again in a second than start a new trial.

        It had where a lease has run out, because the grace (and a lease more, where the clock was set back) is shorter
        than any trial. It also had where nobody is known to live and somebody's lease, which may be a dead one's, ends
        within two minutes.

        Args:
            leases: as they were just read; None: they are read now.
            leave: trial ids that this worker must not touch, and so does not wait for.
        """
        leases = self.read() if leases is None else leases
        running = [seen for seen in leases if seen.lease.state == "running" and seen.lease.trial_id not in leave]
        others = [seen for seen in running if seen.lease.identity != self.identity]
        if any(seen.lease.has_run_out for seen in others):
            return True
        if any(seen.lives for seen in others):
            return False
        return any(seen.lease.expires_in <= LONE_WAIT_SECONDS for seen in others)

    def _claim(self, lease: Lease, *, first_time_only: bool = False) -> Held | None:
        """Take the trial, unless its lease has changed since it was read.

        Args:
            lease: as it was read.
            first_time_only: not after an outage, which the owner may not have survived as quickly as this claimer.
        """
        nonce = uuid.uuid4().hex
        crashes, vanishes = self._deaths_with(lease)
        seconds_lost = lease.seconds_lost + lease.lost()
        seen = {"trial_id": lease.trial_id, "token": lease.token, "beat": lease.beat, "nonce": nonce}
        deaths: dict[str, Any] = {"crashes": crashes, "vanishes": vanishes, "seconds_lost": seconds_lost}
        row = {**seen, **deaths, **self.owner(), "resumed": 1, "until": lease.until}

        attempts = itertools.count()
        reach("before-claim")

        def work(session: Session) -> int | None:
            if next(attempts) == 0 or not first_time_only:
                claimed = session.execute(queries.CLAIM[self._dialect], row)
                if rows(claimed) == 1:
                    self.fence.require(session)  # after the lease's row, as whoever goes on with a trial locks them
                    return lease.token + 1
            # Another claimer was faster; or this one, when the acknowledgement of its first attempt was lost.
            return session.execute(queries.FIND_CLAIM, {"trial_id": lease.trial_id, "nonce": nonce}).scalar()

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

    def read(self) -> list[Seen]:
        """The leases of trials that are not over, by trial number, with what this worker knows of their owners."""
        leases = read_leases(self.storage, self.study_id, only_unfinished=True)
        if (failures := self.storage.patience.failures) != self._failures:  # owners may have been cut off as well
            self._failures = failures
            self._watch.begin_again()
        return self._watch.read(leases)

    @property
    def _dialect(self) -> str:
        return self.storage.engine.name
