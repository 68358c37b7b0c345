"""Why and when a worker stops before its study is done, and that it is gone in time whatever it waits for."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from petskin_tune.trial.timings import LOOK_SECONDS, SIGNAL_SECONDS, Deadline, Times


class Suspendable(Protocol):
    """A run of a trial."""

    def suspend(self, reason: str) -> None:
        """Snapshot, upload, release."""

    def upload_seconds(self) -> float | None:
        """What bringing a snapshot into the store takes; None: not known yet."""


class Suspension:
    """Orders to stop, from a signal, the clock, another command or the worker itself; the first one names the reason.

    Args:
        times: of the worker, as they are measured.
        deadline: of ``--max-hours``; None: no end of time.
        running: the trial's run, while there is one.
        say: takes one sentence for people.
        give_up: called when snapshot and upload have had their time: whatever still waits for a database waits no more.
        end_now: called when all the time is over; ends the process.

    Attributes:
        reason: why this worker stops; None: it does not.
    """

    def __init__(
        self,
        times: Times,
        deadline: Deadline | None,
        running: Callable[[], Suspendable | None],
        say: Callable[[str], None],
        give_up: Callable[[], None],
        end_now: Callable[[], None],
    ) -> None:
        self.reason: str | None = None
        self._times = times
        self._deadline = deadline
        self._running = running
        self._say = say
        self._give_up = give_up
        self._end_now = end_now
        self._end = math.inf  # the instant (monotonic) at which this process is gone
        self._timers: list[threading.Timer] = []
        self._asked = threading.Event()

    def start(self) -> None:
        """Watch the clock from now on, where there is a deadline."""
        if self._deadline is not None:
            threading.Thread(target=self._watch_the_clock, args=(self._deadline,), name="deadline", daemon=True).start()

    def ask(self, reason: str) -> None:
        """Suspend what runs, within the time that this takes here; may be called from any thread, more than once."""
        within = SIGNAL_SECONDS if reason == "SIGTERM" else max(SIGNAL_SECONDS, self._times.needed())
        end = min(time.monotonic() + within, self._deadline.at if self._deadline else math.inf)
        first, self._end = self.reason is None, min(self._end, end)
        self.reason = self.reason or reason
        self._asked.set()
        if first:
            seconds = max(0.0, self._end - time.monotonic())
            measured = f" (measured: {self._times})" if self._times.measured else ""
            self._say(f"{reason}: suspending, within {seconds:.1f} s{measured}")
        run = self._running()
        if run is not None:
            run.suspend(reason)
        self._at(self.until() if run else 0.0, self._give_up)
        self._at(self._end, self._end_now)

    def decide(self, reason: str) -> None:
        """Stop between two trials, by the worker's own decision."""
        self.reason = self.reason or reason

    def asked(self) -> bool:
        """Whether somebody else than the worker itself wants it to stop."""
        return self._asked.is_set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until somebody asks."""
        self._asked.wait(seconds)

    def until(self) -> float:
        """The instant (monotonic) at which snapshot and upload end, done or not."""
        return self._end - self._times.release()

    def close(self) -> None:
        """This worker's life is over, its process's need not be."""
        for timer in self._timers:
            timer.cancel()

    def _at(self, instant: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(max(0.0, instant - time.monotonic()), action)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _watch_the_clock(self, deadline: Deadline) -> None:
        while not self.asked():
            if (run := self._running()) is not None and (seconds := run.upload_seconds()) is not None:
                self._times.upload = seconds
            if news := deadline.news(datetime.now()):
                self._say(news)
            if (left := deadline.left()) <= 0:
                self.ask(f"{deadline.name} reached")
                return
            self.wait(min(left, LOOK_SECONDS))
