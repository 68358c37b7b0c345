"""What a claimer has itself seen of other workers' leases, so that it need not trust anybody's clock.

An expired lease may be a living owner's that was cut off from the database together with everybody else, or the
database's clock was set. So a claimer takes it only when, after it had seen that the lease ran out, it has itself read
the same token and beat over a while in which the database always answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from petskin_tune.leases.lease import Lease

CONTINUOUS_SECONDS = (
    5.0  # reads further apart say nothing about what lay between (a worker without work reads each second)
)


@dataclass(frozen=True)
class _Seen:
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
        self._seen: dict[int, _Seen] = {}  # by trial id
        self._last_read = float("-inf")

    def read(self, leases: Iterable[Lease]) -> None:
        """All unfinished leases were read."""
        now = self._clock()
        if now - self._last_read > CONTINUOUS_SECONDS:
            self.begin_again()
        self._last_read = now
        for lease in leases:
            seen = self._seen.get(lease.trial_id)
            same = seen is not None and (seen.token, seen.beat) == (lease.token, lease.beat)
            since = seen.expired_since if seen and same else None
            if lease.expires_in >= 0:
                since = None
            elif since is None:
                since = now
            moved = seen is not None and (seen.moved or not same)
            self._seen[lease.trial_id] = _Seen(lease.token, lease.beat, since, moved)

    def begin_again(self) -> None:
        """The database did not answer: owners may have been cut off as well, so every grace starts again."""
        self._seen = {trial_id: replace(seen, expired_since=None) for trial_id, seen in self._seen.items()}

    def expired_for(self, lease: Lease) -> float:
        """Seconds up to the last read over which a lease that was read then had run out, and nobody renewed it."""
        since = self._seen[lease.trial_id].expired_since
        return 0.0 if since is None else self._last_read - since

    def has_moved(self, lease: Lease) -> bool:
        """Whether the owner of a lease that was read was seen to renew it."""
        return self._seen[lease.trial_id].moved
