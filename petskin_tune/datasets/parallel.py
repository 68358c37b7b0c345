"""Work spread over processes that end with the one that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from petskin_tune.errors import UsageError
from petskin_tune.files.paths import leave_deleted_folder

Work = TypeVar("Work")
Result = TypeVar("Result")

_WAITING_PER_PROCESS = 4  # batches handed out ahead, so that no process waits for the next one


def batches(items: Iterable[Work], size: int) -> Iterator[list[Work]]:
    """Lists of ``size`` items, the last one shorter."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def spread(
    function: Callable[[Work], Result],
    work: Iterable[Work],
    jobs: int,
    prepare: Callable[..., None] | None = None,
    arguments: tuple[Any, ...] = (),
) -> Iterator[Result]:
    """Call ``function`` on every piece of work in ``jobs`` processes; results come in no particular order.

    Work is taken from the iterable only as fast as it is done, so both ends may be long. ``prepare(*arguments)`` runs
    once in every process. With one job all of it happens in this process.

    Raises:
        UsageError: a process died, which is mostly for lack of memory.
    """
    if jobs == 1:
        if prepare:
            prepare(*arguments)
        yield from map(function, work)
        return
    with _safe_path():
        yield from _in_processes(function, work, jobs, (prepare, arguments))


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Let spawned processes, which are a `python -c`, look no module up in the current folder (since Python 3.11).

    Also the one that multiprocessing starts for itself, with the first queue.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        del os.environ["PYTHONSAFEPATH"]
        os.environ.update({} if before is None else {"PYTHONSAFEPATH": before})


def _in_processes(
    function: Callable[[Work], Result], work: Iterable[Work], jobs: int, begin: tuple[Any, ...]
) -> Iterator[Result]:
    leave_deleted_folder()
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _begin, begin)
    try:
        rest = iter(work)
        waiting: set[Future[Result]] = {
            pool.submit(function, item) for item in islice(rest, jobs * _WAITING_PER_PROCESS)
        }
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            waiting |= {pool.submit(function, item) for item in islice(rest, len(done))}
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise UsageError(
            "One of the processes died, probably for lack of memory; type the same command again with fewer --jobs, it "
            "goes on."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the starter's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare:
        prepare(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)
