"""What a claimer has itself seen of other workers' leases, so that it need not trust anybody's clock.

An expired lease may be a living owner's that was cut off from the database together with everybody else, or the
database's clock was set. So a claimer takes it only when, after it had seen that the lease ran out, it has itself read
the same token and beat over a while in which the database always answered. The same holds of a lease that ends later
than any lease lasts: a machine's clock is behind that of the one before it, on whose disk the database lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from petskin_tune.database.engine import CONNECT_SECONDS
from petskin_tune.database.outages import RETRY_MAX_SECONDS
from petskin_tune.leases.lease import Lease

# Reads further apart than both say nothing about what lay between. An idle worker reads each second, unless a distant
# database answers slowly.
CONTINUOUS_SECONDS = 5.0
CONTINUOUS_SHARE = 1 / 3  # of the shortest grace


@dataclass(frozen=True)
class Seen:
    """A lease as it was read, and what the reader knows of its owner.

    Attributes:
        alive: whether the owner's process lives; None: this machine cannot tell.
        expired_for: seconds up to this read over which the lease had run out and nobody renewed it.
        moved: the owner was seen to renew it.
    """

    lease: Lease
    alive: bool | None
    expired_for: float = 0.0
    moved: bool = False

    @property
    def lives(self) -> bool:
        """Whether the owner is known to live."""
        return self.moved if self.alive is None else self.alive


class Gone(Enum):
    """Why the owner of a trial is gone."""

    RELEASED = "it gave the trial back"
    DECLARED = "a person says so"
    DEAD = "its process has ended"
    UNREACHABLE = "nobody on another machine can be at work"
    SILENT = "it has not renewed its lease"


def why_gone(seen: Seen, *, declared: bool = False, alone: bool = False) -> Gone | None:
    """Why the owner of a trial is gone; None: it may live.

    ======================================================  ===========
    the lease is released                                   RELEASED
    a person has declared its owner gone                    DECLARED
    its process ran on this boot of this host, and is gone  DEAD
    it ran elsewhere, and only this machine can have work   UNREACHABLE
    it has run out, and stayed so for longer than a grace   SILENT
    it ends too late, and did so for a lease and a grace    SILENT
    ======================================================  ===========

    Args:
        seen: the lease.
        declared: a person says that this owner is gone.
        alone: nobody on another machine can be at work.
    """
    if seen.lease.state == "released":
        return Gone.RELEASED
    if declared:
        return Gone.DECLARED
    if seen.alive is False:
        return Gone.DEAD
    if seen.alive is None and alone:
        return Gone.UNREACHABLE
    if seen.lease.has_run_out and seen.expired_for >= _needed(seen.lease):
        return Gone.SILENT
    return None


def _needed(lease: Lease) -> float:
    """How long a claimer looks on: a lease more, where the clock does not say when it was renewed last."""
    return grace(lease.seconds) + (lease.seconds if lease.is_ahead else 0.0)


def grace(seconds: float) -> float:
    """How long a claimer looks on after it saw that a lease of ``seconds`` ran out.

    A living owner that reaches the database has renewed by then: its next renewal was due within a third of the lease;
    if that failed, another attempt follows, which may take as long as a connection may take.
    """
    third = seconds / 3
    return third + min(third, RETRY_MAX_SECONDS) + min(third, float(CONNECT_SECONDS))


@dataclass(frozen=True)
class _Memory:
    token: int
    beat: int
    expired_since: float | None  # under this claimer's eyes, unchanged; None: it has not run out
    moved: bool  # whether it ever changed since this claimer saw it first


class Watch:
    """The leases of one study under one claimer's eyes.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._memory: dict[int, _Memory] = {}  # by trial id
        self._last_read = float("-inf")

    def read(self, leases: Iterable[Lease]) -> list[Seen]:
        """All unfinished leases were read; with what is known of their owners."""
        now, leases = self._clock(), list(leases)
        shortest = min((grace(lease.seconds) for lease in leases), default=0.0)
        if now - self._last_read > max(CONTINUOUS_SECONDS, CONTINUOUS_SHARE * shortest):
            self.begin_again()
        self._last_read = now
        return [self._see(lease, now) for lease in leases]

    def _see(self, lease: Lease, now: float) -> Seen:
        before = self._memory.get(lease.trial_id)
        same = before is not None and (before.token, before.beat) == (lease.token, lease.beat)
        since = before.expired_since if before and same else None
        if not lease.has_run_out:
            since = None
        elif since is None:
            since = now
        moved = before is not None and (before.moved or not same)
        self._memory[lease.trial_id] = _Memory(lease.token, lease.beat, since, moved)
        return Seen(lease, lease.identity.is_alive(), 0.0 if since is None else now - since, moved)

    def begin_again(self) -> None:
        """The database did not answer: owners may have been cut off as well, so every grace starts again."""
        self._memory = {trial_id: replace(seen, expired_since=None) for trial_id, seen in self._memory.items()}
