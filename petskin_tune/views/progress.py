"""What a worker shows while it works: a live view on a terminal, one plain line an epoch everywhere else.

A worker tells its :class:`Progress` what happens; its threads may do so at the same time. Nothing that happens to the
terminal (closed, a pipe that broke) ever reaches the worker.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Literal, TextIO

from petskin_tune import text as words
from petskin_tune.printable import printable
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.views.stream import UnbreakableStream

log = logging.getLogger(__name__)

TrialEnd = Literal["complete", "pruned", "frozen", "failed", "suspended", "lost"]


_VERBS: dict[TrialEnd, str] = {
    "complete": "finished",
    "pruned": "pruned",
    "frozen": "frozen",
    "failed": "failed",
    "suspended": "suspended",
    "lost": "now belongs to another worker; this one stopped training it",
}


class Progress:
    """Plain lines, for logs, pipes and notebooks. Every method is thread-safe and raises nothing of the stream's."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = UnbreakableStream(stream)
        self._lock = threading.RLock()

    def _line(self, text: str) -> None:
        with self._lock:
            self._stream.write(printable(" ".join(text.split())) + "\n")
            self._stream.flush()

    def _say(self, text: str) -> None:
        """Show a line, and keep it in the log."""
        log.info("%s", text)
        self._line(text)

    def study(self, name: str, extent: Extent, *, best: float | None, home: str) -> None:
        """The study was opened: how far it is; ``home`` says where its state lives."""
        best_so_far = f", best mask mAP {words.score(best)}" if best is not None else ""
        self._say(f"study {name}: {extent}{best_so_far} · {home}")

    def trial_started(
        self,
        number: int,
        extent: Extent,
        params: Mapping[str, object],
        epochs: int,
        best_value: float | None,
        pruned: int,
        resumed_from: Position | None = None,
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
        """
        count = f" ({place})" if (place := place_of(number, extent)) else ""
        verb = f"goes on after {words.done(resumed_from)}" if resumed_from else "starts"
        self._say(f"trial {number}{count} {verb}, {words.counted(epochs, 'epoch')}: {words.parameters(params)}")

    def batch(self, position: Position, batches: int, losses: Mapping[str, float], images_per_second: float) -> None:
        """``position.batch`` of ``batches`` batches of an epoch are done; a log is no place for a pulse."""

    def epoch(
        self,
        number: int,
        epoch: int,
        epochs: int,
        fitness: float,
        best: float,
        study_best: float | None,
        durable: str,
    ) -> None:
        """Epoch ``epoch`` (1-based) is done; ``durable`` is :func:`words.durable` of it."""
        self._say(epoch_line(number, epoch, epochs, fitness, best, durable))

    def note(self, text: str) -> None:
        """Something worth a line: a decision, a warning, a retry."""
        self._say(text)

    def waiting(self, number: int, worker: str, seconds: float) -> None:
        """Trial ``number`` is leased to ``worker`` for at most ``seconds``; this worker waits to take it over."""
        left = f"for another {words.duration(seconds)}" if seconds else "by a lease that has run out"
        self._say(f"trial {number} is held by {worker} {left}; waiting to go on with it should its owner be gone")

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
        because = f": {reason}" if reason else ""
        best = f" · best mask mAP {words.score(value)}" if value is not None else ""
        self._say(f"trial {number} {_VERBS[state]} after {words.duration(seconds)}{because}{best}")

    def suspended(self, command: str) -> None:
        """This worker ends with work left; ``command`` goes on."""
        self._say(f"suspended; to go on, type: {command}")

    def study_done(self, best_value: float | None, best_number: int | None, command: str) -> None:
        """The study is done; ``command`` is what to type next."""
        best = f": best mask mAP {words.score(best_value)} (trial {best_number})" if best_value is not None else ""
        self._say(f"study done{best}; next, type: {command}")

    def close(self) -> None:
        """Leave the terminal as it was found. May be called twice."""


def place_of(number: int, extent: Extent) -> str:
    """Where in the study trial ``number`` stands: ``8th of 60``, ``120 of 540 epochs trained``; "" without an end."""
    if extent.of is None or extent.unit == "epoch":
        return "" if extent.of is None else str(extent)
    return f"{words.ordinal(number + 1)} of {extent.of}"


def epoch_line(number: int, epoch: int, epochs: int, fitness: float, best: float, durable: str) -> str:
    """What :meth:`Progress.epoch` says of an epoch."""
    scores = f"mask mAP {words.score(fitness)} (best {words.score(best)})"
    return f"trial {number} epoch {epoch}/{epochs} {scores} · {durable}"
