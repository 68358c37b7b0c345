"""What curves say: values at rungs, and the transform that makes them fit for a Gaussian process."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from petskin_tune.search.freeze_thaw.state import TrialRecord
from petskin_tune.study.rungs import next_rung, ranked_from

Array = NDArray[np.float64]

WINDOW = 3  # epochs whose mean is a value
_DEPTH = 6.0  # a value counts at most so many times (best - middle) below the best
_LEAST = 1e-9  # of fitness
_NOISE_FLOOR = 3.0  # differences below so many standard deviations of the noise are none
_NORMAL_MEDIAN = 0.6745  # median of the absolute value of a standard normal
_ENOUGH = 10  # second differences for an estimate without the first epoch


@dataclass(frozen=True)
class Observations:
    """n observations, those of one trial together and by epoch, trials in the order given."""

    trial: NDArray[np.intp]  # (n,) place of its trial among those given
    epoch: Array  # (n,) rung, 1-based
    value: Array  # (n,) mean fitness of the last epochs up to the rung; nan where the trial diverged before it
    weight: Array  # (n,) epochs in that mean

    def __len__(self) -> int:
        return len(self.trial)

    def __getitem__(self, which: NDArray[np.bool_]) -> Observations:
        return Observations(self.trial[which], self.epoch[which], self.value[which], self.weight[which])


def observe(
    trials: Sequence[TrialRecord], rungs: tuple[int, ...], warmup: float, landmarks: tuple[int, ...] | None = None
) -> Observations:
    """One observation per trial and landmark that it reached, and one at its last rung.

    A diverged trial has one more, at the first rung that it did not reach, with weight 1 and no value.

    Args:
        trials: of the study.
        rungs: epochs at which a segment ends.
        warmup: epochs of warm-up.
        landmarks: the rungs at which curves are looked at; None: all.
    """
    seen, ranked = set(rungs if landmarks is None else landmarks), ranked_from(warmup)
    rows = [(place, *row) for place, trial in enumerate(trials) for row in _rows(trial, rungs, seen, ranked)]
    table = np.array(rows, dtype=float).reshape(len(rows), 4)
    return Observations(table[:, 0].astype(np.intp), table[:, 1], table[:, 2], table[:, 3])


def _rows(
    trial: TrialRecord, rungs: tuple[int, ...], seen: Collection[int], ranked: int
) -> list[tuple[float, float, float]]:
    windows = {
        rung: window
        for rung in rungs
        if rung <= len(trial.curve)
        and len(window := _finite(trial.curve[max(rung - WINDOW, min(ranked, rung) - 1) : rung]))
    }
    reached = max(windows, default=0)
    rows = [
        (float(rung), float(window.mean()), float(len(window)))
        for rung, window in windows.items()
        if rung in seen or rung == reached
    ]
    missing = next_rung(rungs, reached)
    if trial.standing == "diverged" and missing is not None:
        rows.append((float(missing), np.nan, 1.0))
    return rows


def _finite(values: Sequence[float] | Array) -> Array:
    array = np.array(values, dtype=float)
    return array[np.isfinite(array)]


@dataclass(frozen=True)
class Transform:
    """Fitness <-> what the model sees: linear above the middle, logarithmic below, mean 0 and standard deviation 1."""

    middle: float  # fitness that becomes 0 before standardisation
    scale: float  # fitness from there to 1
    floor: float  # fitness that a value counts at least
    failed: float  # fitness that a diverged trial counts
    mean: float
    sd: float
    noise: float  # standard deviation of one epoch's fitness, in the model's units

    def apply(self, fitness: Array) -> Array:
        """The model's units; nan becomes what a diverged trial counts."""
        filled = np.where(np.isnan(fitness), self.failed, np.maximum(fitness, self.floor))
        return (_warp((filled - self.middle) / self.scale) - self.mean) / self.sd

    def invert(self, modelled: Array) -> Array:
        """Fitness, of values in the model's units."""
        warped = np.asarray(modelled) * self.sd + self.mean
        return self.middle + self.scale * np.where(warped >= 0, warped, -np.expm1(-np.minimum(warped, 0)))


def transform(trials: Sequence[TrialRecord], seen: Observations) -> Transform:
    """The transform that suits ``seen``, of which at least one has a value.

    Plateaus (most points as bad as chance) and disasters far below the rest would else leave no room for the
    differences that matter, between good points.
    """
    known = seen.value[np.isfinite(seen.value)]
    best = float(known.max())
    middle = float(np.median(_last_values(trials, seen)))
    spread = max(best - middle, _LEAST)
    noise = epoch_noise(trials)
    scale = max(spread, _NOISE_FLOOR * noise)
    floor = max(best - _DEPTH * spread, float(known.min()))
    failed = min(floor, middle - scale)
    warped = _warp((np.where(np.isnan(seen.value), failed, np.maximum(seen.value, floor)) - middle) / scale)
    sd = float(warped.std())
    sd = sd if sd >= 1e-12 else 1.0
    return Transform(middle, scale, floor, failed, float(warped.mean()), sd, noise / (scale * sd))


def epoch_noise(trials: Sequence[TrialRecord]) -> float:
    """Standard deviation of fitness from one epoch to the next, robust: by second differences of all curves.

    The first epoch stays out, as soon as there are enough differences without it. Until then its rise counts as noise,
    up to 40 times too much, and the first choices explore. Estimates without that rise were no better: regret after 5
    runs .287 instead of .258 (benchmarks/search.py, 12 tasks x 2 seeds, not significant).
    """
    curves = [np.array(trial.curve, dtype=float) for trial in trials]
    curves = [np.where(np.isfinite(curve), curve, np.nan) for curve in curves]
    later = _second_differences(curves, 1)
    differences = later if len(later) >= _ENOUGH else _second_differences(curves, 0)
    differences = differences[differences != 0]  # nothing found yet, epoch after epoch, is no quiet measurement
    return float(np.median(np.abs(differences))) / _NORMAL_MEDIAN / 6**0.5 if len(differences) else 0.0


def _second_differences(curves: Sequence[Array], skipped: int) -> Array:
    """Those that are finite, of all curves without their first ``skipped`` epochs."""
    found = [np.diff(curve[skipped:], n=2) for curve in curves if len(curve) > skipped + 2]
    return _finite(np.concatenate(found)) if found else np.empty(0)


def _last_values(trials: Sequence[TrialRecord], seen: Observations) -> Array:
    """Each trial's last value; of those that did not diverge, where there is one."""
    known = np.isfinite(seen.value)
    last = dict(zip(seen.trial[known], seen.value[known], strict=True))
    healthy = [value for place, value in last.items() if trials[place].standing != "diverged"]
    return np.array(healthy or list(last.values()))


def _warp(scaled: Array) -> Array:
    return np.where(scaled >= 0, scaled, -np.log1p(-np.minimum(scaled, 0)))
