"""What one run of a trial knows while it goes on: shared by the loop that watches it and the ways in which it ends."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path

from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.error_text import LONGEST_DETAIL
from petskin_tune.leases.heartbeat import Heartbeat
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import TRAIN_LOG, Position, TrialJob
from petskin_tune.trial.freezing import Freezing
from petskin_tune.trial.listener import Listener
from petskin_tune.trial.recorder import Recorder
from petskin_tune.trial.workplace import Workplace


class RunState:
    """The state of one run.

    Args:
        trial: held by this worker.
        place: this worker's.
        heartbeat: renews the trial's lease.

    Attributes:
        heartbeat: as it was given.
        changed: notified whenever something of this changes.
        has_begun: whether the next three are there.
        recorder, uploader, listener: of the run.
        job: of the process that was started last.
        suspended_because: why a person or the worker wants the trial back; None: nobody does.
        until: the instant (monotonic) at which a suspension's writing and uploading end.
        false_starts: processes in a row that died before they trained.
        refused: names of snapshots that the process would not resume from.
    """

    recorder: Recorder
    uploader: Uploader
    listener: Listener

    def __init__(self, trial: HeldTrial, place: Workplace, heartbeat: Heartbeat) -> None:
        self.trial = trial
        self.place = place
        self.changed = threading.Condition()
        self.has_begun = False
        self.job: TrialJob | None = None
        self.suspended_because: str | None = None
        self.until = math.inf
        self.false_starts = 0
        self.refused: set[str] = set()
        self.heartbeat = heartbeat

    def suspend(self, reason: str, until: float) -> None:
        """Ask for the trial; the first reason and the earliest instant count."""
        with self.changed:
            self.suspended_because = self.suspended_because or reason
            self.until = min(self.until, until)
            self.changed.notify_all()

    def is_suspended(self) -> bool:
        """Whether a person or the worker wants the trial back."""
        return self.suspended_because is not None

    def left(self) -> float:
        """Seconds that are left of a suspension, a tenth at least."""
        return max(0.1, self.until - time.monotonic())

    def drained(self) -> bool:
        """Wait until every report is in the database, however long it is away; False: a person will not wait."""
        while not self.recorder.drain(0.5):
            if self.recorder.error:
                return True
            if self.is_suspended():
                return False
        return True

    def is_lost(self) -> bool:
        """Whether somebody else has the trial by now."""
        return self.heartbeat.lost or (self.has_begun and (self.recorder.lost or self.uploader.state.lost))

    def can_freeze(self) -> bool:
        """Whether the process may end: a snapshot of all that was reported is on this disk, and is next to go up."""
        return self._is_all_here() and self._is_next()

    def waits_its_turn(self) -> bool:
        """Whether it is frozen as soon as another trial of this worker is."""
        verdict = self.recorder.verdict
        return verdict is not None and verdict.freeze and self._is_all_here() and not self._is_next()

    def lacks_its_snapshot(self) -> bool:
        """Whether it is to be frozen, and no snapshot of all that was reported is on this disk, or not yet."""
        verdict = self.recorder.verdict
        return verdict is not None and verdict.freeze and not self._is_all_here()

    def _is_all_here(self) -> bool:
        here, reported = self.uploader.state.here, max(self.recorder.curve, default=0)
        return here is not None and not here < Position(reported, 0)

    def _is_next(self) -> bool:
        return all(one.is_over for one in self.place.freezing)

    def is_as_it_was_frozen(self) -> bool:
        """Whether it was thawed for this run, and nothing was reported that its snapshot of then does not hold."""
        held, reported = self.trial.held, max(self.recorder.curve, default=0)
        then = held.lease.snapshot if held.thawed and held.lease else None
        return then is not None and not then.position < Position(reported, 0)

    def freeze(self) -> None:
        """Hand the trial over to a thread that freezes it."""
        outbox, folder = self.place.outbox(self.trial), self.place.folder(self.trial.number)
        one = Freezing(self.trial, self.recorder, self.uploader, outbox, folder, self.heartbeat)
        self.place.freezing.append(one)

    def is_decided(self) -> bool:
        """Whether the run ends now, whatever its process does."""
        verdict = self.recorder.verdict
        judged = verdict is not None and (verdict.prune or self.can_freeze())
        return self.recorder.error is not None or self.is_lost() or judged

    def best(self) -> float | None:
        """The trial's best fitness so far."""
        return max((value for value in self.recorder.curve.values() if not math.isnan(value)), default=None)

    def log(self) -> str:
        """The file to which the trial's process writes; it stays when the trial has ended."""
        return str(Path(self.job.run_folder) / TRAIN_LOG) if self.job else ""

    def log_tail(self) -> str:
        """The end of that file."""
        try:
            return Path(self.log()).read_text(encoding="utf-8", errors="replace")[-LONGEST_DETAIL:]
        except OSError:
            return ""

    def say(self, text: str) -> None:
        """Show a sentence about the trial."""
        self.place.view.note(f"trial {self.trial.number}: {text}")

    def notify(self) -> None:
        """Wake the loop."""
        with self.changed:
            self.changed.notify_all()
