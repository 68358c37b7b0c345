"""When a snapshot is due, and its way to disk: copied while training stands still, written while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from petskin_tune.protocol import Note, Position, SnapshotWritten
from petskin_tune.training import snapshot
from petskin_tune.training.channel import Channel

SHARE = 0.02  # of training time may be lost to snapshots
EVERY_EPOCH_ANYWAY = 0.5  # seconds; who asked for a snapshot an epoch gets it if it costs no more than this

Capture = Callable[[], Mapping[str, Any]]


class SnapshotKeeper:
    """Writes snapshots of one run and remembers what they cost.

    Args:
        folder: Where they go.
        every: Seconds from one to the next; 0: one at the end of every epoch.
        channel: Hears of every snapshot written, and of the interval when it has to be stretched.
        shares_processor: Writing takes processor time from training (training on a CPU).
    """

    def __init__(self, folder: Path, every: float, channel: Channel, *, shares_processor: bool) -> None:
        self._folder = folder
        self._every = every
        self._channel = channel
        self._shares_processor = shares_processor
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshots")
        self._writing: Future[SnapshotWritten | None] | None = None
        self._pause = every
        self._last_begun = time.monotonic()
        self.last: SnapshotWritten | None = None
        snapshot.remove_leftovers(folder)

    def due(self, *, end_of_epoch: bool) -> bool:
        """Say whether one should be taken now."""
        if self._writing is not None and not self._writing.done():
            return False
        if self._every == 0 and not end_of_epoch:
            return False
        return time.monotonic() - self._last_begun >= self._pause

    def begin(self, capture: Capture, position: Position) -> None:
        """Take a snapshot now and write it while training goes on."""
        started = time.monotonic()
        state = capture()
        self._last_begun = time.monotonic()
        lost = self._last_begun - started
        self._writing = self._pool.submit(self._write, state, position, started, lost)

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

    def _write(self, state: Mapping[str, Any], position: Position, began: float, lost: float) -> SnapshotWritten | None:
        started = time.thread_time()
        try:
            written = snapshot.write(state, snapshot.path_for(self._folder, position))
        except OSError as error:
            self._channel.send(Note("snapshot-failed", f"no snapshot of {_where(position)}: {error}"))
            return None
        if self._shares_processor:
            lost += time.thread_time() - started
        total = time.monotonic() - began
        event = SnapshotWritten(str(written.path), position, written.size, written.sha256, lost, total)
        self.last = event
        self._channel.send(event)
        self._stretch(lost)
        return event

    def _stretch(self, lost: float) -> None:
        affordable = 0.0 if self._every == 0 and lost <= EVERY_EPOCH_ANYWAY else lost / SHARE
        pause = max(self._every, affordable)
        if pause > 1.2 * self._pause:
            asked = f"{self._every:.0f} s" if self._every else "every epoch"
            self._channel.send(
                Note("snapshot-interval", f"a snapshot every {pause:.0f} s instead of {asked}: one costs {lost:.1f} s")
            )
        self._pause = pause


def _where(position: Position) -> str:
    return f"epoch {position.epoch + 1}, batch {position.batch}"
