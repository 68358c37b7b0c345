"""What a trial's process says, and who is told: the recorder, the uploader, the view."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping

from petskin_tune.checkpoints.base import Stored
from petskin_tune.checkpoints.uploader import Uploader
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import SnapshotPointer
from petskin_tune.protocol import (
    SNAPSHOT_FAILED,
    BestWeights,
    EpochDone,
    Event,
    Failed,
    Note,
    Position,
    Progress,
    SnapshotWritten,
    Started,
)
from petskin_tune.study import attributes
from petskin_tune.text import durable, place
from petskin_tune.trial.process.runner import Died
from petskin_tune.trial.recorder import Recorder
from petskin_tune.trial.workplace import Workplace

SHOW_SECONDS = 3.0  # how long an epoch's line waits for its snapshot to be safe

log = logging.getLogger(__name__)


class Listener:
    """Hears one held trial's process, or one after the other when it crashes.

    Args:
        trial: held by this worker.
        workplace: this worker's.
        recorder: of the trial.
        uploader: of the trial.
        changed: notified after every event that matters.
        best: the study's best value before this run; None: it has none.

    Attributes:
        last: how the process says that it ended.
        died: set when the process is gone and everything it said was heard.
        trains: whether it has said that it started.
        refused: why this machine's disk has not taken the newest snapshot; "": it has.
    """

    def __init__(
        self,
        trial: HeldTrial,
        workplace: Workplace,
        recorder: Recorder,
        uploader: Uploader,
        changed: threading.Condition,
        best: float | None = None,
    ) -> None:
        self._trial = trial
        self._place = workplace
        self._recorder = recorder
        self._uploader = uploader
        self._changed = changed
        self._best = best
        self._batches = 0
        self._batch = 0  # images of one
        self._epochs = 0
        self._pending: tuple[EpochDone, float] | None = None  # an epoch to show, and since when it waits
        self._remembered: set[str] = set()
        self.begin_again()

    def begin_again(self) -> None:
        """A new process is about to start."""
        self.last: Event | None = None
        self._last_at = 0.0
        self.died: Died | None = None
        self.trains = False
        self.refused = ""

    def hear(self, event: Event | Died) -> None:
        """Take an event; called from the thread that listens to the process."""
        if isinstance(event, Progress):
            self._place.times.saw_batch(self._batch / event.images_per_second)
            self._place.view.batch(event.position, self._batches, event.losses, event.images_per_second)
            return
        if isinstance(event, Started):
            self._heard_started(event)
        elif isinstance(event, EpochDone):
            self._place.times.validation = event.validation_seconds
            self._recorder.heard(event)
            self.show_pending(at_once=True)
            self._pending = (event, time.monotonic())
        elif isinstance(event, SnapshotWritten):
            self._heard_snapshot(event)
        elif isinstance(event, BestWeights):
            self._uploader.submit_weights(event, self._commit_weights)
        elif isinstance(event, Note):
            self.refused = event.message if event.key == SNAPSHOT_FAILED else self.refused
            self.remember(event.message)
        elif isinstance(event, Died):
            log.info("trial %d: its process has ended with exit code %s", self._trial.number, event.exit_code)
            self.died = event
            if self.last is not None:
                self._place.times.process_end = time.monotonic() - self._last_at
        else:  # a Suspended, too: its snapshot was heard of when it was written
            self._log(event)
            self.last, self._last_at = event, time.monotonic()
        self._notify()

    def _log(self, last: Event) -> None:
        """How the process says that it ends."""
        if isinstance(last, Failed):
            log.error("trial %d failed: %s: %s\n%s", self._trial.number, last.kind, last.message, last.detail)
        else:
            log.info("the trial's process says %r", last)

    def _heard_started(self, event: Started) -> None:
        self._place.processes.has_trained = True
        self._batches = event.batches
        self._batch = event.batch
        self.trains = True
        self._place.view.trial_trains()
        self._epochs = int(event.arguments.get("epochs", 0))
        machine = event.machine
        facts = {
            attributes.WORKER: self._place.options.worker,
            attributes.DEVICE: machine["device"],
            attributes.DEVICE_MODEL: machine["device_model"],
            attributes.CUDA: machine.get("cuda"),
            attributes.VERSIONS: dict(machine["versions"]),
            attributes.THREADS: machine["threads"],
            attributes.ARGUMENTS: dict(event.arguments),
            attributes.BATCH: event.batch,
            attributes.RESUMES: self._trial.held.token - 1,
            attributes.GIVEN_BACK: None,
        }
        self._recorder.heard(event, facts)
        for note in event.notes:
            self.remember(note)

    def _heard_snapshot(self, event: SnapshotWritten) -> None:
        log.debug("%s is written, %d bytes in %.2f s", event.path, event.size, event.total)
        self.refused = ""
        self._place.times.saw_snapshot(event.total)
        self._uploader.submit(event, lambda stored: self._commit(stored, event.position))

    def _commit(self, stored: Stored, position: Position) -> None:
        pointer = SnapshotPointer(stored.key, stored.sha256, position)
        self._recorder.do(lambda: self._trial.point_to(pointer))

    def _commit_weights(self, stored: Stored) -> None:
        self._recorder.do(lambda: self._trial.describe({attributes.WEIGHTS: stored.key}))

    def show_pending(self, *, at_once: bool = False) -> None:
        """Show the last epoch as soon as it is safe, so that its line can say so; or when it has waited long enough."""
        with self._changed:
            if self._pending is None:
                return
            event, since = self._pending
            durable_position = self._uploader.state.durable
            safe = durable_position is not None and not durable_position < Position(event.epoch, 0)
            if not (at_once or (safe and self._place.home.is_saved) or time.monotonic() - since > SHOW_SECONDS):
                return
            self._pending = None
        self._show(event)

    def _show(self, event: EpochDone) -> None:
        curve = {**self._recorder.curve, event.epoch: event.fitness}
        state = self._uploader.state
        self._place.view.epoch(
            self._trial.number,
            event.epoch,
            self._epochs,
            event.fitness,
            max(curve.values()),
            self._best,
            durable(state.durable, event.epoch, self._where()),
            seconds=event.seconds,
            loss=training_loss(event.metrics),
        )

    def _where(self) -> str:
        """What a person calls the store."""
        url = self._place.store.url
        return place(url, network=self._place.home.network_store(url))

    def remember(self, text: str) -> None:
        """Keep a sentence with the trial, and show it; once, however often it is said."""
        if text in self._remembered:
            return
        self._remembered.add(text)
        self._recorder.heard(Note("incident", text))
        self.say(text)

    def say(self, text: str) -> None:
        """Show a sentence about the trial."""
        self._place.view.note(f"trial {self._trial.number}: {text}")

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def training_loss(metrics: Mapping[str, float]) -> float | None:
    """All parts of the training loss in a row of ``results.csv``; None where it has none."""
    parts = [value for name, value in metrics.items() if name.startswith("train/") and name.endswith("_loss")]
    return sum(parts) if parts else None
