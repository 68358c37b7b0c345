"""What a free worker may train: paused trials, and new points worth a comparison."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from petskin_tune.search.freeze_thaw.gain import log_gain
from petskin_tune.search.freeze_thaw.gaussian_process.encoding import Encoding
from petskin_tune.search.freeze_thaw.gaussian_process.kernel import Places, scaled_time
from petskin_tune.search.freeze_thaw.gaussian_process.model import StudyModel, generator
from petskin_tune.search.freeze_thaw.state import SearchState, TrialRecord

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_CENTRES = 3  # trials near which new points are looked for
SHORTLIST = 40  # new points that compete, those with the largest expected improvement

Proposal = Callable[[Encoding, Array, Array, np.random.Generator], Array]  # see `candidates.propose`


def can_go_on(state: SearchState, trial: TrialRecord) -> bool:
    """Whether a trial can be thawed."""
    return trial.standing == "frozen" and len(trial.curve) < state.epochs


def shortlist(model: StudyModel, propose: Proposal, most: int = SHORTLIST) -> Array:
    """Coordinates (at most ``most``, d) of the new points with the largest expected improvement at the last epoch."""
    centres = model.contenders[np.argsort(-model.means, kind="stable")[:_CENTRES]]
    rng = generator(model.state, "candidates")
    tried = model.coordinates[[not trial.foreign for trial in model.trials]]  # one of elsewhere can be begun here
    points = propose(model.encoding, tried, model.coordinates[centres], rng)
    if len(points) <= most:
        return points
    places = model.newcomers(points, np.arange(len(points)), model.state.epochs)
    variance = model.posterior.variance(places, model.posterior.whitened(places))
    improvement = log_gain(model.means.max() - model.posterior.mean(places), np.sqrt(variance))
    return points[np.sort(np.argsort(-improvement, kind="stable")[:most])]


def together(model: StudyModel, frozen: Indices, fresh: Array, who: Indices, epochs: Array | float) -> Places:
    """Places of ``who`` (frozen trials first, then new points) at epochs."""
    old = model.at(frozen, model.state.epochs)
    new = model.newcomers(fresh, np.arange(len(fresh)), model.state.epochs)
    return Places(
        features=np.concatenate([old.features[frozen], new.features]),
        owners=old.owners,
        identity=np.concatenate([old.identity[frozen], new.identity]),
        row=np.asarray(who, dtype=np.intp),
        time=scaled_time(np.broadcast_to(np.asarray(epochs, dtype=float), (len(who),)), model.state.epochs),
    )
