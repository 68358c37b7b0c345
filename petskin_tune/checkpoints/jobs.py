"""What an uploader has to do, and what it has done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from petskin_tune.checkpoints.base import Stored
from petskin_tune.protocol import Position

KEPT = 2  # snapshots that stay, here and in the store: the newest, and one to fall back to

Commit = Callable[[Stored], None]


@dataclass
class Job:
    """One file on its way; what is done already is not done again when a later step has to be retried."""

    path: Path
    name: str  # for people
    key: Callable[[str], str]  # SHA-256 of the file -> a key to write it under
    commit: Commit
    size: int | None = None  # bytes, as the child wrote them; None: weights, whose size and hash are not known yet
    sha256: str | None = None
    position: Position | None = None  # None: weights
    stored: Stored | None = None
    stored_at: float = 0.0  # the instant (monotonic) at which it was brought into the store
    committed: bool = False


@dataclass
class Lane:
    """A place for one job in work and one that waits; a newer one takes the place of the one that waits."""

    waiting: Job | None = None
    current: Job | None = None

    def newest(self) -> Job | None:
        """The job to work on now: what waits replaces what was tried without success."""
        if self.waiting is not None:
            self.current, self.waiting = self.waiting, None
        return self.current

    @property
    def empty(self) -> bool:
        """Whether nothing is in work and nothing waits."""
        return self.waiting is None and self.current is None


@dataclass
class Uploads:
    """Snapshots of this trial in the store, oldest first; ``committed``: a lease has pointed to it, and it is good."""

    keys: list[str] = field(default_factory=list)
    committed: set[str] = field(default_factory=set)
    unwanted: list[str] = field(default_factory=list)  # to delete, now or with the next snapshot

    def forget_old(self) -> None:
        """All before the second newest that a lease surely points to are unwanted.

        One whose commit failed may be pointed to all the same (the answer was lost), so it stays while it is newer.
        """
        sure = [index for index, key in enumerate(self.keys) if key in self.committed]
        if len(sure) >= KEPT:
            self.unwanted += self.keys[: sure[-KEPT]]
            del self.keys[: sure[-KEPT]]
