"""The life of a trial's process: it trains, says what happens, follows orders, and ends when its worker has died."""

from __future__ import annotations

import faulthandler
import fcntl
import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from petskin_tune import error_text
from petskin_tune.protocol import TRAIN_LOG, Event, Failed, TrialJob
from petskin_tune.training.process import isolation
from petskin_tune.training.process.channel import WorkerChannel

if TYPE_CHECKING:
    from petskin_tune.training.attempts import FinalEvent


def main(connection: Connection, job: TrialJob) -> None:
    """Train ``job``; the last event sent says how it ended, and then the exit code is 0.

    A fault of the machine ends the process with another exit code, after what was known before it was sent; its
    traceback is in the log. The process must not be daemonic: loader processes are its children.

    Args:
        connection: The duplex pipe to the worker: events go up, orders come down.
        job: The trial.
    """
    live(connection, job.run_folder, lambda channel: _run(job, channel))


def live(connection: Connection, run_folder: str, work: Callable[[WorkerChannel], Event]) -> None:
    """Do ``work`` as a worker's child lives: deaf to signals, in its own folder, with its own log, no longer than it.

    Args:
        connection: The duplex pipe to the worker.
        run_folder: Of this process alone; made where it is missing.
        work: Returns the last event.
    """
    isolation.detach()
    _die_with_the_worker()
    folder = Path(run_folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # Ultralytics looks the names of its own models up in the current folder first
    _hold_lock(folder / "lock", connection)
    _log_to(folder / TRAIN_LOG)
    multiprocessing.set_start_method("fork" if sys.platform.startswith("linux") else "spawn", force=True)
    channel = WorkerChannel(connection)
    try:
        channel.send(work(channel))
    finally:
        channel.close()
        for loader in multiprocessing.active_children():  # none, unless one hangs; it would hang this process's exit
            loader.kill()


def _run(job: TrialJob, channel: WorkerChannel) -> FinalEvent:
    try:  # torch and ultralytics, unless the forkserver brought them along
        from petskin_tune.training.attempts import run
    except Exception as error:  # noqa: BLE001  a package or a library that cannot be loaded
        traceback.print_exc()
        return Failed("machine", error_text.named(error), error_text.masked(traceback.format_exc()))
    return run(job, channel)


def _die_with_the_worker() -> None:
    """End this process and its loader processes at once when the worker is gone; nobody would hear them."""
    worker = multiprocessing.parent_process()
    if worker is None:
        return

    def watch() -> None:
        wait([worker.sentinel])
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()


def _hold_lock(path: Path, connection: Connection) -> None:
    """Lock the run folder for the life of this process; its loader processes hold neither the lock nor the pipe.

    Raises:
        BlockingIOError: Another process trains in this folder.
    """
    lock = open(path, "a")  # noqa: SIM115 (it is held open on purpose)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def let_go() -> None:
        lock.close()
        connection.close()

    os.register_at_fork(after_in_child=let_go)


def _log_to(path: Path) -> None:
    """Send everything this process prints, and Ultralytics logs, to a file."""
    with open(path, "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    faulthandler.enable()  # a segmentation fault leaves its stack there
    from ultralytics.utils import LOGGER

    for speaker in (LOGGER, *LOGGER.handlers):
        speaker.setLevel(logging.INFO)
