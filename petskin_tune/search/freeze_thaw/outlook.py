"""What more epochs may still bring, by the model's own posterior."""

from __future__ import annotations

import numpy as np

from petskin_tune.search.freeze_thaw.candidates import propose
from petskin_tune.search.freeze_thaw.gaussian_process.kernel import covariance
from petskin_tune.search.freeze_thaw.gaussian_process.model import StudyModel, generator
from petskin_tune.search.freeze_thaw.gaussian_process.observations import epoch_noise
from petskin_tune.search.freeze_thaw.gaussian_process.posterior import cholesky
from petskin_tune.search.freeze_thaw.options import SHORTLIST, Array, Indices, shortlist, together
from petskin_tune.search.freeze_thaw.state import Outlook

_DRAWS = 2000  # of all ends together: a chance of 5 % is known to half a percent
_JITTER = 1e-9


def outlook(model: StudyModel, frozen: Indices) -> Outlook | None:
    """What the epochs that the state looks ahead may bring; None while no own trial has a value.

    A foreign trial is nothing that the study has: a new one at its point may still be all that is to be found.

    Args:
        model: of the study.
        frozen: places of the trials that can go on.
    """
    best = _best_own(model)
    if best is None:
        return None
    ahead, noise = model.state.ahead, epoch_noise(model.trials)
    begun = 0 if model.state.full else min(ahead // model.state.rungs[0], SHORTLIST)
    fresh = shortlist(model, propose, begun) if begun else np.empty((0, len(model.state.space)))
    others = frozen[frozen != best] if ahead else frozen[:0]
    ends = _ends(model, np.concatenate([[best], others]).astype(np.intp), fresh)
    gain = ends[:, 1:].max(axis=1, initial=-np.inf) - ends[:, 0]
    return Outlook(float((gain > noise).mean()), noise, ahead)


def _best_own(model: StudyModel) -> int | None:
    """Place of the own contender with the largest mean."""
    own = [row for row, place in enumerate(model.contenders) if not model.trials[place].foreign]
    return int(model.contenders[max(own, key=lambda row: model.means[row])]) if own else None


def _ends(model: StudyModel, trials: Indices, fresh: Array) -> Array:
    """Fitness at the last epoch, shape (draws, trials + new points), drawn from the joint posterior."""
    places = together(model, trials, fresh, np.arange(len(trials) + len(fresh)), model.state.epochs)
    whitened = model.posterior.whitened(places)
    joint = covariance(model.posterior.hyper, places, places, shared=False) - whitened.T @ whitened
    factor = cholesky(joint + _JITTER * np.eye(len(joint)))
    normal = generator(model.state, "outlook").standard_normal((_DRAWS, len(joint)))
    return model.fitness(model.posterior.mean(places) + normal @ factor.T)
