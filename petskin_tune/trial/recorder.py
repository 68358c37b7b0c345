"""Writes what a trial's process says into the study: in order, each epoch's verdict before the next epoch's report.

It has a thread of its own, because the database may be away for hours while training goes on. What waits is in the
outbox on disk as well.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from petskin_tune.errors import LeaseLost
from petskin_tune.faults import reach
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.protocol import MASK_MAP, EpochDone, Note, Started
from petskin_tune.search.pruners import Verdict
from petskin_tune.study import attributes
from petskin_tune.study.stored import recorded
from petskin_tune.trial.outbox import Outbox

Judge = Callable[[int, Mapping[int, float]], Verdict]


class Recorder:
    """The study's side of one held trial.

    Args:
        trial: held by this worker.
        outbox: of this trial on this disk.
        judge: the verdict on the trial after an epoch (1-based), given its own curve.
        on_change: called (from the recorder's thread) whenever an attribute of this object changed.
        on_news: called with what other processes said to all workers, see ``held_trial.study_news``.

    Attributes:
        curve: reported fitness by epoch (1-based).
        verdict: the one that ended the trial, if any; epochs after it are discarded.
        lost: the trial has another owner.
        error: what nobody foresaw; the worker raises it.
    """

    def __init__(
        self,
        trial: HeldTrial,
        outbox: Outbox,
        judge: Judge,
        on_change: Callable[[], None],
        on_news: Callable[[Mapping[str, Any]], None],
    ) -> None:
        frozen = trial.read()
        self.curve: dict[int, float] = dict(frozen.intermediate_values)
        known = recorded(frozen)
        self.history: dict[str, list[float]] = dict(known.get(attributes.HISTORY, {}))
        self.notes: list[str] = list(known.get(attributes.NOTES, []))
        self.verdict: Verdict | None = None
        self.lost = False
        self.error: Exception | None = None
        self._trial = trial
        self._outbox = outbox
        self._judge = judge
        self._on_change = on_change
        self._on_news = on_news
        self._closed = False
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    # ---- from other threads ----

    def start(self) -> None:
        """Begin to write: first what an earlier owner on this disk left behind, and the verdict it may have missed."""
        if self.curve:
            self._queue.put(lambda: self._give_verdict(max(self.curve)))
        known = max(self.curve, default=0)
        for epoch in self._outbox.take_over():
            if epoch.epoch <= known + 1:  # behind a gap they wait until training comes by again
                known = max(known, epoch.epoch)
                self._queue.put(lambda epoch=epoch: self._report(epoch))  # type: ignore[misc]
        self._thread.start()

    def heard(self, event: Started | EpochDone | Note, facts: Mapping[str, Any] | None = None) -> None:
        """Take an event of the trial's process; an epoch is on disk when this returns.

        Args:
            event: what was heard.
            facts: user attributes to store with a :class:`Started`.
        """
        if isinstance(event, EpochDone):
            self._keep(event)
            self._queue.put(lambda: self._report(event))
        elif isinstance(event, Started):
            self._queue.put(lambda: self._trial.describe(facts or {}))
            for row in past_epochs(event.history):
                self._queue.put(lambda row=row: self._report(row))  # type: ignore[misc]
        else:
            self._queue.put(lambda: self.note(event.message))

    def _keep(self, event: EpochDone) -> None:
        if event.epoch in self.curve:
            return
        try:
            self._outbox.add(event)
            reach("outbox-written")
        except OSError as error:  # a full disk must not end a training whose database answers
            message = f"epoch {event.epoch} could not be kept on this machine's disk: {error.strerror}"
            self._queue.put(lambda: self.note(message))

    def do(self, action: Callable[[], None]) -> None:
        """Run ``action`` after everything heard before, and wait for it.

        Once it has begun it is waited for, also when this was closed meanwhile: its transaction may still succeed, and
        the caller must know.

        Raises:
            LeaseLost: the trial is lost, or this was closed; ``action`` was not begun and never will be.
        """
        task = _Task(action)
        self._queue.put(task.run)
        while not task.done.wait(0.2):
            gone = self.lost or self.error or self._closed or not self._thread.is_alive()
            if gone and task.forgo():
                raise LeaseLost(f"trial {self._trial.number} is no longer recorded")
        if task.failure is not None:
            raise task.failure

    def drain(self, seconds: float | None) -> bool:
        """Whether everything heard so far is in the database (or moot), within ``seconds`` (None: however long)."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._queue.unfinished_tasks and not (self.lost or self.error):
            if not self._thread.is_alive() or (deadline is not None and time.monotonic() > deadline):
                return False
            time.sleep(0.02)
        return self.error is None

    def waiting(self) -> int:
        """How much is not in the database yet."""
        return self._queue.unfinished_tasks

    def close(self) -> None:
        """Write nothing more; what waits stays in the outbox."""
        self._closed = True
        self._queue.put(None)

    # ---- in the recorder's thread ----

    def _work(self) -> None:
        while (action := self._queue.get()) is not None:
            try:
                if not (self.lost or self.error or self._closed):
                    action()
            except LeaseLost:
                self.lost = True
            except Exception as error:  # noqa: BLE001  the worker's own thread raises it
                self.error = error
            finally:
                self._queue.task_done()
                self._on_change()
        self._queue.task_done()

    def _report(self, event: EpochDone) -> None:
        if self.verdict is not None:
            return
        if event.epoch in self.curve:
            self._compare(event)
            return
        row = {**event.metrics, attributes.SECONDS_COLUMN: event.seconds}
        self.history = appended(self.history, event.epoch, row)
        news = self._trial.report(event.epoch, event.fitness, summary(self.history))
        self.curve[event.epoch] = event.fitness
        self._on_news(news)
        self._give_verdict(event.epoch)

    def _give_verdict(self, epoch: int) -> None:
        verdict = self._judge(epoch, self.curve)
        reach("verdict-given")
        if verdict.ends:
            self.verdict = verdict

    def _compare(self, event: EpochDone) -> None:
        """An epoch done twice must come out the same; the first report stays in force."""
        if self.curve[event.epoch] != event.fitness:
            self.note(
                f"epoch {event.epoch} was reported with mask mAP {self.curve[event.epoch]!r} "
                f"and came out as {event.fitness!r} when it was done again; the first figure stays"
            )

    def note(self, message: str) -> None:
        """Remember ``message`` with the trial."""
        if message not in self.notes:
            self.notes.append(message)
            self._trial.describe({attributes.NOTES: self.notes})


class _Task:
    """Work that another thread does, unless nobody wants it any more before it has begun.

    Attributes:
        done: set when it has ended.
        failure: what it raised.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self.done = threading.Event()
        self.failure: BaseException | None = None
        self._action = action
        self._turn = threading.Lock()
        self._begun = self._forgone = False

    def run(self) -> None:
        with self._turn:
            if self._forgone:
                return
            self._begun = True
        try:
            self._action()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.done.set()

    def forgo(self) -> bool:
        """Whether it had not begun; then it never will."""
        with self._turn:
            self._forgone = not self._begun
            return self._forgone


# ---- the curves as attributes ----------------------------------------------------------------------------------------


def appended(history: Mapping[str, list[float]], epoch: int, row: Mapping[str, float]) -> dict[str, list[float]]:
    """The history with one more epoch; columns as results.csv has them."""
    columns = {name: list(values) for name, values in history.items()}
    for name, value in {"epoch": epoch, **row}.items():
        columns.setdefault(name, []).append(value)
    return columns


def summary(history: Mapping[str, list[float]]) -> dict[str, Any]:
    """The user attributes that follow from a trial's history."""
    fitness = history[MASK_MAP]
    best = max(range(len(fitness)), key=fitness.__getitem__)
    return {
        attributes.HISTORY: dict(history),
        attributes.EPOCHS: len(fitness),
        attributes.BEST_EPOCH: best + 1,
        attributes.METRICS: {name: values[best] for name, values in history.items() if len(values) == len(fitness)},
        attributes.SECONDS: sum(history.get(attributes.SECONDS_COLUMN, [])),
    }


def past_epochs(history: tuple[Mapping[str, float], ...]) -> list[EpochDone]:
    """The epochs that a snapshot remembers, as if they had just been heard."""
    return [
        EpochDone(
            epoch=index + 1,
            fitness=row[MASK_MAP],
            metrics={name: value for name, value in row.items() if name not in ("epoch", attributes.SECONDS_COLUMN)},
            seconds=row.get(attributes.SECONDS_COLUMN, 0.0),
        )
        for index, row in enumerate(history)
    ]
