"""A worker's log: with times, what it says to people and what it does not, in a file that outlives the screen.

Every module speaks by the standard ``logging``; nothing is written anywhere until :class:`WorkerLog` listens. A thread
of its own writes, so that a slow or hanging disk costs a training nothing: what it cannot take in time is dropped, and
a file that cannot be written is told once and done without.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import logging.handlers
import os
import queue
import re
import stat
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import cast

from petskin_tune.error_text import masked
from petskin_tune.files.regular import open_regular
from petskin_tune.printable import printable
from petskin_tune.views import progress

LOGGERS = ("petskin_tune", "optuna")
FORMAT = "%(asctime)s %(levelname)s %(name)s [%(threadName)s] %(message)s"
MOST_BYTES = 5 << 20  # of a log, before it is rotated
KEPT = 3  # older parts of it
MOST_FILES = 40  # in a folder of logs: a worker without a name of its own has a new one after every start
MOST_WAITING = 10_000  # lines for a disk that is slow
FLUSH_SECONDS = 1.0  # what the disk gets at the end
LONGEST_NAME = 80  # characters of a worker's name in that of its file

Say = Callable[[str], object]


class WorkerLog:
    """Listens from now on, and writes once it is told where to.

    Args:
        verbose: whether what goes to the file, and was not shown, goes to standard error, too.

    Attributes:
        path: of the file; None: none yet.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self.path: Path | None = None
        self._waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(MOST_WAITING)
        self._ear = _Ear(self._waiting)
        self._handlers: list[logging.Handler] = [_screen()] if verbose else []
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._levels = {name: logging.getLogger(name).level for name in LOGGERS}
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self._ear)
        logging.getLogger(LOGGERS[0]).setLevel(logging.DEBUG)
        if verbose:
            self._thread.start()

    def open(self, folder: Path, worker: str, say: Say) -> None:
        """Write what was heard so far, and all that follows, to a file of this worker's.

        Args:
            folder: of logs, on this machine's own disk; made if missing.
            worker: its name.
            say: takes a sentence where the file cannot be written.
        """
        self.path = folder / f"{file_name(worker)}.log"
        self._handlers.append(_File(self.path, say))
        if not self._thread.is_alive():
            self._thread.start()

    def close(self) -> None:
        """Write what waits, for a second at most, and listen no more."""
        if self._thread.is_alive():
            self._ear.flush()
        for name, level in self._levels.items():
            logging.getLogger(name).removeHandler(self._ear)
            logging.getLogger(name).setLevel(level)
        if self._thread.is_alive():
            self._ear.stop()
            self._thread.join(FLUSH_SECONDS)

    def _write(self) -> None:
        while (record := self._waiting.get()) is not None:
            for handler in self._handlers:
                handler.handle(record)
            self._waiting.task_done()
        for handler in self._handlers:
            handler.close()


def file_name(worker: str) -> str:
    """A worker's name as one that a file may have; different names stay different."""
    plain = re.sub(r"[^\w.-]", "_", printable(worker)).lstrip(".")[:LONGEST_NAME]
    if plain and plain == worker and plain.isascii():
        return plain
    return f"{plain[: LONGEST_NAME // 2]}-{hashlib.sha256(worker.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


class _Ear(logging.handlers.QueueHandler):
    """Takes lines from any thread and never waits."""

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return  # the disk hangs

    def flush(self) -> None:
        """Give the disk a moment to take what waits."""
        end = time.monotonic() + FLUSH_SECONDS
        while cast("queue.Queue[object]", self.queue).unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)

    def stop(self) -> None:
        try:
            self.queue.put_nowait(None)
        except queue.Full:
            return  # the thread is left behind

    def handleError(self, record: logging.LogRecord) -> None:
        """A line that cannot be formatted is no reason to print one."""


class _Line(logging.Formatter):
    """One line with its time and the zone's offset; secrets masked, controls and undecodable bytes spelled out."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created).astimezone().isoformat(sep=" ", timespec="milliseconds")

    def format(self, record: logging.LogRecord) -> str:
        return masked(printable(super().format(record)))


class _File(logging.handlers.RotatingFileHandler):
    """The file: made when the first line comes, never through a link."""

    def __init__(self, path: Path, say: Say) -> None:
        super().__init__(
            path, maxBytes=MOST_BYTES, backupCount=KEPT, encoding="utf-8", errors="backslashreplace", delay=True
        )
        self._say = say
        self._failed = False
        self.setFormatter(_Line(FORMAT))

    def _open(self) -> io.TextIOWrapper:
        path = Path(self.baseFilename)
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(path.parent)
        descriptor = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, follow=False)
        return open(descriptor, "a", encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say it once; the next line is tried again, for room may have been made."""
        if not self._failed:
            self._failed = True
            error = sys.exc_info()[1]
            reason = getattr(error, "strerror", None) or error
            self._say(f"The log {self.baseFilename} cannot be written ({reason}); the worker goes on without.")


def _forget_old(folder: Path) -> None:
    """Delete the oldest logs of a folder that has too many."""
    ages = {}
    for path in folder.glob("*.log*"):
        with contextlib.suppress(FileNotFoundError):  # another worker that begins now deletes them, too
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                ages[path] = status.st_mtime
    for path in sorted(ages, key=ages.__getitem__)[: -MOST_FILES or None]:
        path.unlink(missing_ok=True)


def _screen() -> logging.Handler:
    """Standard error, for what the view has not shown already."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(FORMAT))
    handler.addFilter(lambda record: record.name != progress.__name__)
    return handler
