"""How long a suspension takes, from what its parts took so far, and when a worker with ``--max-hours`` has to begin it.

A suspension is: the batch in work to its end, a snapshot, its upload, the release of the lease, the end of the worker.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from petskin_tune import text as words

FACTOR = 1.5  # kept for snapshot, upload and the end of a process, as a multiple of what they took
END_SECONDS = 0.2  # kept for the end of the trial's process (until one was seen), and as much for release and worker
SIGNAL_SECONDS = 12.0  # from a signal to the end of the worker: whoever sends one mostly kills soon after
PATIENT_SECONDS = 600.0  # the same while nothing is measured, where nobody kills: Ctrl-C, `petskin-tune stop`
UNMEASURED_SECONDS = 60.0  # kept at most while no snapshot was written or none brought into the store yet,
UNMEASURED_SHARE = 0.05  # or this share of the hours
LOOK_SECONDS = 0.5
WORTH_SAYING_SHARE, WORTH_SAYING_SECONDS = 0.25, 2.0  # by how much what is kept must change to be said again


class Times:
    """What the parts of a suspension took this worker, in seconds: the longest of the last few of each.

    Attributes:
        upload: of a snapshot, by the slowest of the last few; None: none was made yet.
        process_end: from the last word of a trial's process to its end.
        validation: of the last epoch, which is no part of a suspension; None: none was done yet.
    """

    def __init__(self) -> None:
        self._batches: deque[float] = deque(maxlen=5)
        self._snapshots: deque[float] = deque(maxlen=5)
        self.upload: float | None = None
        self.process_end = END_SECONDS
        self.validation: float | None = None

    def saw_batch(self, seconds: float) -> None:
        """A batch took so long."""
        self._batches.append(seconds)

    def saw_snapshot(self, seconds: float) -> None:
        """A snapshot took so long, from its begin until it lay on disk."""
        self._snapshots.append(seconds)

    @property
    def batch(self) -> float:
        """A batch of training; 0 before the first."""
        return max(self._batches, default=0.0)

    def __str__(self) -> str:
        parts = {"a batch": self.batch, "snapshot": max(self._snapshots, default=0.0), "upload": self.upload or 0.0}
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in {**parts, "release": self.release()}.items())

    @property
    def measured(self) -> bool:
        """Whether a snapshot was written and brought into the store."""
        return bool(self._snapshots) and self.upload is not None

    def needed(self) -> float:
        """What a suspension is given."""
        return self.batch + FACTOR * (max(self._snapshots, default=0.0) + (self.upload or 0.0)) + self.release()

    def release(self) -> float:
        """The part of it that follows the upload: the release, the ends of the trial's and of the worker's process."""
        return FACTOR * self.process_end + END_SECONDS


class Deadline:
    """The end of ``--max-hours``.

    Args:
        began: the instant from which the hours count, by ``clock``.
        hours: how many.
        times: as they are measured.
        clock: monotonic seconds, injected by tests.
    """

    def __init__(self, began: float, hours: float, times: Times, clock: Callable[[], float] = time.monotonic) -> None:
        self.at = began + 3600 * hours
        self._hours = hours
        self._times = times
        self._clock = clock
        self._said: float | None = None

    @property
    def name(self) -> str:
        """As it was typed."""
        return f"--max-hours {self._hours:g}"

    def kept(self) -> float:
        """Seconds before the deadline at which the suspension begins."""
        if self._times.measured:
            return self._times.needed()
        return max(self._times.needed(), min(UNMEASURED_SECONDS, UNMEASURED_SHARE * 3600 * self._hours))

    def left(self) -> float:
        """Seconds until the suspension has to begin."""
        return self.at - self.kept() - self._clock()

    def news(self, now: datetime) -> str | None:
        """When this worker stops, at the start and when it has changed; None: as was said.

        Args:
            now: the time of day.
        """
        kept = self.kept()
        if self._said is not None:
            change = abs(kept - self._said)
            if change < max(WORTH_SAYING_SECONDS, WORTH_SAYING_SHARE * self._said):
                return None
        self._said = kept
        at = (now + timedelta(seconds=self.left())).strftime("%H:%M:%S")
        how = f"measured: {self._times}" if self._times.measured else "not measured yet"
        return f"{self.name}: training stops at {at}; {words.duration(kept)} are kept to save it ({how})"
