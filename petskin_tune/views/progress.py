"""What a worker shows while it works: a live view on a terminal, plain lines everywhere else.

A line an epoch, a line every two minutes of a longer one, and one at least every half minute of what is no training.

A worker tells its :class:`Progress` what happens; its threads may do so at the same time. Nothing that happens to the
terminal (closed, a pipe that broke) ever reaches the worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, TextIO

from petskin_tune import text as words
from petskin_tune.printable import printable
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.views.pace import StudyPace, TrialPace
from petskin_tune.views.pulse import Pulse
from petskin_tune.views.stream import UnbreakableStream

log = logging.getLogger(__name__)

TrialEnd = Literal["complete", "pruned", "frozen", "failed", "suspended", "lost"]

BATCH_LINE_SECONDS = 120.0  # between two lines of one epoch
EXACT_SECONDS = 600.0  # below which an epoch's time is told in seconds
WAITING_LINE_SECONDS = 300.0  # between two lines of a worker that waits for another one's lease

_VERBS: dict[TrialEnd, str] = {
    "complete": "finished",
    "pruned": "pruned",
    "frozen": "frozen",
    "failed": "failed",
    "suspended": "suspended",
    "lost": "now belongs to another worker; this one stopped training it",
}


class Progress:
    """Plain lines, for logs, pipes and notebooks. Every method is thread-safe and raises nothing of the stream's.

    Args:
        stream: where to.
        clock: monotonic seconds.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = UnbreakableStream(stream)
        self._lock = threading.RLock()
        self._clock = clock
        self._trial: TrialPace | None = None
        self._pace = StudyPace()
        self._spoke = clock()
        self._pulse = Pulse(self._say, clock=clock)

    def _line(self, text: str) -> None:
        with self._lock:
            self._stream.write(printable(" ".join(text.split())) + "\n")
            self._stream.flush()
            self._spoke = self._clock()
            self._pulse.spoken()

    def _say(self, text: str) -> None:
        """Show a line, and keep it in the log."""
        log.info("%s", text)
        self._line(text)

    def doing(self, what: str) -> None:
        """What goes on from now on, until the next event: it is said again while nothing else is."""
        self._pulse.doing(what)

    def study(self, name: str, extent: Extent, *, best: float | None, home: str) -> None:
        """The study was opened: how far it is; ``home`` says where its state lives."""
        best_so_far = f", best mask mAP {words.score(best)}" if best is not None else ""
        self._say(f"study {name}: {extent}{best_so_far} · {home}")
        self._pulse.doing("looking for a trial to train")

    def trial_started(
        self,
        number: int,
        extent: Extent,
        params: Mapping[str, object],
        epochs: int,
        best_value: float | None,
        pruned: int,
        resumed_from: Position | None = None,
        curve: Mapping[int, float] | None = None,
        ahead: float | None = None,
    ) -> None:
        """Trial ``number`` starts, or goes on after ``resumed_from``.

        Args:
            number: Optuna's trial number.
            extent: how far the study is.
            params: the parameters drawn.
            epochs: how many the trial has in all.
            best_value: the study's best mask mAP so far.
            pruned: how many trials of the study were pruned so far.
            resumed_from: the durable position, when another process began this trial.
            curve: its mask mAP by epoch so far.
            ahead: the highest mask mAP of a trial that is not over, if it is above the best.
        """
        begun = resumed_from or Position(0, 0)
        with self._lock:
            self._pace.extent = extent
            self._trial = TrialPace(number, params, epochs, begun, began_at=begun.epoch)
            if curve:
                self._trial.fitness, self._trial.best = curve[max(curve)], max(curve.values())
        count = f" ({place})" if (place := place_of(extent)) else ""
        verb = f"goes on after {words.done(resumed_from)}" if resumed_from else "starts"
        self._say(f"trial {number}{count} {verb}, {words.counted(epochs, 'epoch')}: {words.parameters(params)}")
        self.doing(f"trial {number}: setting the model up")

    def trial_trains(self) -> None:
        """The trial's process has set the model up; the first batch is next."""
        if self._trial is not None:
            self.doing(f"trial {self._trial.number}: waiting for the first batch")

    def batch(self, position: Position, batches: int, losses: Mapping[str, float], images_per_second: float) -> None:
        """``position.batch`` of ``batches`` batches of an epoch are done; a log hears of it every two minutes."""
        with self._lock:
            if self._trial is None:
                return
            self._trial.saw_batch(self._clock(), position, batches, losses, images_per_second)
            self._pulse.doing(_after_a_batch(self._trial))
            if self._clock() - self._spoke >= BATCH_LINE_SECONDS:
                self._say(_batch_line(self._trial))

    def epoch(
        self,
        number: int,
        epoch: int,
        epochs: int,
        fitness: float,
        best: float,
        study_best: float | None,
        durable: str,
        *,
        seconds: float | None = None,
        loss: float | None = None,
    ) -> None:
        """Epoch ``epoch`` (1-based) is done.

        Args:
            number: of the trial.
            epoch: which.
            epochs: how many the trial has in all.
            fitness: its mask mAP.
            best: of the trial so far.
            study_best: of the study before this trial.
            durable: :func:`words.durable` of the epoch.
            seconds: that it took, validation included.
            loss: of training, all parts of it.
        """
        with self._lock:
            if self._trial is not None:
                self._trial.saw_epoch(epoch, fitness, best, durable, seconds)
            parts = [f"loss {loss:.3g}"] if loss is not None else []
            parts += [f"{_seconds(seconds)} an epoch"] if seconds is not None else []
            parts += [left] if (left := self._left()) else []
            self._epoch_done(epoch_line(number, epoch, epochs, fitness, best, [*parts, durable]))
            over = self._trial is not None and epoch >= epochs
            on = "bringing its last reports and weights home" if over else f"epoch {epoch} done; waiting for the next"
            self._pulse.doing(f"trial {number}: {on}")

    def _epoch_done(self, line: str) -> None:
        """Show the line of an epoch."""
        self._say(line)

    def _left(self) -> str:
        """What is left of the trial in work and of the study; "" while it is not known."""
        if self._trial is None or (left := self._trial.seconds_left(self._clock())) is None or left < 0.5:
            return ""
        study = self._pace.seconds_left(self._trial, left)
        said = f"{words.duration(left)} left in this trial"
        return said if study is None else f"{said}, {words.duration(study)} in the study at this worker's pace alone"

    def note(self, text: str) -> None:
        """Something worth a line: a decision, a warning, a retry."""
        self._say(text)

    def waiting(self, number: int, worker: str, seconds: float) -> None:
        """Trial ``number`` is leased to ``worker`` for at most ``seconds``; this worker waits to take it over."""
        left = f"for another {words.duration(seconds)}" if seconds else "by a lease that has run out"
        self._say(f"trial {number} is held by {worker} {left}; waiting to go on with it should its owner be gone")
        self._pulse.doing(f"still waiting: trial {number} is held by {worker}", every=WAITING_LINE_SECONDS)

    def outage(self, seconds: float, epochs_waiting: int | None) -> None:
        """The database has been away for ``seconds``; ``epochs_waiting`` epochs wait on local disk.

        None: no trial runs.
        """
        wait = "epoch waits" if epochs_waiting == 1 else "epochs wait"
        waiting = f", {epochs_waiting} {wait} on local disk" if epochs_waiting else ""
        goes_on = "this worker waits" if epochs_waiting is None else f"training goes on{waiting}"
        self._say(f"database away for {words.duration(seconds)}; {goes_on}")

    def outage_over(self, seconds: float) -> None:
        """The database is back after ``seconds``; the epochs that waited are being sent."""
        self._say(f"database back after {words.duration(seconds)}")

    def trial_ended(self, number: int, state: TrialEnd, value: float | None, seconds: float, reason: str = "") -> None:
        """Trial ``number`` left this worker after ``seconds`` of training here; ``value`` is its best mask mAP."""
        because = f": {words.reason(reason)}" if reason else ""
        best = f" · best mask mAP {words.score(value)}" if value is not None else ""
        with self._lock:
            self._trial = None
            if state in ("complete", "pruned", "failed"):
                self._pace.ended.append(seconds)
        self._say(f"trial {number} {_VERBS[state]} after {words.duration(seconds)}{because}{best}")
        self._pulse.doing("looking for a trial to train")

    def suspended(self, command: str) -> None:
        """This worker ends with work left; ``command`` goes on."""
        self._pulse.doing(None)
        self._say(f"suspended; to go on, type: {command}")

    def study_done(self, best_value: float | None, best_number: int | None, command: str | None) -> None:
        """The study is done; ``command`` is what to type next, None: whoever runs this says so."""
        self._pulse.doing(None)
        best = f": best mask mAP {words.score(best_value)} (trial {best_number})" if best_value is not None else ""
        self._say(f"study done{best}; next, type: {command}" if command else f"study done{best}")

    def close(self) -> None:
        """Leave the terminal as it was found. May be called twice."""
        self._pulse.close()


def place_of(extent: Extent) -> str:
    """Where in the study a trial stands: ``7 of 60 trials done``, ``120 of 540 epochs trained``; "" without an end."""
    return "" if extent.of is None else str(extent)


def epoch_line(
    number: int, epoch: int, epochs: int, fitness: float, best: float, more: Sequence[str], at: datetime | None = None
) -> str:
    """What :meth:`Progress.epoch` says of an epoch; ``more`` comes behind its scores, ``at`` is now by default."""
    scores = f"mask mAP {words.score(fitness)} (best {words.score(best)})"
    said = f"{at or datetime.now():%H:%M:%S} trial {number} epoch {epoch}/{epochs} {scores}"
    return " · ".join([said, *(part for part in more if part)])


def _seconds(seconds: float) -> str:
    """What an epoch took; a minute more or less is a tenth of many."""
    return f"{seconds:.3g} s" if seconds < EXACT_SECONDS else words.duration(seconds)


def _after_a_batch(trial: TrialPace) -> str:
    """What goes on while no further batch is heard of."""
    epoch, batch = trial.position.epoch + 1, trial.position.batch
    if trial.batches and batch >= trial.batches:
        return f"trial {trial.number}: validating epoch {epoch}"
    return f"trial {trial.number}: epoch {epoch}, {batch} of {trial.batches} batches done; waiting for the next"


def _batch_line(trial: TrialPace) -> str:
    """Where in an epoch the trial is."""
    at = f"epoch {trial.position.epoch + 1}/{trial.epochs} batch {trial.position.batch}/{trial.batches}"
    parts = [f"{datetime.now():%H:%M:%S} trial {trial.number} {at}"]
    parts += [f"loss {sum(trial.losses.values()):.3g}"] if trial.losses else []
    parts += [f"{trial.images_per_second:.3g} images/s"] if trial.images_per_second else []
    left = trial.epoch_seconds_left()
    parts += [f"{words.duration(left)} left in this epoch"] if left is not None else []
    return " · ".join(parts)
