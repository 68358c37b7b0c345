"""Learning curves to search without training anything: LCBench's and TaskSet's tables, as tasks of 27 epochs.

The tables are no part of this project. A folder with files ``*.npz`` is expected, each with these arrays:

* ``log`` (parameters,): is a parameter searched on a log scale;
* ``X`` (configurations, parameters): of all its tasks; or ``TASK/X`` of one;
* ``TASK/accuracy`` or ``TASK/metric`` (configurations, epochs): better when larger; nan after divergence.

Measured with: ``lcbench.npz`` from the YAHPO surrogate of LCBench, ``taskset.npz`` from TaskSet (both Apache-2.0).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

EPOCHS = 27
NOISE = 0.02  # standard deviation of an epoch, of (best - 5 % quantile)
MOST_NOISE = 0.1  # the same, of (best - median): one table's worst configurations lie 1e18 below its best
DEFAULT = (0.60, 0.75)  # quantiles between which the start point lies
VALUES = ("accuracy", "metric")
MODES = ("plain", "rising", "yolo", "continuous")

# Of 192 public YOLO runs: an epoch's mask mAP50-95 has a noise of 0.007, where the best of a search lies a median of
# 0.0144 above the defaults (which are about its median); 90 % of the best are reached at 43 % of a run.
YOLO_NOISE = 0.007 / 0.0144  # standard deviation of an epoch, of (best - median)
YOLO_SHARE, YOLO_AT = 0.9, 0.43
NEIGHBOURS = 64  # rows that a point between rows is interpolated from


@dataclass(frozen=True)
class Task:
    """A table with d parameters, one seed's noise and start point. Fitness is better when larger."""

    name: str
    mode: str
    rows: np.ndarray  # (n, d) in [0, 1]: the parameters' places in their ranges, in logarithms where searched so
    curves: np.ndarray  # (n, EPOCHS) without noise
    noise: float  # standard deviation of one epoch
    default: int  # the row of the start point
    seed: int

    @property
    def last(self) -> np.ndarray:
        """(n,) last epochs without noise; -inf where the training diverged."""
        return np.where(np.isfinite(self.curves[:, -1]), self.curves[:, -1], -np.inf)

    def regret(self, place: np.ndarray) -> float:
        """(best - v) / (best - median) of the last epoch at ``place``: 0 is the table's best, 1 its median."""
        value = self.curve(place)[-1]
        floor = np.quantile(self.last[np.isfinite(self.last)], 0.05)
        value = value if np.isfinite(value) else floor
        return float((self.last.max() - value) / (self.last.max() - np.median(self.last)))

    def curve(self, place: np.ndarray) -> np.ndarray:
        """(EPOCHS,) without noise."""
        if self.mode == "continuous":
            return interpolated(self.rows, self.curves, place)
        return self.curves[self.nearest(place)]

    def observed(self, place: np.ndarray) -> np.ndarray:
        """(EPOCHS,) with the noise that this point has in this task and seed, whoever asks."""
        key = zlib.crc32(np.round(place, 9).tobytes())
        return self.curve(place) + self.noise * np.random.default_rng([self.seed, key]).standard_normal(EPOCHS)

    def nearest(self, place: np.ndarray, taken: set[int] | frozenset[int] = frozenset()) -> int:
        """The row nearest to ``place`` that is not ``taken``."""
        distance = ((self.rows - place) ** 2).sum(axis=1)
        distance[list(taken)] = np.inf
        return int(distance.argmin())


def names(folder: Path) -> dict[str, list[str]]:
    """The tasks by half: choices are made on ``dev``, ``test`` is for a last look."""
    found: dict[str, list[str]] = {"dev": [], "test": []}
    for file in sorted(folder.glob("*.npz")):
        for place, task in enumerate(sorted(_curves(_table(folder, file.stem)))):
            found["test" if place % 2 else "dev"].append(f"{file.stem}/{task}")
    return found


def load(folder: Path, name: str, seed: int, mode: str) -> Task:
    """One task with the noise and the start point of one seed."""
    file, _, task = name.partition("/")
    table = _table(folder, file)
    rows = _unit(table["X"] if "X" in table else table[f"{task}/X"], table["log"])
    raw = _curves(table)[task].astype(float)
    raw = np.where(np.isfinite(raw), raw, np.nan)
    points = raw.shape[1]
    places = np.arange(EPOCHS) if mode == "rising" else np.round(np.linspace(0, points - 1, EPOCHS)).astype(int)
    curves = raw[:, places]
    curves = yolo_shaped(curves) if mode == "yolo" else curves
    last = np.where(np.isfinite(curves[:, -1]), curves[:, -1], -np.inf)
    rng = np.random.default_rng(seed)
    low, high = (np.sort(last)[int(q * len(last))] for q in DEFAULT)
    default = int(rng.choice(np.flatnonzero((last >= low) & (last <= high))))
    if mode == "continuous":  # interpolation needs numbers
        curves = np.maximum(np.nan_to_num(curves, nan=-np.inf), np.nanquantile(curves, 0.02))
    return Task(name, mode, rows, curves, _noise(last, mode), default, seed)


def yolo_shaped(curves: np.ndarray) -> np.ndarray:
    """Curves that begin at the table's worst and rise as public YOLO runs do, on top of what the table says."""
    rate = -np.log(1 - YOLO_SHARE) / YOLO_AT
    risen = -np.expm1(-rate * np.arange(1, EPOCHS + 1) / EPOCHS)
    bottom = np.nanquantile(curves, 0.05)
    return bottom + (curves - bottom) * risen / risen[-1]


def interpolated(rows: np.ndarray, curves: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The curve between rows: a linear radial basis function of the nearest ones, inside of what they reach."""
    from scipy.interpolate import RBFInterpolator

    near = np.argsort(((rows - place) ** 2).sum(axis=1), kind="stable")[:NEIGHBOURS]
    value = RBFInterpolator(rows[near], curves[near], kernel="linear")(place[None])[0]
    return np.clip(value, curves[near].min(axis=0), curves[near].max(axis=0))


def _noise(last: np.ndarray, mode: str) -> float:
    to_median = last.max() - np.median(last)
    if mode == "yolo":
        return float(YOLO_NOISE * to_median)
    to_bottom = last.max() - np.quantile(last[np.isfinite(last)], 0.05)
    return float(min(NOISE * to_bottom, MOST_NOISE * to_median))


def _unit(values: np.ndarray, log: np.ndarray) -> np.ndarray:
    scaled = np.where(log, np.log(np.where(log, values, 1.0)), values)
    span = np.ptp(scaled, axis=0)
    return (scaled - scaled.min(axis=0)) / np.where(span > 0, span, 1.0)


def _curves(table: dict[str, Any]) -> dict[str, Any]:
    """The curves by task."""
    named = {key: key.rpartition("/") for key in table}
    return {task: table[key] for key, (task, _, value) in named.items() if value in VALUES}


@lru_cache
def _table(folder: Path, file: str) -> dict[str, Any]:
    with np.load(folder / f"{file}.npz") as stored:
        return {key: stored[key] for key in stored.files}
