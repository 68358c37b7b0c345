"""A study with leases in a database of its own, workers with names instead of processes, and a clock that is told."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace

import optuna
import sqlalchemy
from sqlalchemy import text

from petskin_tune.database.storage import PetskinStorage
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from petskin_tune.study import attributes
from petskin_tune.study.fence import Fence

UID = "0123456789ab"
LEASE = 90.0
SNAPSHOTS = 300.0


@dataclass
class Clock:
    """Monotonic seconds that pass when a test says so."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class LeasedStudy:
    storage: PetskinStorage
    optuna: optuna.Study
    clock: Clock = field(default_factory=Clock)

    @property
    def id(self) -> int:
        return self.optuna._study_id

    def worker(self, name: str, host: str = "here", lease: float = LEASE, snapshots: float = SNAPSHOTS) -> Claims:
        """The leases as a worker on ``host`` sees them: whether it lives cannot be known from anywhere."""
        identity = replace(Identity.mine(), host=host, pid=hash(name) % 10**6)
        return Claims(self.storage, fence_of(self.optuna), name, lease, snapshots, identity=identity, clock=self.clock)

    def let_expire(self, seconds_ago: float = 1.0) -> None:
        """All running leases ran out so long ago."""
        self.shift(LEASE + seconds_ago)

    def shift(self, seconds: float) -> None:
        """So much time passes in the database."""
        with self.storage.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE trial_leases SET expires_at = expires_at - :s, claimed_at = claimed_at - :s, "
                    "snapshot_at = snapshot_at - :s"
                ),
                {"s": seconds},
            )

    def rows(self, table: str) -> list[dict]:
        with self.storage.engine.connect() as connection:
            return [dict(row) for row in connection.execute(sqlalchemy.text(f"SELECT * FROM {table}")).mappings()]


def fence_of(study: optuna.Study) -> Fence:
    """Of a study that may have no uid."""
    return Fence(study._study_id, study.user_attrs.get(attributes.UID), study.study_name)


def new_study(storage: PetskinStorage) -> LeasedStudy:
    study = optuna.create_study(storage=storage, study_name=uuid.uuid4().hex, direction="maximize")
    study.set_user_attr(attributes.UID, UID)
    return LeasedStudy(storage, study)
