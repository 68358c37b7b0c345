"""A sign of life while something takes long and says nothing: what it is, and since when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from petskin_tune import text as words
from petskin_tune.language import _

QUIET_SECONDS = 25.0  # after which it is said once more what goes on: nobody waits for half a minute in silence


class Pulse:
    """Says what goes on whenever nothing else was said for a while. Thread-safe.

    Args:
        say: prints a line; called from a thread.
        every: seconds of silence after which it is said.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        every: float = QUIET_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say = say
        self._every = self._every_now = every
        self._clock = clock
        self._changed = threading.Condition()
        self._what: str | None = None
        self._since = self._spoken = clock()
        self._closed = False
        self._thread: threading.Thread | None = None

    def doing(self, what: str | None, *, every: float | None = None) -> None:
        """From now on ``what`` goes on, such as "unpacking the data set"; None: what says itself that it goes on.

        Args:
            what: as it is said.
            every: seconds, for this alone.
        """
        with self._changed:
            self._what, self._every_now = what, every or self._every
            self._since = self._spoken = self._clock()
            if what is not None and self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def spoken(self) -> None:
        """Something else was said."""
        with self._changed:
            self._spoken = self._clock()

    def close(self) -> None:
        """Say nothing more; may be called twice."""
        with self._changed:
            self._closed = True
            self._what = None
            self._changed.notify_all()

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """``what`` goes on inside of the ``with``."""
        self.doing(what)
        try:
            yield
        finally:
            self.doing(None)

    def due(self) -> str | None:
        """What is to be said now, if anything."""
        with self._changed:
            if self._what is None or self._clock() - self._spoken < self._every_now:
                return None
            self._spoken = self._clock()
            so_far = words.duration(self._spoken - self._since)
            return _("{what} ({time} so far)").format(what=self._what, time=so_far)

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                wait = None if self._what is None else self._every_now - (self._clock() - self._spoken)
                self._changed.wait(None if wait is None else max(0.05, wait))
            if (said := self.due()) is not None:
                self._say(said)
