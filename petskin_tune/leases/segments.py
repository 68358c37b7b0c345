"""Segments: a trial's epochs up to the next rung. Choosing one and claiming it are one step.

A trial that is not to go on now is *frozen*: a state of its lease, not of Optuna's trial, which stays RUNNING under its
number with one curve. Its snapshot is durable before the lease says so. Whoever is told to thaw it claims it as any
other trial, and it ends, as PRUNED with its best value, when no snapshot is kept for it or the study is over.

The choice is made by a caller's function of the study as it stands, outside of any transaction, because it takes up to
a second. It counts only if no other worker has begun, frozen, thawed or ended anything meanwhile; else it is made
again.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from optuna.trial import TrialState
from sqlalchemy.orm import Session

from petskin_tune.database import queries
from petskin_tune.database.storage import models, rows
from petskin_tune.faults import reach
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held, Lease, read_leases
from petskin_tune.study import attributes
from petskin_tune.study.rows import keep_attribute

NO_SNAPSHOT = "frozen, and others were more worth a snapshot"
NO_ROOM = "frozen, and the store had no room for its snapshot"
SNAPSHOT_GONE = "it cannot be thawed: its snapshot is not in the store any more, or is damaged"
STUDY_OVER = "frozen when the study ended"


@dataclass(frozen=True)
class Begin:
    """Begin a new trial with ``point`` (searched names to values), or one that waits, and train ``until`` epochs."""

    point: Mapping[str, Any]
    until: int


@dataclass(frozen=True)
class Continue:
    """Go on with trial ``number``, a frozen one or the one that asks, to ``until`` epochs in all."""

    number: int
    until: int


@dataclass(frozen=True)
class Choice:
    """What to train next.

    Attributes:
        segment: None: there is nothing to train.
        drop: numbers of frozen trials whose snapshots are not kept; they end. The trial that asks may be among them.
        reason: for the log.
        outlook: what another day may bring, see :class:`petskin_tune.search.freeze_thaw.state.Outlook`.
        last_run: the segment is the study's last run: its trial and the epochs that this has so far, which are kept as
            ``attributes.LAST_RUN``. None: the search goes on, and a last run is still to come.
        left: there is nothing to train for whoever asked, but the study is not over: numbers of the frozen trials that
            it leaves to other workers.
    """

    segment: Begin | Continue | None
    drop: tuple[int, ...] = ()
    reason: str = ""
    outlook: Mapping[str, float] | None = None
    last_run: Mapping[str, int] | None = None
    left: tuple[int, ...] = ()


Choose = Callable[[], Choice]
Version = tuple[Any, ...]


class Segments:
    """The segments of one study, as one worker chooses and claims them.

    Args:
        claims: of this worker.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._storage = claims.storage
        self._study = {"study_id": claims.study_id}

    def next(self, choose: Choose) -> Held | None:
        """Claim the segment that is chosen; a trial that waits goes before a new one. None: nothing is to be trained.

        Args:
            choose: called until nothing has changed while it chose.

        Raises:
            UsageError: somebody deleted the study, or has begun to.
        """
        nonce = uuid.uuid4().hex
        while True:
            version = self.version()
            choice = choose()
            reach("segment-chosen")
            took = self._storage.transaction(lambda session: self._take(session, version, choice, nonce))  # noqa: B023
            if took is _CHANGED:
                continue
            if took is None:
                return None
            reach("segment-claimed")
            return self._with_lease(took)

    def may_go_on(self, trial: HeldTrial, epoch: int, choose: Choose) -> Literal["goes on", "freezes", "ends"]:
        """What becomes of a held trial after ``epoch`` (1-based), the last of its segment; its lease then says so.

        Args:
            trial: held by this worker.
            epoch: just reported.
            choose: as for :meth:`next`; the trial counts as one that may be chosen.

        Raises:
            LeaseLost: the trial has another owner.
        """
        while True:
            version = self.version()
            choice = choose()
            segment = choice.segment
            own = segment if isinstance(segment, Continue) and segment.number == trial.number else None
            until = own.until if own else None
            goes_on = trial.go_on_if(
                lambda session: self._version(session) == version,  # noqa: B023
                until,
                epoch,
                lambda session: self._keep_last_run(session, choice),  # noqa: B023
            )
            if goes_on is not None:
                return "goes on" if goes_on else "ends" if trial.number in choice.drop else "freezes"

    def version(self) -> Version:
        """Changes with every birth, freeze, thaw, decision to go on and end; not with reports and renewals."""
        return self._storage.transaction(self._version)

    def end(self, version: Version | None = None) -> bool:
        """End every frozen trial, unless a trial of the study has an owner or waits for one: then False.

        Args:
            version: in which there was nothing to train; False in another one. None: in whichever.
        """

        def work(session: Session) -> bool:
            self._claims.fence.require(session)
            if session.execute(queries.COUNT_OWNED, self._study).scalar_one():
                return False
            if version is not None and self._version(session) != version:
                return False
            self._end_frozen(session, session.execute(queries.FROZEN, self._study), STUDY_OVER)
            reach("before-study-end")
            return True

        return self._storage.transaction(work)

    def give_up(self, lease: Lease) -> bool:
        """End a frozen trial whose snapshot is to make room for others.

        Args:
            lease: as it was read.

        Returns:
            whether the trial is over; False: it was thawed meanwhile, and whoever has it needs the snapshot.
        """
        seen = {"trial_id": lease.trial_id, "token": lease.token}

        def work(session: Session) -> bool:
            self._claims.fence.require_kept(session)
            frozen = session.execute(queries.FROZEN, self._study)
            same = [row for row in frozen if (row.trial_id, row.token) == (lease.trial_id, lease.token)]
            self._end_frozen(session, same, NO_ROOM)
            return bool(session.execute(queries.STATE_OF, seen).scalar() == "done")

        return self._storage.transaction(work)

    # ---- in one transaction ----

    def _version(self, session: Session) -> Version:
        return tuple(session.execute(queries.SEGMENTS_VERSION, self._study).one())

    def _take(self, session: Session, version: Version, choice: Choice, nonce: str) -> Held | None:
        self._claims.fence.require(session)
        taken = session.execute(queries.FIND_BIRTH, {"nonce": nonce}).one_or_none()
        if taken is not None:  # the acknowledgement of the first attempt was lost
            return Held(taken.trial_id, taken.number, taken.token)
        if self._version(session) != version:
            return _CHANGED
        frozen = {row.number: row for row in session.execute(queries.FROZEN, self._study)}
        segment = choice.segment
        if isinstance(segment, Continue) and segment.number not in frozen:
            return _CHANGED  # a person has ended it, which is no change of ours
        self._end_frozen(session, [frozen[number] for number in choice.drop if number in frozen], NO_SNAPSHOT)
        if segment is None:
            return None
        if isinstance(segment, Begin):
            held = self._begin(session, segment, nonce)
        else:
            held = self._thaw(session, frozen[segment.number], segment.until, nonce)
        if held is not _CHANGED:
            self._keep_last_run(session, choice)
        return held

    def _keep_last_run(self, session: Session, choice: Choice) -> None:
        """Remember whether the segment that begins is the last run, so that nobody has to guess it from the epochs."""
        last_run = None if choice.last_run is None else dict(choice.last_run)
        keep_attribute(session, self._claims.study_id, attributes.LAST_RUN, last_run)

    def _begin(self, session: Session, segment: Begin, nonce: str) -> Held:
        trial = self._claims.pop_waiting(session)
        if trial is None:
            trial = self._claims.new_trial(session)
            self._storage._set_trial_attr_without_commit(
                session, models.TrialSystemAttributeModel, trial.trial_id, attributes.POINT, dict(segment.point)
            )
        return self._claims.bear(session, trial, nonce, segment.until)

    def _thaw(self, session: Session, frozen: Any, until: int, nonce: str) -> Held:
        row = {"trial_id": frozen.trial_id, "token": frozen.token, "beat": frozen.beat, "nonce": nonce, "until": until}
        nothing_lost = {"resumed": 0, "crashes": 0, "vanishes": 0, "seconds_lost": frozen.seconds_lost}
        claim = queries.CLAIM[self._storage.engine.name]
        claimed = rows(session.execute(claim, {**row, **nothing_lost, **self._claims.owner()})) == 1
        return Held(frozen.trial_id, frozen.number, frozen.token + 1) if claimed else _CHANGED

    def _end_frozen(self, session: Session, frozen: Iterable[Any], reason: str) -> None:
        for row in frozen:
            trial = session.get(models.TrialModel, row.trial_id, with_for_update=True)
            if trial is None or trial.state != TrialState.RUNNING:
                continue  # a person was faster
            session.execute(queries.END_FROZEN, {"trial_id": row.trial_id, "reason": reason})
            values = session.query(models.TrialIntermediateValueModel).filter_by(trial_id=row.trial_id)
            numbers = [number for value in values if (number := _number(value)) is not None]
            if numbers:
                self._storage._set_trial_value_without_commit(session, trial, 0, max(numbers))
            trial.state = TrialState.PRUNED
            trial.datetime_complete = datetime.now()
        session.flush()

    def _with_lease(self, held: Held) -> Held:
        if held.token == 1:
            return held
        leases = read_leases(self._storage, self._claims.study_id, only_unfinished=True)
        lease = next((lease for lease in leases if lease.trial_id == held.trial_id), None)
        return Held(held.trial_id, held.number, held.token, lease, thawed=True)


_CHANGED = Held(-1, -1, -1)  # somebody else was faster: choose again


def _number(row: Any) -> float | None:
    """A finite reported value; None for another one."""
    kinds = models.TrialIntermediateValueModel.TrialIntermediateValueType
    if row.intermediate_value_type != kinds.FINITE or row.intermediate_value is None:
        return None
    value = float(row.intermediate_value)
    return value if math.isfinite(value) else None
