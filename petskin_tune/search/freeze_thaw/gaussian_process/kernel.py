"""The covariance of fitness over (configuration, epoch).

With s = log(epoch) / log(last epoch), kt = exp(-|s - s'| / lt), and kx a Matern-5/2 kernel of the features with one
length per parameter, the model of a trial x at epoch t is

    z(x, t) = c(t) + g(x, t) + noise of variance sn² / weight
    cov c   = s0² kt                                                   the course that all trials share
    cov g   = (s1² + s2² kt) kx + [same trial] (s3² + s4² kt)          what tells configurations, and trials, apart

Observations that were measured on another scale than the study's have one more term in common, of the variance OFFSET²:
how high they all lie. It is theirs alone, so that nothing is concluded from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
AMPLITUDES = 5  # s0 ... s4
OFFSET = 1.0  # in the model's units: as much as configurations differ
_SQRT5 = math.sqrt(5)


@dataclass(frozen=True)
class Hyperparameters:
    """All positive; lengths in units of a parameter's whole range, amplitudes in units of the model."""

    lengths: Array  # (d,)
    amplitudes: Array  # (5,) s0 ... s4
    time_length: float  # lt
    noise: float  # sn, of one epoch

    @classmethod
    def from_logarithms(cls, vector: Array) -> Hyperparameters:
        """Of the vector (d + 7,) that is fitted: log l, log s0 ... log s4, log lt, log sn."""
        values = np.exp(vector)
        split = len(vector) - AMPLITUDES - 2
        return cls(values[:split], values[split:-2], float(values[-2]), float(values[-1]))


@dataclass(frozen=True)
class Places:
    """n places (trial, time), of m trials or candidates."""

    features: Array  # (m, D)
    owners: NDArray[np.intp]  # (D,) the parameter of each feature
    identity: NDArray[np.intp]  # (m,) equal for one and the same trial
    row: NDArray[np.intp]  # (n,) which of the m
    time: Array  # (n,) s, 0 to 1
    scale: NDArray[np.intp] | None = None  # (m,) on which each was measured; 0, or None of all: the study's

    def __len__(self) -> int:
        return len(self.row)


def scaled_time(epochs: Array, last: int) -> Array:
    """s of epochs 1 to ``last``: 0 to 1."""
    return np.log(epochs) / math.log(max(last, 2))


def covariance(hyper: Hyperparameters, left: Places, right: Places, *, shared: bool = True) -> Array:
    """Shape (len(left), len(right)), without noise; without c where not ``shared``."""
    variances = hyper.amplitudes**2
    kx = matern(squared_distances(hyper, left, right))[0][left.row[:, None], right.row]
    kt = np.exp(-np.abs(left.time[:, None] - right.time) / hyper.time_length)
    same = left.identity[left.row][:, None] == right.identity[right.row]
    found = (variances[1] + variances[2] * kt) * kx + same * (variances[3] + variances[4] * kt) + offsets(left, right)
    return found + variances[0] * kt if shared else found


def offsets(left: Places, right: Places) -> Array | float:
    """What the scales of measurement add to the covariance: shape (len(left), len(right)), or 0."""
    if left.scale is None or right.scale is None:
        return 0.0
    here, there = left.scale[left.row][:, None], right.scale[right.row]
    return OFFSET**2 * ((here == there) & (here > 0))


def own_covariance(hyper: Hyperparameters, time: Array, other: Array, *, shared: bool) -> Array:
    """Covariance of a trial with itself between times, elementwise."""
    variances = hyper.amplitudes**2
    kt = np.exp(-np.abs(time - other) / hyper.time_length)
    found = variances[1] + variances[3] + (variances[2] + variances[4]) * kt
    return found + variances[0] * kt if shared else found


def squared_distances(hyper: Hyperparameters, left: Places, right: Places) -> Array:
    """Shape (m of left, m of right): squared distances of features in units of the lengths."""
    scale = hyper.lengths[left.owners]
    a, b = left.features / scale, right.features / scale
    return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0.0)


def matern(squared: Array) -> tuple[Array, Array]:
    """Matern-5/2 of squared distances, and its derivative by the squared distance."""
    r = np.sqrt(squared)
    decay = np.exp(-_SQRT5 * r)
    return (1 + _SQRT5 * r + 5 / 3 * squared) * decay, -5 / 6 * (1 + _SQRT5 * r) * decay
