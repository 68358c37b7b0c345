"""What others search with, told to choose on the same tables."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from search_base import Method, Search, Segment, Trial
from search_tasks import EPOCHS

from petskin_tune.search import gaussian, pruners, samplers
from petskin_tune.search.pruners import Peer
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.spec import PrunerSpec, Range, StudySpec

PRUNERS = {
    "median": PrunerSpec(name="median", min_epochs=2),
    "hyperband": PrunerSpec(name="hyperband", min_epochs=3),
    "asha": PrunerSpec(name="asha", rungs=(3, 9)),
}
STARTUP = 10  # random configurations before a peer's model takes over
PROMOTED_RUNGS = (3, 9, EPOCHS)
REDUCTION = 3  # of those that reached a rung, one in so many is promoted
FITTED = 8  # configurations on a rung that a model is fitted on
FEW = 3  # epochs of everything, before the best is trained to the end
optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


class FewEpochs(Method):
    """A few epochs of everything, then the best to the end: half of the epochs for each, random configurations."""

    def next(self, search: Search) -> Segment:
        waiting = [trial for trial in search.trials if trial.standing == "frozen"]
        finished = sum(trial.until == EPOCHS for trial in search.trials)  # or on their way
        if waiting and (finished + 1) * (EPOCHS - FEW) <= FEW * len(search.trials):
            return max(waiting, key=lambda trial: (trial.curve[-1], -trial.number)), None, EPOCHS
        return (*super().next(search)[:2], FEW)


class Genetic(Method):
    """``model.tune()`` of the installed Ultralytics: its own ``_mutate``, shown the finished runs.

    It searches the same places in [0, 1] as everybody, in logarithms where a parameter is searched so, which its own
    bounds know nothing of. While nobody has finished, other workers mutate the defaults, as it does with MongoDB.
    """

    def draw(self, search: Search) -> np.ndarray:
        from ultralytics.engine.tuner import Tuner

        tuner = Tuner.__new__(Tuner)
        keys = [f"p{k}" for k in range(search.task.rows.shape[1])]
        default = dict(zip(keys, search.task.rows[search.task.default], strict=True))
        done = [trial for trial in search.trials if trial.standing in ("complete", "diverged")]
        results = [
            {"fitness": self._fitness(trial), "hyperparameters": dict(zip(keys, trial.place, strict=True))}
            for trial in done
        ] or [{"fitness": 0.0, "hyperparameters": default}]
        tuner.space = dict.fromkeys(keys, (0.0, 1.0))
        tuner.args, tuner.mongodb, tuner.prefix = SimpleNamespace(**default), None, ""
        tuner._load_local_results = lambda: results
        with _seeded(search.rng):
            found = tuner._mutate()
        return np.array([found[key] for key in keys])

    @staticmethod
    def _fitness(trial: Trial) -> float:
        return float(trial.best) if trial.standing == "complete" else 0.0


@contextmanager
def _seeded(rng: np.random.Generator) -> Iterator[None]:
    """Let ``numpy.random.default_rng()``, which Ultralytics calls without a seed, give ``rng``."""
    original = np.random.default_rng
    np.random.default_rng = lambda *_: rng  # type: ignore[assignment]
    try:
        yield
    finally:
        np.random.default_rng = original


class Tpe(Method):
    """Optuna's TPE as this project calls it, with one of its pruners (Optuna's rules, see search/pruners.py)."""

    def __init__(self, pruner: str = "none") -> None:
        self._pruner = PRUNERS.get(pruner, PrunerSpec(name="none"))

    def draw(self, search: Search) -> np.ndarray:
        number = len(search.trials)
        space = distributions(self._spec(search).search)
        known = [self._frozen(trial, space) for trial in search.trials]
        drawn, _ = self._sample(samplers.seed_of(search.task.seed, number), known, number, space)
        return np.array([drawn[name] for name in space])

    def _sample(self, seed: int, known: list[FrozenTrial], number: int, space: dict[str, Any]) -> tuple[Any, Any]:
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)
        return samplers.sample(sampler, known, number, space)

    def goes_on(self, search: Search, trial: Trial) -> bool:
        spec, epoch = self._spec(search), len(trial.curve)
        if self._pruner.name == "none" or not pruners.decides_at(spec, trial.number, epoch):
            return True
        peers = {
            other.number: Peer(other.curve[epoch - 1], other.standing == "complete")
            for other in search.trials
            if len(other.curve) >= epoch
        }
        return not pruners.verdict(spec, trial.number, epoch, dict(enumerate(trial.curve, 1)), peers).prune

    def _spec(self, search: Search) -> StudySpec:
        return StudySpec(
            study=search.task.name,
            model="",
            data="",
            epochs=EPOCHS,
            search={f"p{k:02}": Range(low=0, high=1) for k in range(search.task.rows.shape[1])},
            pruner=self._pruner,
            seed=search.task.seed,
        )

    @staticmethod
    def _frozen(trial: Trial, space: dict[str, Any]) -> FrozenTrial:
        state = {"running": TrialState.RUNNING, "complete": TrialState.COMPLETE}.get(trial.standing, TrialState.PRUNED)
        reported = {epoch: value for epoch, value in enumerate(trial.curve, 1) if np.isfinite(value)}
        return FrozenTrial(
            number=trial.number, state=state, value=trial.best if state == TrialState.COMPLETE else None,
            datetime_start=None, datetime_complete=None, trial_id=trial.number, distributions=space,
            params=dict(zip(space, map(float, trial.place), strict=True)), intermediate_values=reported,
            user_attrs={}, system_attrs={},
        )  # fmt: skip


class Gp(Tpe):
    """Optuna's GPSampler with full runs."""

    def _sample(self, seed: int, known: list[FrozenTrial], number: int, space: dict[str, Any]) -> tuple[Any, Any]:
        sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP, warn_independent_sampling=False)
        return samplers.sample(sampler, gaussian.as_complete(known), number, space)


class GpPromote(Method):
    """A Gaussian process by expected improvement and promotion at rungs 3 and 9: ASHA that never stops a trial.

    The model is fitted on the highest rung that 8 configurations have reached, BOHB's rule; it is scikit-learn's.
    """

    def next(self, search: Search) -> Segment:
        promoted = self._promotion(search)
        if promoted:
            return promoted, None, next(rung for rung in PROMOTED_RUNGS if rung > len(promoted.curve))
        return (*super().next(search)[:2], PROMOTED_RUNGS[0])

    def draw(self, search: Search) -> np.ndarray:
        rung = next((rung for rung in reversed(PROMOTED_RUNGS) if len(_reached(search, rung)) >= FITTED), None)
        if rung is None or len(search.trials) < STARTUP:
            return super().draw(search)
        known = _reached(search, rung)
        pool = _pool(search, max(known, key=lambda trial: trial.curve[rung - 1]).place)
        values = np.array([trial.curve[rung - 1] for trial in known])
        values = np.maximum(values, 2 * np.median(values) - values.max())
        return pool[_expected_improvement(np.array([trial.place for trial in known]), values, pool).argmax()]

    @staticmethod
    def _promotion(search: Search) -> Trial | None:
        for rung in reversed(PROMOTED_RUNGS[:-1]):
            ranked = sorted(_reached(search, rung), key=lambda trial: -trial.curve[rung - 1])
            for trial in ranked[: len(ranked) // REDUCTION]:
                if trial.standing == "frozen" and len(trial.curve) == rung:
                    return trial
        return None


def _reached(search: Search, rung: int) -> list[Trial]:
    return [trial for trial in search.trials if len(trial.curve) >= rung and np.isfinite(trial.curve[rung - 1])]


def _pool(search: Search, best: np.ndarray) -> np.ndarray:
    if search.task.mode == "continuous":
        near = np.clip(best + 0.1 * search.rng.standard_normal((100, len(best))), 0, 1)
        return np.concatenate([search.rng.random((400, len(best))), near])
    rows = search.free_rows()
    nearest = np.argsort(((rows - best) ** 2).sum(axis=1))[:60]
    return np.concatenate([search.rng.permutation(rows)[:400], rows[nearest]])


def _expected_improvement(known: np.ndarray, values: np.ndarray, pool: np.ndarray) -> np.ndarray:
    from scipy.stats import norm
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    kernel = ConstantKernel() * Matern(np.ones(known.shape[1]), (0.05, 20), nu=2.5) + WhiteKernel(0.05, (1e-4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = GaussianProcessRegressor(kernel, normalize_y=True).fit(known, values)
    mean, sd = fitted.predict(pool, return_std=True)
    gain = (mean - fitted.predict(known).max()) / np.maximum(sd, 1e-12)
    return np.maximum(sd, 1e-12) * (norm.pdf(gain) + gain * norm.cdf(gain))
