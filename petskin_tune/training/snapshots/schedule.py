"""When a snapshot is due, and its way to disk: copied while training stands still, written while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petskin_tune.protocol import SNAPSHOT_FAILED, Note, Position, SnapshotWritten
from petskin_tune.training.process.channel import Channel
from petskin_tune.training.snapshots import file as snapshot

SHARE = 0.02  # of training time may be lost to snapshots
SHARE_KEPT = SHARE / 4  # for snapshots, however much the copies that no interval can change take of SHARE
UNNOTICED = 0.1  # seconds that a snapshot at an epoch's end may cost however short the epoch is

Capture = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class _Stood:
    """How long training stood still for a snapshot, and since the one before."""

    began: float  # the instant
    itself: float  # seconds
    otherwise: float  # seconds, for copies of other kinds
    share: float  # of the time since the one before that those other copies took


class SnapshotKeeper:
    """Writes snapshots of one run and remembers what they cost.

    Args:
        folder: Where they go.
        every: Seconds from one to the next; 0: one at the end of every epoch.
        channel: Hears of every snapshot written, and of the interval when it has to be stretched.
        shares_processor: Writing takes processor time from training (training on a CPU). Costs are then counted in
            processor time: what else a busy machine does is not a snapshot's cost.
    """

    def __init__(self, folder: Path, every: float, channel: Channel, *, shares_processor: bool) -> None:
        self._folder = folder
        self._every = every
        self._channel = channel
        self._shares_processor = shares_processor
        self._clock = time.thread_time if shares_processor else time.monotonic
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshots")
        self._writing: Future[SnapshotWritten | None] | None = None
        self._pause = self._told = every  # seconds between two that can be afforded, and the worker knows of
        self._cost = 0.0  # seconds that training lost to the last one
        self._copies = 0.0  # seconds that it lost to other copies since
        self._last_begun = time.monotonic()
        self.last: SnapshotWritten | None = None
        snapshot.remove_leftovers(folder)

    def due(self, *, end_of_epoch: bool) -> bool:
        """Say whether one should be taken now; the worker is told when it cannot be afforded as often as asked."""
        if self._writing is not None and not self._writing.done():
            return False
        if self._every == 0 and not end_of_epoch:
            return False
        waited = time.monotonic() - self._last_begun
        if self._every <= waited < self._pause:
            self._tell_stretched()
        return waited >= self._pause

    @contextmanager
    def standstill(self) -> Iterator[None]:
        """Count the time of the enclosed code, for which training waits though no snapshot is begun."""
        began = self._clock()
        try:
            yield
        finally:
            self._copies += self._clock() - began

    def begin(self, capture: Capture, position: Position) -> None:
        """Take a snapshot now and write it while training goes on.

        Raises:
            Exception: What nobody foresaw when the one before was written.
        """
        self.wait()
        began, clock = time.monotonic(), self._clock()
        share = self._copies / max(began - self._last_begun, self._copies) if self._copies else 0.0
        state = capture()
        stood = _Stood(began, self._clock() - clock, self._copies, share)
        self._last_begun, self._copies = time.monotonic(), 0.0
        self._writing = self._pool.submit(self._write, state, position, stood)

    def write_now(self, capture: Capture, position: Position) -> SnapshotWritten | None:
        """Take a snapshot and wait until it lies on disk; None if the disk refused it."""
        self.begin(capture, position)
        assert self._writing is not None
        return self._writing.result()

    def wait(self) -> None:
        """Wait until the snapshot that was begun last lies on disk."""
        if self._writing is not None:
            self._writing.result()

    def submit(self, write: Callable[[], None]) -> None:
        """Let ``write`` run after the snapshots that were begun before, and before those begun later."""
        self._pool.submit(write)

    def close(self) -> None:
        """Wait until everything is written."""
        self._pool.shutdown(wait=True)

    def _write(self, state: Mapping[str, Any], position: Position, stood: _Stood) -> SnapshotWritten | None:
        started = time.thread_time()
        try:
            written = snapshot.write(state, snapshot.path_for(self._folder, position))
        except OSError as error:
            self._channel.send(Note(SNAPSHOT_FAILED, f"no snapshot of {_where(position)}: {error}"))
            return None
        finally:
            busy = time.thread_time() - started if self._shares_processor else 0.0
            self._cost = stood.itself + busy
            self._stretch(stood.share)
        lost, total = self._cost + stood.otherwise, time.monotonic() - stood.began
        event = SnapshotWritten(str(written.path), position, written.size, written.sha256, lost, total)
        self.last = event
        self._channel.send(event)
        return event

    def _stretch(self, share_of_copies: float) -> None:
        """Choose the pause after which one more snapshot takes no more than what the other copies leave of SHARE.

        Who asked for one an epoch has short epochs or can do without, so that there a snapshot's first ``UNNOTICED``
        seconds are free: 2 % of an epoch of a second are less than any snapshot costs.
        """
        counted = self._cost - (UNNOTICED if self._every == 0 else 0.0)
        self._pause = max(self._every, counted / max(SHARE - share_of_copies, SHARE_KEPT))

    def _tell_stretched(self) -> None:
        if self._pause <= 1.2 * self._told:
            return
        asked = _seconds(self._every) if self._every else "every epoch"
        message = f"a snapshot every {_seconds(self._pause)} instead of {asked}: one costs {self._cost:.1f} s"
        self._channel.send(Note("snapshot-interval", message))
        self._told = self._pause


def _where(position: Position) -> str:
    return f"epoch {position.epoch + 1}, batch {position.batch}"


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
