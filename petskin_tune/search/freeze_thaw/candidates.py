"""New points to choose between: random ones, and ones near the best trials."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petskin_tune.search.freeze_thaw.gaussian_process.encoding import Encoding

Array = NDArray[np.float64]

RANDOM = 400
NEAR = 40  # around each of the best trials
_STEPS = (0.1, 0.03)  # standard deviations of a move, for half of the points each, in parts of a range
_AFAR = 0.5  # of the turns: only random points
_ATTEMPTS = 100
_MOSTLY_TRIED = 2  # a space of at most so many points for each tried one is looked through


def propose(encoding: Encoding, tried: Array, best: Array, rng: np.random.Generator) -> Array:
    """Coordinates (c, d) of points of the space that differ from each other and from the ``tried`` (n, d) ones.

    Args:
        encoding: of the space.
        tried: coordinates of the study's own trials.
        best: coordinates (b, d) of the trials near which to look, too.
        rng: the source of chance.

    Returns:
        Random points first. c is 0 where all points of a small space were tried.
    """
    dimensions = len(encoding.space)
    uniform = rng.random((RANDOM, dimensions))
    near = [_around(np.clip(centre, 0, 1), encoding.choices, rng) for centre in best]
    return _fresh(encoding.snapped(np.concatenate([uniform, *near])), tried)


def propose_by_turns(encoding: Encoding, tried: Array, best: Array, rng: np.random.Generator) -> Array:
    """As :func:`propose`, at some turns without the points near the best: these would win every comparison for long.

    So a search goes on looking where it knows little, and leaves a local optimum that is not the best one.
    """
    return propose(encoding, tried, best[:0] if rng.random() < _AFAR else best, rng)


def random_point(encoding: Encoding, tried: Array, rng: np.random.Generator) -> Array:
    """Coordinates (d,) of a random point, not among the ``tried`` ones (n, d) unless these are all there are."""
    drawn = encoding.snapped(rng.random((_ATTEMPTS, len(encoding.space))))
    fresh = _fresh(drawn, tried)
    if not len(fresh) and encoding.size <= _MOSTLY_TRIED * len(tried):
        fresh = rng.permutation(_fresh(encoding.every(), tried))
    return fresh[0] if len(fresh) else drawn[0]


def is_exhausted(encoding: Encoding, tried: Array) -> bool:
    """Whether all points of a finite space are among the ``tried`` ones (n, d)."""
    return encoding.size <= len(tried) and not len(_fresh(encoding.every(), tried))


def _around(centre: Array, choices: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """Shape (NEAR, d): numbers moved by normal steps, not beyond the ends; some choices drawn again.

    What lies beyond an end is moved onto it: the best mixup or dropout is often none.
    """
    shape = (NEAR, len(centre))
    steps = np.resize(_STEPS, NEAR)[:, None] * rng.standard_normal(shape)
    points = np.where(choices, centre, np.clip(centre + steps, 0, 1))
    redrawn = choices & (rng.random(shape) < 1 / max(len(centre), 1))
    return np.where(redrawn, rng.random(shape), points)


def _fresh(points: Array, tried: Array) -> Array:
    """``points`` in their order, without duplicates and without ``tried`` ones."""
    seen = {row.tobytes() for row in _rounded(tried)}
    kept = []
    for place, row in enumerate(_rounded(points)):
        if row.tobytes() not in seen:
            seen.add(row.tobytes())
            kept.append(place)
    return points[kept]


def _rounded(points: Array) -> Array:
    return np.round(points, 9) + 0.0  # no -0.0, which has other bytes
