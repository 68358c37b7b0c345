"""A lease as it was read: who holds a trial, since when, and how far it is safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, FiniteFloat, Json, ValidationError, field_validator

from petskin_tune.database import queries
from petskin_tune.database.storage import PetskinStorage
from petskin_tune.identity import Identity
from petskin_tune.protocol import Position
from petskin_tune.study.stored import Count, Key, Seconds, refusal

MAX_CRASHES = 3  # deaths in a row without a newer durable position
MAX_VANISHES = 20  # the same for machines that were lost before a snapshot was due
AHEAD_SECONDS = 5.0  # how much longer than it lasts a lease may seem to have left by a clock that runs evenly


@dataclass(frozen=True)
class SnapshotPointer:
    """A durable snapshot: where it lies in the store and where training stood."""

    key: Key
    sha256: str
    position: Position


@dataclass(frozen=True)
class Lease:
    """One row of ``trial_leases`` as it was read; all durations in seconds by the database's clock."""

    trial_id: int
    number: int
    trial_state: str
    worker: str
    identity: Identity
    token: int
    beat: int
    state: str
    expires_in: float
    held_for: float
    resumes: int
    seconds_lost: float
    crashes: int
    vanishes: int
    reason: str | None
    snapshot: SnapshotPointer | None
    previous: SnapshotPointer | None
    last_death: Position | None
    snapshot_age: float | None = None  # since it became durable
    seconds: float = queries.LEASE_SECONDS  # how long it lasts without renewal
    until: int | None = None  # epochs after which its owner asks; None: it trains to its end; 0: it is to be frozen

    def progressed(self) -> bool:
        """Whether a newer snapshot became durable since the last death."""
        if self.snapshot is None:
            return False
        return self.last_death is None or self.last_death < self.snapshot.position

    @property
    def is_ahead(self) -> bool:
        """Whether it ends later than a renewal by this clock can have said: the clock was set back, or is another."""
        return self.expires_in > self.seconds + AHEAD_SECONDS

    @property
    def has_run_out(self) -> bool:
        """Whether it is no sign that its owner lives: it ended, or its end means nothing."""
        return self.expires_in < 0 or self.is_ahead

    @property
    def silence(self) -> float:
        """Since the last sign of life."""
        return max(0.0, self.seconds - self.expires_in)

    def lost(self) -> float:
        """What is to be done twice when the owner's last sign of life was its end."""
        since_durable = self.held_for if self.snapshot_age is None else min(self.held_for, self.snapshot_age)
        return max(0.0, since_durable - self.silence)


@dataclass(frozen=True)
class Held:
    """A trial that this worker owns."""

    trial_id: int
    number: int
    token: int
    lease: Lease | None = None  # as it was taken over, this take-over's death counted in; None for a newborn trial
    thawed: bool = False  # it was frozen, and nobody trained it

    @property
    def hopeless(self) -> str | None:
        """Why this trial had better fail than be tried once more; None: it may be tried."""
        if self.lease and self.lease.crashes >= MAX_CRASHES:
            return f"it ended its worker {self.lease.crashes} times in a row without progress"
        if self.lease and self.lease.vanishes >= MAX_VANISHES:
            return f"its machine vanished {self.lease.vanishes} times in a row before a snapshot was due"
        return None


def is_anybody_here(leases: Iterable[Lease]) -> bool:
    """Whether one of the trials is in the hands of a process that lives on this machine."""
    return any(lease.state == "running" and lease.identity.is_alive() for lease in leases)


def read_leases(storage: PetskinStorage, study_id: int, *, only_unfinished: bool = False) -> list[Lease]:
    """The leases of a study by trial number, or those of trials that are not over.

    Raises:
        UsageError: one is not as we write it.
    """
    statement = (queries.READ_UNFINISHED if only_unfinished else queries.READ)[storage.engine.name]
    rows = storage.transaction(lambda session: session.execute(statement, {"study_id": study_id}).mappings().all())
    return [_lease(dict(row)) for row in rows]


class _Row(BaseModel):
    """A row as the statement gives it, believed only as far as one of our workers can have written it."""

    trial_id: Count
    number: Count
    trial_state: str
    worker: str
    identity: Json[Identity]
    token: Count
    beat: Count
    state: Literal["running", "released", "frozen", "done"]
    expires_in: FiniteFloat
    held_for: FiniteFloat
    resumes: Count
    seconds_lost: Seconds
    crashes: Count
    vanishes: Count
    reason: str | None
    snapshot_key: Key | None
    snapshot_sha256: str | None
    snapshot_epoch: Count | None
    snapshot_batch: Count | None
    previous_key: Key | None
    previous_sha256: str | None
    previous_epoch: Count | None
    previous_batch: Count | None
    death_epoch: Count | None
    death_batch: Count | None
    snapshot_age: FiniteFloat | None
    lease_seconds: Seconds
    until_epoch: Count | None

    @field_validator("identity")
    @classmethod
    def _is_a_process(cls, identity: Identity) -> Identity:
        if not 0 < identity.pid < 2**31:
            raise ValueError("is of no process")
        return identity

    def position(self, which: Literal["snapshot", "previous", "death"]) -> Position | None:
        epoch, batch = getattr(self, f"{which}_epoch"), getattr(self, f"{which}_batch")
        return None if epoch is None or batch is None else Position(epoch, batch)

    def pointer(self, which: Literal["snapshot", "previous"]) -> SnapshotPointer | None:
        key, sha256, position = getattr(self, f"{which}_key"), getattr(self, f"{which}_sha256"), self.position(which)
        return None if key is None or sha256 is None or position is None else SnapshotPointer(key, sha256, position)


def _lease(row: Mapping[str, Any]) -> Lease:
    """The lease in a row.

    Raises:
        UsageError: none of our workers can have written it.
    """
    try:
        read = _Row.model_validate(row)
    except ValidationError as error:
        raise refusal(f"The lease of trial {row['number']}", error) from error
    return Lease(
        trial_id=read.trial_id,
        number=read.number,
        trial_state=read.trial_state,
        worker=read.worker,
        identity=read.identity,
        token=read.token,
        beat=read.beat,
        state=read.state,
        expires_in=read.expires_in,
        held_for=read.held_for,
        resumes=read.resumes,
        seconds_lost=read.seconds_lost,
        crashes=read.crashes,
        vanishes=read.vanishes,
        reason=read.reason,
        snapshot=read.pointer("snapshot"),
        previous=read.pointer("previous"),
        last_death=read.position("death"),
        snapshot_age=read.snapshot_age,
        seconds=read.lease_seconds,
        until=read.until_epoch,
    )
