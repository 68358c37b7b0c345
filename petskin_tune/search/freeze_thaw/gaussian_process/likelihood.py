"""The negative logarithm of the marginal likelihood, and its gradient by the logarithms of the hyperparameters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from petskin_tune.search.freeze_thaw.gaussian_process.kernel import (
    Hyperparameters,
    Places,
    matern,
    offsets,
    squared_distances,
)

Array = NDArray[np.float64]
JITTER = 1e-8  # on the diagonal, in the model's units


class Likelihood:
    """Of n observations ``values`` at ``places``, each the mean of ``weights`` epochs.

    What does not change with the hyperparameters is computed once. Formulas: C. Rasmussen, C. Williams, Gaussian
    Processes for Machine Learning (2006), equations 5.8 and 5.9.
    """

    def __init__(self, places: Places, values: Array, weights: Array) -> None:
        self._places, self._values, self._weights = places, values, weights
        times, self._time = np.unique(places.time, return_inverse=True)
        self._between_times = np.abs(times[:, None] - times)
        self._elapsed = self._spread(self._between_times, self._time)
        self._same = (places.identity[places.row][:, None] == places.identity[places.row]).astype(float)
        self._offsets = offsets(places, places)
        self._of_trial = (np.arange(len(places.features))[:, None] == places.row).astype(float)

    def __call__(self, vector: Array) -> tuple[float, Array]:
        """½ z'K⁻¹z + ½ log det K and its gradient (d + 7,), at ``vector`` as in :class:`Hyperparameters`.

        Raises:
            numpy.linalg.LinAlgError: the covariance is not positive definite in floating-point numbers.
        """
        hyper = Hyperparameters.from_logarithms(vector)
        v = hyper.amplitudes**2
        kx_of_trials, slope = matern(squared_distances(hyper, self._places, self._places))
        kx = self._spread(kx_of_trials, self._places.row)
        kt = self._spread(np.exp(-self._between_times / hyper.time_length), self._time)
        noise = hyper.noise**2 / self._weights
        by_kt = v[0] + v[2] * kx + v[4] * self._same
        covariance = by_kt * kt + v[1] * kx + v[3] * self._same + self._offsets
        covariance[np.diag_indices_from(covariance)] += noise + JITTER

        value, inner = _value(covariance, self._values)
        inner_kt, inner_same = inner * kt, inner * self._same
        inner_kt_same = np.vdot(inner_same, kt)
        by_variance = [inner_kt.sum(), np.vdot(inner, kx), np.vdot(inner_kt, kx), inner_same.sum(), inner_kt_same]
        of_amplitudes = 2 * v * np.array(by_variance)
        of_time = np.vdot(inner_kt * self._elapsed, by_kt) / hyper.time_length
        of_noise = 2 * np.diagonal(inner) @ noise
        of_kx = self._of_trial @ (v[1] * inner + v[2] * inner_kt) @ self._of_trial.T
        return value, np.concatenate([self._of_lengths(hyper, of_kx * slope), of_amplitudes, [of_time, of_noise]])

    def _of_lengths(self, hyper: Hyperparameters, weights: Array) -> Array:
        """d/dlog l of Σ weights · r², where r² = Σ Δ²/l²: -2 Σ weights · Δ²/l², by parameter."""
        scaled = self._places.features / hyper.lengths[self._places.owners]
        sums = (weights.sum(0) + weights.sum(1)) @ scaled**2 - 2 * np.einsum("ik,ik->k", scaled, weights @ scaled)
        of_parameters = np.zeros(len(hyper.lengths))
        np.add.at(of_parameters, self._places.owners, sums)
        return -2 * of_parameters

    @staticmethod
    def _spread(table: Array, places: NDArray[np.intp]) -> Array:
        """``table`` of trials or times, (k, k), for every pair of observations, (n, n)."""
        return table.take(places, axis=0).take(places, axis=1)


def _value(covariance: Array, values: Array) -> tuple[float, Array]:
    """The value, and a matrix whose products with symmetric ones sum as those of ½ (K⁻¹ - K⁻¹zz'K⁻¹) do."""
    factor, failed = lapack.dpotrf(covariance, lower=1, clean=1)
    if failed:
        raise np.linalg.LinAlgError(f"the covariance of {len(values)} observations is not positive definite")
    solved, _ = lapack.dpotrs(factor, values, lower=1)
    lower, _ = lapack.dpotri(factor, lower=1)  # the lower triangle of K⁻¹, zero above: stands for both
    lower[np.diag_indices_from(lower)] *= 0.5
    value = 0.5 * values @ solved + np.log(np.diagonal(factor)).sum()
    return float(value), lower - 0.5 * np.outer(solved, solved)
