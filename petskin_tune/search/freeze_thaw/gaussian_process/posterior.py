"""The Gaussian process conditioned on observations, and on segments that other workers are training now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular

from petskin_tune.search.freeze_thaw.gaussian_process.kernel import Hyperparameters, Places, covariance, own_covariance
from petskin_tune.search.freeze_thaw.gaussian_process.likelihood import JITTER

Array = NDArray[np.float64]
_FIRST_REPAIR = 1e-6  # on the diagonal, where a Cholesky factor does not exist
_LEAST_VARIANCE = 1e-12


class Posterior:
    """Of n observations and p segments in progress.

    A segment in progress will be observed, nobody knows as what: it stands in at the posterior mean, which shrinks
    variances and moves no mean. So means come from the n observations alone.
    """

    def __init__(
        self, hyper: Hyperparameters, places: Places, values: Array, weights: Array, pending: Places | None = None
    ) -> None:
        self.hyper = hyper
        self._places = places
        self._all = places if pending is None else _joined(places, pending)
        weights = np.concatenate([weights, np.ones(len(self._all) - len(places))])
        matrix = covariance(hyper, self._all, self._all)
        matrix[np.diag_indices_from(matrix)] += hyper.noise**2 / weights + JITTER
        self._factor = cholesky(matrix)
        real = slice(0, len(places))
        self._solved = cho_solve((self._factor[real, real], True), values, check_finite=False)

    def mean(self, at: Places, *, shared: bool = False) -> Array:
        """Posterior mean of g, or of c + g where ``shared``; shape (len(at),)."""
        return covariance(self.hyper, at, self._places, shared=shared) @ self._solved

    def whitened(self, at: Places, *, shared: bool = False) -> Array:
        """L⁻¹k, shape (n + p, len(at)): products of its columns are what conditioning takes off a covariance."""
        return solve_triangular(
            self._factor, covariance(self.hyper, self._all, at, shared=shared), lower=True, check_finite=False
        )

    def variance(self, at: Places, whitened: Array, *, shared: bool = False) -> Array:
        """Posterior variance of g, or of c + g where ``shared``, without noise; shape (len(at),)."""
        prior = own_covariance(self.hyper, at.time, at.time, shared=shared)
        return np.maximum(prior - (whitened**2).sum(axis=0), _LEAST_VARIANCE)


def cholesky(matrix: Array) -> Array:
    """The lower factor; where rounding has left none, of the matrix with the least jitter that has one.

    Raises:
        numpy.linalg.LinAlgError: the matrix has entries that are not finite.
    """
    if not np.isfinite(matrix).all():
        raise np.linalg.LinAlgError("the covariance is not finite")
    jitter = 0.0
    while True:
        try:
            return np.asarray(np.linalg.cholesky(matrix + jitter * np.eye(len(matrix))), dtype=np.float64)
        except np.linalg.LinAlgError:
            jitter = 10 * jitter or _FIRST_REPAIR


def _joined(first: Places, second: Places) -> Places:
    return Places(
        features=np.concatenate([first.features, second.features]),
        owners=first.owners,
        identity=np.concatenate([first.identity, second.identity]),
        row=np.concatenate([first.row, second.row + len(first.features)]),
        time=np.concatenate([first.time, second.time]),
        scale=None if first.scale is None else np.concatenate([first.scale, np.zeros(len(second.features), np.intp)]),
    )
