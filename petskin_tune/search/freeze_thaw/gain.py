"""What a segment is worth: logarithms of expected improvement and knowledge gradient."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr

Array = NDArray[np.float64]

_BELOW, _FAR = -1.0, -100.0  # where one formula takes over from the other
_ROOT_HALF_PI = math.sqrt(math.pi / 2)
_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


def log_gain(distance: Array, sd: Array) -> Array:
    """log E[max(N(-distance, sd²), 0)], for ``sd`` above 0: elementwise.

    With the distance of a mean to the best other one, this is the expected improvement (distance with its sign: the
    best minus the mean) and the knowledge gradient (distance without its sign).
    """
    return np.log(sd) + _log_h(-distance / sd)


def _log_h(a: Array) -> Array:
    """log(φ(a) + aΦ(a)), without cancellation (S. Ament et al., Unexpected Improvements to Expected Improvement, 2023).

    Below -1 by the scaled complementary error function, far below by the asymptotic series 1/a² - 3/a⁴.
    """
    high, middle, low = np.maximum(a, _BELOW), np.clip(a, _FAR, _BELOW), np.minimum(a, _FAR)
    direct = np.log(np.exp(_log_density(high)) + high * ndtr(high))
    scaled = _log_density(middle) + np.log1p(middle * _ROOT_HALF_PI * erfcx(-middle / math.sqrt(2)))
    series = _log_density(low) - 2 * np.log(-low) + np.log1p(-3 / low**2)
    return np.where(a > _BELOW, direct, np.where(a > _FAR, scaled, series))


def _log_density(a: Array) -> Array:
    return -0.5 * a**2 - _LOG_ROOT_2PI
