"""Hyperparameters: the maximum of the posterior density under log-normal priors, searched from the priors' means.

From the same start every time, so that a decision depends on the study alone and on no earlier decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from petskin_tune.search.freeze_thaw.gaussian_process.kernel import Hyperparameters
from petskin_tune.search.freeze_thaw.gaussian_process.likelihood import Likelihood

Array = NDArray[np.float64]

ITERATIONS = 40
_TOLERANCE = 1e-6  # of the logarithm of the density, relative
_IMPOSSIBLE = 1e10
_LENGTH = (0.0, 1.5)  # mean and standard deviation of the logarithm, of every length
_AMPLITUDES = ((0.0, 1.0), (-0.2, 0.7), (-0.9, 0.8), (-2.0, 0.8), (-2.0, 0.8))  # s0 ... s4
_TIME_LENGTH = (-0.3, 0.7)
_NOISE_SD = 0.3
_NOISE_RANGE = (0.005, 1.0)  # of the standard deviation of all observations
_BELOW, _ABOVE = 4.0, 3.0  # standard deviations that a logarithm may lie from its mean
_NOISE_REACH = 1.0  # of the noise's logarithm, to both sides


@dataclass(frozen=True)
class Prior:
    """Independent normal priors of the logarithms, and their bounds. Each of shape (d + 7,)."""

    mean: Array
    sd: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, dimensions: int, noise: float) -> Prior:
        """For ``dimensions`` parameters; ``noise`` is the standard deviation of an epoch seen in the curves."""
        noise_mean = float(np.log(np.clip(noise, *_NOISE_RANGE)))
        rows = [*[_LENGTH] * dimensions, *_AMPLITUDES, _TIME_LENGTH, (noise_mean, _NOISE_SD)]
        mean, sd = np.array(rows).T
        low, high = mean - _BELOW * sd, mean + _ABOVE * sd
        low[-1], high[-1] = noise_mean - _NOISE_REACH, noise_mean + _NOISE_REACH
        return cls(mean, sd, low, high)


def fit(likelihood: Likelihood, prior: Prior, iterations: int = ITERATIONS) -> Hyperparameters:
    """The most probable hyperparameters; the priors' means where the search finds nothing finite."""
    found = minimize(
        penalised(likelihood, prior),
        prior.mean,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(prior.low, prior.high, strict=True)),
        options={"maxiter": iterations, "ftol": _TOLERANCE},
    )
    good = np.isfinite(found.fun) and found.fun < _IMPOSSIBLE and np.isfinite(found.x).all()
    return Hyperparameters.from_logarithms(found.x if good else prior.mean)


def penalised(likelihood: Likelihood, prior: Prior) -> Callable[[Array], tuple[float, Array]]:
    """What is minimised: value and gradient; where there is none, a large number and zeros."""

    def objective(vector: Array) -> tuple[float, Array]:
        try:
            value, gradient = likelihood(vector)
        except (np.linalg.LinAlgError, FloatingPointError):
            return _IMPOSSIBLE, np.zeros_like(vector)
        off = (vector - prior.mean) / prior.sd
        value, gradient = value + 0.5 * float(off @ off), gradient + off / prior.sd
        if not (np.isfinite(value) and np.isfinite(gradient).all()):
            return _IMPOSSIBLE, np.zeros_like(vector)
        return value, gradient

    return objective
