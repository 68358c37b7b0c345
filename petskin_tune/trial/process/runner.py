"""The trial's own process: started from a forkserver that has torch and Ultralytics in memory, heard, ordered, ended.

The forkserver imports them once, so that the second trial does not pay for it again; a trial in a process of its own
gives all memory back and, when it crashes, takes nothing along. Secrets never reach it.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from petskin_tune.errors import UsageError
from petskin_tune.files import temporary
from petskin_tune.protocol import Event, Order, PicturesJob, TrialJob
from petskin_tune.trial.process.environment import child_environment, inherited, without_arguments

LONGEST_TMPDIR = 60  # bytes, beyond which a shorter folder is looked for
LONGEST_SOCKET = 107  # bytes of a path
ADDED = len("/pymp-xxxxxxxx/listener-xxxxxxxx")  # by multiprocessing
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
PRELOAD = "petskin_tune.training.process.preload"
QUIET = (signal.SIGINT, signal.SIGTERM)  # for the worker alone; it says itself what its trial shall do

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Died:
    """The trial's process ended; ``exit_code`` is negative for a signal."""

    exit_code: int | None


class TrialProcess:
    """One running trial.

    Args:
        process: started.
        connection: this side's end.
        on_event: called from a thread of this object with every event in order, and with :class:`Died` at the end.

    Attributes:
        error: what ``on_event`` raised, which nobody foresaw; it was told nothing after that but the end.
    """

    def __init__(
        self,
        process: multiprocessing.process.BaseProcess,
        connection: Connection,
        on_event: Callable[[Event | Died], None],
    ) -> None:
        self._process = process
        self._connection = connection
        self._on_event = on_event
        self.error: Exception | None = None
        self._listener = threading.Thread(target=self._listen, name="trial events", daemon=True)
        self._listener.start()

    def send(self, order: Order) -> None:
        """Give an order; one that finds nobody is as good as one that comes late."""
        with contextlib.suppress(OSError, ValueError):
            self._connection.send(order)

    def wait(self, seconds: float) -> bool:
        """Whether the process has ended, and all it said was heard, within ``seconds``."""
        self._listener.join(seconds)
        return not self._listener.is_alive() and self._process.exitcode is not None

    def end(self, patience: float = 3.0) -> None:
        """Let the process end by itself for ``patience`` seconds, then kill it and all its children."""
        if not self.wait(patience):
            self._kill_group()
            self.wait(10.0)

    def _kill_group(self) -> None:
        pid = self._process.pid
        log.warning("process %s did not end by itself and is killed", pid)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == pid:  # it leads its own session, loader processes included
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)

    def _listen(self) -> None:
        while True:
            try:
                event = self._connection.recv()
            except (EOFError, OSError):
                break
            except Exception as error:  # noqa: BLE001  as in _tell
                self.error = error
                break
            if self.error is None:
                self._tell(event)
        self._process.join()
        self._kill_leftovers()
        self._connection.close()
        self._tell(Died(self._process.exitcode))

    def _tell(self, event: Event | Died) -> None:
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001  the worker's own thread raises it
            self.error = self.error or error

    def _kill_leftovers(self) -> None:
        """Loader processes outlive a trial that was killed; they are in its group."""
        if self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


class Runner:
    """Starts the trials of one worker.

    Args:
        settings: folder for Ultralytics' own settings, so that no two workers race for one file.
        environ: this process's environment.

    Attributes:
        has_trained: a trial began to train here, so that a failure to do so is the next one's own.
    """

    def __init__(self, settings: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.has_trained = False
        self._environment = child_environment(environ, settings, temporary.place())
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._context: Any = multiprocessing.get_context(method)
        self._context.set_forkserver_preload([PRELOAD])
        _shorten_socket_paths()

    @property
    def _has_forkserver(self) -> bool:
        return bool(self._context.get_start_method() == "forkserver")

    def warm_up(self) -> None:
        """Let the forkserver start importing while the caller does something else."""
        if self._has_forkserver:
            with inherited(self._environment), without_arguments(), _signals_blocked():
                multiprocessing.forkserver.ensure_running()

    def start(self, job: TrialJob | PicturesJob, on_event: Callable[[Event | Died], None]) -> TrialProcess:
        """Start a process that trains a trial, or one that makes the pictures of what it has learnt."""
        ours, theirs = self._context.Pipe(duplex=True)
        process = self._context.Process(target=_child, args=(theirs, job), name=_name(job), daemon=False)
        self.warm_up()
        # A forkserver has its environment already, and answers only after its imports, which take seconds.
        environment = contextlib.nullcontext() if self._has_forkserver else inherited(self._environment)
        try:
            with environment, without_arguments(), _signals_blocked():
                process.start()
        except EOFError as error:  # which is all that multiprocessing says of it
            raise OSError("the server that starts training processes has died, maybe for want of memory") from error
        log.info("%s: process %s started, in %s", process.name, process.pid, job.run_folder)
        theirs.close()
        return TrialProcess(process, ours, on_event)


def _name(job: TrialJob | PicturesJob) -> str:
    return f"{'pictures of ' if isinstance(job, PicturesJob) else ''}trial {job.trial}"


def _shorten_socket_paths() -> None:
    """Keep multiprocessing's sockets below the 108 bytes that Linux allows, however long TMPDIR is.

    Raises:
        UsageError: there is no shorter folder.
    """
    usual = str(temporary.place())
    length = len(usual.encode(errors="surrogateescape"))
    if length <= LONGEST_TMPDIR:
        return
    for short in SHORT_FOLDERS:
        with contextlib.suppress(OSError):
            folder = tempfile.mkdtemp(prefix="tune-", dir=short)
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            multiprocessing.current_process()._config["tempdir"] = folder  # type: ignore[attr-defined]
            return
    if length + ADDED <= LONGEST_SOCKET:
        return
    raise UsageError(f"The folder for temporary files {usual} has too long a name for sockets: set TMPDIR to another.")


def _child(connection: Connection, job: TrialJob | PicturesJob) -> None:
    if isinstance(job, PicturesJob):
        from petskin_tune.training.pictures import process

        process.main(connection, job)
    else:
        from petskin_tune.training.process import child

        child.main(connection, job)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """A Ctrl-C in the instant between fork and the child's own precautions must not reach it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, QUIET)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- a run folder that somebody else still uses ----------------------------------------------------------------------


def free_folder(folder: Path, patience: float = 3.0, kill_seconds: float = 10.0) -> bool:
    """Wait for the process that holds ``folder/lock`` to end by itself, then kill exactly that process.

    It is the child of a worker that is dead or lost its lease; its watchdog normally ends it at once.

    Returns:
        whether the folder is free; not so when its holder is out of sight, in a container beside this one.
    """
    import fcntl
    import time

    lock = folder / "lock"
    if not lock.exists():
        return True
    deadline = time.monotonic() + patience
    with open(lock, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline + kill_seconds:
                    return False
                if time.monotonic() > deadline:
                    for pid in _holders(lock):
                        with contextlib.suppress(ProcessLookupError, PermissionError):
                            os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)


def is_unused(folder: Path) -> bool:
    """Whether no process holds ``folder/lock`` now; nobody is waited for, and nobody killed."""
    import fcntl

    try:
        with open(folder / "lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _holders(lock: Path) -> list[int]:
    """Processes of this pid namespace that hold a flock on ``lock`` (source: proc(5), /proc/locks); none off Linux."""
    status = lock.stat()
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    except OSError:
        return []
    return [int(row[4]) for row in rows if row[1] == "FLOCK" and row[5] == wanted and int(row[4]) > 1]
