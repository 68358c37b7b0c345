"""Why and when a worker stops before its study is done, and that it is gone in time whatever it waits for."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime

from petskin_tune import variables
from petskin_tune.errors import EXIT_SUSPENDED
from petskin_tune.interrupts import end_now
from petskin_tune.trial.timings import LOOK_SECONDS, PATIENT_SECONDS, SIGNAL_SECONDS, Deadline
from petskin_tune.trial.workplace import Workplace

CTRL_C = "SIGINT"
SIGTERM = "SIGTERM"
STOP = "petskin-tune stop"


class Suspension:
    """Orders to stop, from a signal, the clock, another command or the worker itself; the first one names the reason.

    Args:
        place: the worker's.
        deadline: of ``--max-hours``; None: no end of time.

    Raises:
        UsageError: ``TUNE_GRACE_SECONDS`` is no number of seconds.

    Attributes:
        reason: why this worker stops; None: it does not.
    """

    def __init__(self, place: Workplace, deadline: Deadline | None) -> None:
        self.reason: str | None = None
        self._place = place
        self._deadline = place.deadline = deadline
        self._stop_requests = place.study.stop_requests  # those that were meant for earlier workers
        self._grace = variables.seconds(variables.GRACE, SIGNAL_SECONDS)
        self._end = math.inf  # the instant (monotonic) at which this process is gone
        self._timers: list[threading.Timer] = []
        self._asking = threading.Lock()
        self._asked = threading.Event()
        self._closed = threading.Event()

    def start(self) -> None:
        """Watch the clock, and what other commands ask for, from now on."""
        threading.Thread(target=self._watch, name="suspension", daemon=True).start()

    def ask(self, reason: str) -> None:
        """Suspend what runs, within the time that this takes here; may be called from any thread, more than once.

        After :meth:`close` there is nothing to suspend.
        """
        if self._closed.is_set():
            return
        times = self._place.times
        end = min(time.monotonic() + self._within(reason), self._deadline.at if self._deadline else math.inf)
        with self._asking:
            first, self._end = self.reason is None, min(self._end, end)
            self.reason = self.reason or reason
        if first:
            seconds = max(0.0, self._end - time.monotonic())
            measured = f"measured: {times}" if times.measured else "as a rule far sooner; nothing is measured yet"
            again = "; Ctrl-C again stops at once" if reason == CTRL_C else ""
            named = "Ctrl-C" if reason == CTRL_C else reason
            self._place.view.note(f"{named}: stopping safely, within {seconds:.1f} s ({measured}){again}")
            self._place.view.doing("saving what was trained")
        self._asked.set()  # who waits for it says that it is suspended, which comes after
        run = self._place.run
        if run is not None:
            run.suspend(reason, self.until())
        give_up = self._place.study.storage.patience.cancelled.set  # whatever waits for a database waits no more
        self._at(min(self.until(), time.monotonic() + self._needed()) if run else 0.0, give_up)
        self._at(self._end, self._end_process)

    def _within(self, reason: str) -> float:
        """Seconds that a suspension is given: what it took so far, or, where that is not known, plenty."""
        times, needed = self._place.times, self._needed()
        if reason == SIGTERM:  # whoever sends it kills after a while
            grace = max(SIGNAL_SECONDS, self._grace)
            return min(needed, grace) if times.measured else grace
        patient = reason in (CTRL_C, STOP) and not times.measured
        return max(needed, PATIENT_SECONDS) if patient else needed

    def _needed(self) -> float:
        """Seconds that a suspension takes as far as it was measured; a database that is away for longer is left."""
        return max(SIGNAL_SECONDS, self._place.times.needed())

    def decide(self, reason: str) -> None:
        """Stop between two trials, by the worker's own decision."""
        self.reason = self.reason or reason

    def asked(self) -> bool:
        """Whether somebody else than the worker itself wants it to stop."""
        return self._asked.is_set()

    @property
    def is_over(self) -> bool:
        """Whether the hours are used up that a person gave."""
        return self._deadline is not None and self.reason == f"{self._deadline.name} reached"

    def seconds_left(self) -> float:
        """Until this process must be gone; ``inf`` while nobody asked it to stop."""
        return max(0.0, self._end - time.monotonic())

    def wait(self, seconds: float) -> None:
        """Wait so long, or until somebody asks."""
        self._asked.wait(seconds)

    def until(self) -> float:
        """The instant (monotonic) at which snapshot and upload end, done or not."""
        return self._end - self._place.times.release()

    def close(self) -> None:
        """This worker's life is over, its process's need not be."""
        self._closed.set()
        for timer in self._timers:
            timer.cancel()

    def _at(self, instant: float, action: Callable[[], object]) -> None:
        timer = threading.Timer(max(0.0, instant - time.monotonic()), action)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def _end_process(self) -> None:
        """Keep the promise to be gone in time; the dead owner's trial is taken over at once on this host."""
        view = self._place.view
        view.note("the time is over before everything was done; the lease runs out by itself")
        view.suspended(self._place.worker_command)
        view.close()
        end_now(EXIT_SUSPENDED)

    def _watch(self) -> None:
        while not (self.asked() or self._closed.is_set()):
            self._measure()
            if self._place.study.stop_requests > self._stop_requests:
                self.ask(STOP)
                return
            left = self._left(self._deadline) if self._deadline else math.inf
            if left > 0:
                self.wait(min(left, LOOK_SECONDS))

    def _measure(self) -> None:
        """How long an upload takes: a suspension is given that time, as far as its grace reaches."""
        if (run := self._place.run) is not None and (seconds := run.upload_seconds()) is not None:
            self._place.times.upload = seconds

    def _left(self, deadline: Deadline) -> float:
        """Seconds until the hours are over; says when that is, and asks when it is now."""
        if news := deadline.news(datetime.now()):
            self._place.view.note(news)
        if (left := deadline.left()) <= 0:
            self.ask(f"{deadline.name} reached")
        return left
