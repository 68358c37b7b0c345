"""Named points at which a test may let this process die, stop or fail.

Production code calls ``reach("name")`` at the instants that matter; without ``TUNE_FAULTS`` in the environment this is
one dictionary look-up. A test sets, for example::

    TUNE_FAULTS="report-sent=kill@3;snapshot-renamed=raise:28"   TUNE_FAULTS_LOG=/tmp/fired

Actions: ``kill`` (SIGKILL this process), ``kill-all`` (this process and the worker that started it), ``stop`` (SIGSTOP
this process), ``raise:ERRNO`` (an OSError with that number), ``raise`` (a RuntimeError). ``@n`` fires at the n-th time
only, without it every time. What fired is appended to TUNE_FAULTS_LOG first, one ``point pid n`` a line, so that a test
can assert that its fault really happened.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter

_faults: dict[str, tuple[str, int | None]] | None = None
_reached: Counter[str] = Counter()


def _parse(text: str) -> dict[str, tuple[str, int | None]]:
    faults: dict[str, tuple[str, int | None]] = {}
    for item in filter(None, text.split(";")):
        point, _, action = item.partition("=")
        action, _, nth = action.partition("@")
        faults[point] = (action, int(nth) if nth else None)
    return faults


def reach(point: str) -> None:
    """Let the fault planned for ``point``, if any, happen here.

    Raises:
        OSError: the fault is ``raise:ERRNO``.
        RuntimeError: the fault is ``raise``.
    """
    global _faults
    if _faults is None:
        _faults = _parse(os.environ.get("TUNE_FAULTS", ""))
    if point not in _faults:
        return
    action, nth = _faults[point]
    _reached[point] += 1
    if nth is not None and _reached[point] != nth:
        return
    _log(point)
    _act(action, point)


def _log(point: str) -> None:
    if path := os.environ.get("TUNE_FAULTS_LOG"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{point} {os.getpid()} {_reached[point]}\n")
            file.flush()
            os.fsync(file.fileno())


def _act(action: str, point: str) -> None:
    kind, _, value = action.partition(":")
    if kind == "kill-all":
        if (parent := multiprocessing.parent_process()) and parent.pid:
            os.kill(parent.pid, signal.SIGKILL)
        kind = "kill"
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "stop":
        # To this thread: one for the process may be given to another thread, and this one goes on until that runs.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
    elif kind == "raise" and value:
        raise OSError(int(value), f"{os.strerror(int(value))} (fault at {point})")
    elif kind == "raise":
        raise RuntimeError(f"fault at {point}")
    else:
        raise ValueError(f"unknown fault action {action!r} at {point}")
