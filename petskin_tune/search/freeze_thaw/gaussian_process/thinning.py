"""Which observations a long study's model is made from: time grows with the cube of their number.

Trials of the study's own come before foreign ones: of thousands that were imported, some teach what all would.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petskin_tune.search.freeze_thaw.gaussian_process.observations import Observations

Array = NDArray[np.float64]

FITTED = 200  # observations that hyperparameters are fitted on
_FITTED_BEST = 25  # trials that are always among them
CONDITIONED = 1000  # observations from which on most trials count with their last one alone
_WHOLE_BEST = 64  # trials that count with all of theirs
MOST = 1500  # observations in all


def for_fit(seen: Observations, values: Array, own: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask (n,) of the best trials' observations and of random other trials', together at most FITTED.

    Args:
        seen: n observations.
        values: (n,) what they say, in the model's units.
        own: by place of a trial, whether it is the study's own.
        rng: the source of chance.
    """
    if len(seen) <= FITTED:
        return np.ones(len(seen), dtype=bool)
    return _up_to(seen, _order(seen, values, own, _FITTED_BEST, rng), FITTED)


def for_conditioning(
    seen: Observations, values: Array, own: NDArray[np.bool_], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Mask (n,): all, while they are few; then all of the best trials and the last one of (some of) the others.

    Args: as of :func:`for_fit`.
    """
    if len(seen) <= CONDITIONED:
        return np.ones(len(seen), dtype=bool)
    order = _order(seen, values, own, _WHOLE_BEST, rng)
    last = np.append(seen.trial[1:] != seen.trial[:-1], True)
    kept = last | np.isin(seen.trial, order[:_WHOLE_BEST])
    if kept.sum() > MOST:
        kept &= _up_to(seen, order, MOST, kept)
    return kept


def _order(
    seen: Observations, values: Array, own: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """The ``count`` trials with the best observation, then the others at random: the study's own, the foreign ones."""
    trials, place = np.unique(seen.trial, return_inverse=True)
    best = np.full(len(trials), -np.inf)
    np.maximum.at(best, place, values)
    order = np.argsort(-best, kind="stable")
    others = rng.permutation(np.sort(trials[order[count:]]))
    return np.concatenate([trials[order[:count]], others[np.argsort(~own[others], kind="stable")]])


def _up_to(
    seen: Observations, order: NDArray[np.intp], most: int, among: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """The observations (``among`` some) of the first trials of ``order`` that are together at most ``most``."""
    counts = np.bincount(seen.trial if among is None else seen.trial[among], minlength=int(seen.trial.max()) + 1)
    fitting = int((np.cumsum(counts[order]) <= most).sum())
    return np.isin(seen.trial, order[:fitting])
