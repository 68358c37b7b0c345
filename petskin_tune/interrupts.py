"""How a worker is asked to stop, at any instant of its life: signals, and work that can be left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

from petskin_tune.errors import EXIT_SUSPENDED

Result = TypeVar("Result")

LOOK_SECONDS = 0.1  # how often it is looked whether work that can be left behind has to be
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
# A Ctrl-C as a parent hands it on: no SIGINT, because a terminal sends that one to the whole group by itself.
CTRL_C_OF_PARENT = signal.SIGUSR1
CLOSE_SECONDS = 0.5  # what a terminal gets to be left as it was found, on the second Ctrl-C


class Interrupted(Exception):
    """This worker was asked to stop while it did something that is of no use half done; it was left where it stood."""


def unless(stopped: Callable[[], bool], work: Callable[[], Result]) -> Result:
    """What ``work`` returns or raises; it runs in a thread of its own, so that it need not be waited for.

    Args:
        stopped: asked ten times a second.
        work: bears to end with the process at any instant, as it does when the machine vanishes.

    Raises:
        Interrupted: ``stopped`` came true first.
    """
    results: list[Result] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 (raised again where it was asked for)
            failures.append(error)

    thread = threading.Thread(target=run, name="work that can be left", daemon=True)
    thread.start()
    while thread.is_alive():
        if stopped():
            raise Interrupted
        thread.join(LOOK_SECONDS)
    if failures:
        raise failures[0]
    return results[0]


def end_now(code: int) -> None:
    """End this process without waiting for threads and pools that were left behind."""
    for handler in logging.getLogger("petskin_tune").handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Signals:
    """SIGTERM and the first Ctrl-C ask to stop; a second Ctrl-C ends this process at once.

    One Ctrl-C may come twice to the child of a worker: from the terminal, and from its parent, which hands on what only
    the parent was sent. So each way is counted by itself, and the second Ctrl-C is the second by one of them.

    Args:
        of_child: hear what a parent hands on, too.

    Attributes:
        came: the name of the first signal, once there was one.
        before_exit: called on the second Ctrl-C, for half a second at most.
        last_words: printed then, behind it.
    """

    def __init__(self, *, of_child: bool = False) -> None:
        self.came: str | None = None
        self.before_exit: Callable[[], None] = lambda: None
        self.last_words = ""
        self._stop: Callable[[str], None] | None = None
        self._ctrl_c = [signal.SIGINT, CTRL_C_OF_PARENT] if of_child else [signal.SIGINT]
        self._heard: list[int] = []
        self._names: list[str] = []  # of what was heard, each once
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        for number in (*self._ctrl_c, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def tell(self, stop: Callable[[str], None]) -> None:
        """Call ``stop`` once with the name of each signal, from a thread; at once for those that have come already."""
        self._stop = stop
        for name in list(self._names):
            stop(name)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number in self._ctrl_c and number in self._heard:
            self._end_at_once()
        self._heard.append(number)
        name = signal.Signals(signal.SIGINT if number in self._ctrl_c else number).name
        self.came = self.came or name
        if name in self._names:
            return
        self._names.append(name)
        if self._stop is not None:
            # Not in the handler itself: it runs between two byte codes of the main thread, which may hold any lock.
            threading.Thread(target=self._stop, args=(name,), daemon=True).start()

    def _end_at_once(self) -> None:
        """The trial's watchdog ends its process, and the next worker on this host takes the dead one's lease over."""
        closing = threading.Thread(target=self.before_exit, daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if self.last_words:
            with contextlib.suppress(OSError):  # not through a stream, of which the main thread may hold the lock
                os.write(1, f"{self.last_words}\n".encode())
        os._exit(EXIT_SUSPENDED)


def end_with_parent(parent: int) -> None:
    """Have this process sent SIGTERM when its parent dies, however that ends; on Linux (source: prctl(2)).

    Args:
        parent: its process id, as it says itself: it may have died by now.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
