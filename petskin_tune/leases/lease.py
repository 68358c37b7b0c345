"""A lease as it was read: who holds a trial, since when, and how far it is safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from petskin_tune.database import queries
from petskin_tune.database.storage import PetskinStorage
from petskin_tune.identity import Identity
from petskin_tune.protocol import Position

MAX_CRASHES = 3  # deaths in a row without a newer durable position
MAX_VANISHES = 20  # the same for machines that were lost before a snapshot was due


@dataclass(frozen=True)
class SnapshotPointer:
    """A durable snapshot: where it lies in the store and where training stood."""

    key: str
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
    until: int | None = None  # epochs after which its owner asks whether to go on; None: it trains to its end

    def progressed(self) -> bool:
        """Whether a newer snapshot became durable since the last death."""
        if self.snapshot is None:
            return False
        return self.last_death is None or self.last_death < self.snapshot.position

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

    @property
    def hopeless(self) -> str | None:
        """Why this trial had better fail than be tried once more; None: it may be tried."""
        if self.lease and self.lease.crashes >= MAX_CRASHES:
            return f"it ended its worker {self.lease.crashes} times in a row without progress"
        if self.lease and self.lease.vanishes >= MAX_VANISHES:
            return f"its machine vanished {self.lease.vanishes} times in a row before a snapshot was due"
        return None


def read_leases(storage: PetskinStorage, study_id: int, *, only_unfinished: bool = False) -> list[Lease]:
    """The leases of a study by trial number, or those of trials that are not over."""
    statement = (queries.READ_UNFINISHED if only_unfinished else queries.READ)[storage.engine.name]
    rows = storage.transaction(lambda session: session.execute(statement, {"study_id": study_id}).mappings().all())
    return [_lease(dict(row)) for row in rows]


def _lease(row: dict[str, Any]) -> Lease:
    death = row["death_epoch"]
    return Lease(
        trial_id=row["trial_id"],
        number=row["number"],
        trial_state=row["trial_state"],
        worker=row["worker"],
        identity=Identity.from_json(row["identity"]),
        token=row["token"],
        beat=row["beat"],
        state=row["state"],
        expires_in=float(row["expires_in"]),
        held_for=float(row["held_for"]),
        resumes=row["resumes"],
        seconds_lost=row["seconds_lost"],
        crashes=row["crashes"],
        vanishes=row["vanishes"],
        reason=row["reason"],
        snapshot=_pointer(row, "snapshot"),
        previous=_pointer(row, "previous"),
        last_death=Position(death, row["death_batch"]) if death is not None else None,
        snapshot_age=float(row["snapshot_age"]) if row["snapshot_age"] is not None else None,
        seconds=row["lease_seconds"],
        until=row["until_epoch"],
    )


def _pointer(row: dict[str, Any], which: str) -> SnapshotPointer | None:
    if row[f"{which}_key"] is None:
        return None
    position = Position(row[f"{which}_epoch"], row[f"{which}_batch"])
    return SnapshotPointer(row[f"{which}_key"], row[f"{which}_sha256"], position)
