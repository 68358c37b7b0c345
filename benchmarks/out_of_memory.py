"""How often a search runs out of memory when half of its batches do: Optuna as it is beside ours. Nothing is trained.

    python benchmarks/out_of_memory.py                     # 20 seeds, TPE and GP; minutes, nearly all of them GP's
    python benchmarks/out_of_memory.py --samplers tpe      # seconds

Fitness grows with the batch up to the edge of memory, which is what makes a sampler go there. A stock study tells an
out-of-memory error as what it is to Optuna, a failed trial, and samplers skip failed trials. Ours tells the violated
constraint `oom` (petskin_tune/search/constraints.py). After 10 random trials 50 more are drawn, one at a time.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from statistics import mean
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.search.samplers import draw
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.spec import Range, SamplerSpec, StudySpec

STARTUP, FURTHER = 10, 50  # trials
BATCHES = (4, 64)
TOO_LARGE = 34  # from here on a batch runs out of memory
TARGET = 22.0  # of FURTHER


def study_spec(sampler: Any, seed: int) -> StudySpec:
    return StudySpec(
        study="out-of-memory",
        model="yolov8l-seg.pt",
        data="none",
        epochs=27,
        search={
            "batch": Range(low=BATCHES[0], high=BATCHES[1], integer=True),
            "lr0": Range(low=1e-5, high=2e-2, log=True),
        },
        sampler=SamplerSpec(name=sampler, startup_trials=STARTUP),
        seed=seed,
    )


def fitness(batch: float, lr0: float) -> float:
    """Best at lr0 3e-4, and growing with the batch."""
    return 0.2 * math.exp(-(((math.log10(lr0) + 3.5) / 1.2) ** 2)) * batch / BATCHES[1]


def ours(sampler: str, seed: int) -> int:
    """Out-of-memory errors among the further trials, told as a constraint."""
    spec = study_spec(sampler, seed)
    trials: list[FrozenTrial] = []
    for number in range(STARTUP + FURTHER):
        drawn = draw(trials, number, spec)
        params, space = dict(drawn.params), dict(drawn.distributions)
        if too_large(params):
            trial = create_trial(
                state=TrialState.PRUNED,
                params=params,
                distributions=space,
                system_attrs=constraint_attrs("out-of-memory"),
            )
        else:
            trial = create_trial(
                value=fitness(**params), params=params, distributions=space, system_attrs=constraint_attrs(None)
            )
        trial.number = number
        trials.append(trial)
    return sum(too_large(trial.params) for trial in trials[STARTUP:])


def stock(sampler: str, seed: int) -> int:
    """The same of a plain Optuna study whose out-of-memory errors are failed trials."""
    makers: dict[str, Callable[..., optuna.samplers.BaseSampler]] = {
        "tpe": optuna.samplers.TPESampler,
        "gp": optuna.samplers.GPSampler,
    }
    study = optuna.create_study(direction="maximize", sampler=makers[sampler](seed=seed, n_startup_trials=STARTUP))
    space = distributions(study_spec(sampler, seed).search)
    for _ in range(STARTUP + FURTHER):
        trial = study.ask(space)
        if too_large(trial.params):
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, fitness(**trial.params))
    return sum(too_large(trial.params) for trial in study.trials[STARTUP:])


def too_large(params: dict[str, Any]) -> bool:
    return params["batch"] >= TOO_LARGE


def spread(counts: Iterable[int]) -> str:
    counts = sorted(counts)
    return f"{mean(counts):5.1f} ({counts[0]} to {counts[-1]})"


def prepare() -> None:
    """In a process that runs seeds: the helper processes of GP draws find their libraries imported."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    multiprocessing.set_forkserver_preload(["torch", "optuna._gp.acqf", "petskin_tune.search.samplers"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", choices=("tpe", "gp"), default=["tpe", "gp"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="seeds at the same time")
    options = parser.parse_args()
    print(
        f"out of memory in {FURTHER} trials after {STARTUP} random ones, mean of {options.seeds} seeds (least to most)"
    )
    print(f"{'sampler':8} {'stock Optuna (FAIL)':22} {'ours (constraint)':22} at most")
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn"), initializer=prepare) as pool:
        for sampler in options.samplers:
            counted = [
                list(pool.map(count, [sampler] * options.seeds, range(options.seeds))) for count in (stock, ours)
            ]
            print(f"{sampler:8} {spread(counted[0]):22} {spread(counted[1]):22} {TARGET:g}", flush=True)
            if mean(counted[1]) > TARGET:
                raise SystemExit(f"{sampler} misses the target")


if __name__ == "__main__":
    main()
