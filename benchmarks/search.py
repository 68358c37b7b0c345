"""How good a search is, without training anything: learning curves from tables, ours beside its peers.

    python benchmarks/search.py --tables DIR                              # all tasks, one worker, one seed
    python benchmarks/search.py --tables DIR --methods freeze-thaw,tpe-asha --seeds 4 --workers 1,4,16
    python benchmarks/search.py --tables DIR --plot search.html           # also a plot
    python benchmarks/search.py --tables DIR --mode yolo                  # also: rising, continuous
    python benchmarks/search.py --timing                                  # seconds per choice, needs no tables
    python benchmarks/search.py --rung                                    # what a rung costs, see search_rung.py

The tables are no part of this project; benchmarks/search_tasks.py says what is expected in DIR. Workers ask for the
next segment when theirs has ended, and train an epoch each per tick. The budget is 20 full runs' worth of epochs, over
all workers. Printed: mean normalised regret, (best - v) / (best - median), after 5, 10 and 20 runs, with v the last
epoch without noise of the configuration that the method recommends, with bootstrap intervals over (task, seed) and
over tasks; and the number of runs after which a method is as good as Ultralytics' tuner at the end. Every search is
kept in the results file as it ends; the same command goes on where it was killed.

Modes: `plain` (27 epochs spread over a curve, noise), `rising` (the first 27 epochs, which end on the slope), `yolo`
(the rise and the noise of public YOLO runs), `continuous` (points between the rows, interpolated).
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # before numpy is imported

import numpy as np  # noqa: E402
from search_base import Search, Trial  # noqa: E402
from search_methods import METHODS  # noqa: E402
from search_tables import Key, figures, plot, print_table  # noqa: E402
from search_tasks import EPOCHS, MODES, load, names  # noqa: E402

BUDGET = 20  # full runs' worth of epochs, over all workers


def main() -> None:
    options = _options()
    if options.timing:
        print_timing()
        return
    if options.rung:  # in a process of its own: each trial's process imports what this one is
        raise SystemExit(subprocess.call([sys.executable, str(Path(__file__).with_name("search_rung.py"))]))
    if options.tables is None or not any(options.tables.glob("*.npz")):
        raise SystemExit(
            "There are no tables: give their folder with --tables (benchmarks/search_tasks.py says which)."
        )
    tasks = _tasks(options)
    wanted = list(itertools.product([options.mode], options.methods, tasks, options.workers, range(options.seeds)))
    wanted.sort(key=lambda key: (key[4], key[3]))  # whole rows of the table first, then the next seed
    results = run(options, wanted)
    for workers in options.workers:
        print_table({key: results[key] for key in wanted if key[3] == workers}, options.methods, options.runs)
    if options.plot:
        plot({key: results[key] for key in wanted}, options.methods, options.runs, options.plot)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--tables", type=Path, help="folder with tables, see search_tasks.py")
    parser.add_argument("--json", type=Path, default=Path("search-results.json"), help="results, kept and gone on with")
    parser.add_argument("--plot", type=Path, help="an HTML file: mean regret over runs, a line for each method")
    parser.add_argument("--methods", type=words, default=list(METHODS), help=f"of {','.join(METHODS)}")
    parser.add_argument("--tasks", type=words, default=["dev", "test"], help="dev, test or names")
    parser.add_argument("--workers", type=lambda text: [int(word) for word in text.split(",")], default=[1])
    parser.add_argument("--seeds", type=int, default=1, help="searches of each method on each task")
    parser.add_argument("--runs", type=int, default=BUDGET, help="full runs' worth of epochs that a search may use")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--mode", choices=MODES, default="plain")
    for mode in MODES[1:]:
        parser.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, help=f"--mode {mode}")
    parser.add_argument("--timing", action="store_true", help="only seconds per choice")
    parser.add_argument("--rung", action="store_true", help="only what a rung costs, on real training")
    return parser.parse_args()


def _tasks(options: argparse.Namespace) -> list[str]:
    halves = names(options.tables)
    return [task for word in options.tasks for task in halves.get(word, [word])]


# ---- one search ---------------------------------------------------------------------------------------------------


def simulate(tables: Path, runs: int, key: Key) -> dict[str, Any]:
    """Regret after each full run's worth of epochs, and seconds of a method's choices."""
    mode, name, task_name, workers, seed = key
    method = METHODS[name]()
    search = Search(load(tables, task_name, seed, mode), workers)
    training: list[Trial | None] = [None] * workers
    regrets: list[float] = []
    segments, thaws, seconds = 0, 0, 0.0
    latest: list[Trial | None] = [None] * workers
    for epochs in range(1, runs * EPOCHS + 1):
        worker = epochs % workers
        trial = training[worker]
        if trial is None:
            began = time.process_time()
            trial, place, until = method.next(search)
            seconds, segments = seconds + time.process_time() - began, segments + 1
            thaws += trial is not None and trial is not latest[worker]
            trial = _begun(search, place) if trial is None else trial
            trial.standing, trial.until = "running", until
            training[worker] = latest[worker] = trial
        _train(search, method, trial)
        training[worker] = trial if trial.standing == "running" else None
        if epochs % EPOCHS == 0:
            best = method.recommended(search)
            regrets.append(search.task.regret(search.task.rows[0] if best is None else best.place))
    counts = {"trials": len(search.trials), "segments": segments, "thaws": thaws, "seconds": seconds / segments}
    return {"regrets": regrets, **counts}


def _begun(search: Search, place: Any) -> Trial:
    trial = Trial(len(search.trials), place, search.task.observed(place))
    search.trials.append(trial)
    return trial


def _train(search: Search, method: Any, trial: Trial) -> None:
    """One epoch of ``trial``, and what becomes of it."""
    trial.curve.append(float(trial.observed[len(trial.curve)]))
    if not np.isfinite(trial.curve[-1]):
        trial.standing = "diverged"
    elif len(trial.curve) == EPOCHS:
        trial.standing = "complete"
    elif len(trial.curve) == trial.until:
        trial.standing = "frozen"
    elif not method.goes_on(search, trial):
        trial.standing = "ended"


# ---- all searches -------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace, wanted: Sequence[Key]) -> dict[Key, dict[str, Any]]:
    """The results of ``wanted`` and whatever the file had, kept one by one."""
    results = _read(options.json)
    missing = [key for key in wanted if key not in results or len(results[key]["regrets"]) < options.runs]
    print(f"{len(missing)} of {len(wanted)} searches to simulate", flush=True)
    for key, found in _simulated(options, missing):
        results[key] = found
        _write(options.json, results)
        print(*key, *figures(found, options.runs), f"{found['seconds']:.3f} s", flush=True)
    return results


def _simulated(options: argparse.Namespace, keys: Sequence[Key]) -> Iterable[tuple[Key, dict[str, Any]]]:
    search = partial(simulate, options.tables, options.runs)
    if options.jobs == 1:
        yield from ((key, search(key)) for key in keys)
        return
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(search, key): key for key in keys}
        yield from ((futures[future], future.result()) for future in as_completed(futures))


def _read(path: Path) -> dict[Key, dict[str, Any]]:
    stored = json.loads(path.read_text()) if path.exists() else []
    return {tuple(row["key"]): row["found"] for row in stored}


def _write(path: Path, results: dict[Key, dict[str, Any]]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps([{"key": key, "found": found} for key, found in results.items()]))
    partial.replace(path)


# ---- seconds per choice ---------------------------------------------------------------------------------------------


def print_timing() -> None:
    """Seconds of processor time per choice in a space of 20 parameters, for a lone worker's study so far."""
    from petskin_tune.search.freeze_thaw.choice import choose
    from petskin_tune.search.freeze_thaw.state import SearchState, TrialRecord
    from petskin_tune.study.spec import Range

    rng = np.random.default_rng(0)
    parameters = [f"p{k}" for k in range(20)]
    for count in (60, 300, 1000):
        trials = []
        for number in range(count):
            place, epochs = rng.random(20), int(rng.choice([3, 6, 9, EPOCHS], p=[0.6, 0.2, 0.15, 0.05]))
            end = 0.5 - ((place[:4] - 0.3) ** 2).sum()
            curve = end * -np.expm1(-np.arange(1, epochs + 1) / 5) + 0.01 * rng.standard_normal(epochs)
            standing = "complete" if epochs == EPOCHS else "frozen" if number >= count - 10 else "ended"
            point = dict(zip(parameters, map(float, place), strict=True))
            trials.append(TrialRecord(number, point, tuple(map(float, curve)), standing))
        state = SearchState({name: Range(low=0, high=1) for name in parameters}, EPOCHS, tuple(trials))
        began = time.process_time()
        decision = choose(state)
        print(f"{count} trials, 20 parameters: {time.process_time() - began:.2f} s ({decision.why.rule})", flush=True)


if __name__ == "__main__":
    main()
