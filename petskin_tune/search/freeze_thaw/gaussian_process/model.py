"""A study's model: its trials encoded and observed, hyperparameters fitted, the posterior at the last epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from petskin_tune.search.freeze_thaw.gaussian_process import thinning
from petskin_tune.search.freeze_thaw.gaussian_process.encoding import Encoding
from petskin_tune.search.freeze_thaw.gaussian_process.fit import Prior, fit
from petskin_tune.search.freeze_thaw.gaussian_process.kernel import Places, scaled_time
from petskin_tune.search.freeze_thaw.gaussian_process.likelihood import Likelihood
from petskin_tune.search.freeze_thaw.gaussian_process.observations import Observations, observe, transform
from petskin_tune.search.freeze_thaw.gaussian_process.posterior import Posterior
from petskin_tune.search.freeze_thaw.state import Forecast, SearchState, TrialRecord
from petskin_tune.study.rungs import next_rung

Array = NDArray[np.float64]
ENOUGH = 3  # trials with an observation, below which there is no model


class TooLittleKnown(Exception):
    """Fewer than ENOUGH trials have an observation, or none has a value."""


class StudyModel:
    """The posterior of one state of a study.

    Raises:
        TooLittleKnown: there is nothing to make a model of yet.
        numpy.linalg.LinAlgError: a value of the state is not usable as a number.
    """

    def __init__(self, state: SearchState) -> None:
        self.state = state
        self.encoding = Encoding(state.space)
        self.trials = known_trials(state, self.encoding)
        self.coordinates = self.encoding.coordinates([trial.point for trial in self.trials])
        self._features = self.encoding.features(self.coordinates)
        seen = observe(self.trials, state.rungs, state.warmup, state.landmarks)
        _check_enough(seen)
        self.transform = transform(self.trials, seen)
        self.contenders = self._contenders(seen)
        self.posterior = self._condition(seen)
        self.means = self.posterior.mean(self.at(self.contenders, self.state.epochs))

    def at(self, trials: NDArray[np.intp], epochs: Array | float) -> Places:
        """Places of trials (by their place among ``self.trials``) at epochs."""
        every = np.arange(len(self.trials))
        time = scaled_time(np.broadcast_to(np.asarray(epochs, dtype=float), (len(trials),)), self.state.epochs)
        return Places(self._features, self.encoding.owners, every, np.asarray(trials, dtype=np.intp), time)

    def newcomers(self, coordinates: Array, rows: NDArray[np.intp], epochs: Array | float) -> Places:
        """Places of ``rows`` of candidates, shape (c, d), at epochs: each a trial of its own."""
        identity = len(self.trials) + np.arange(len(coordinates))
        time = scaled_time(np.broadcast_to(np.asarray(epochs, dtype=float), (len(rows),)), self.state.epochs)
        return Places(self.encoding.features(coordinates), self.encoding.owners, identity, rows, time)

    def forecasts(self) -> tuple[Forecast, ...]:
        """Of all contenders at the last epoch, best first."""
        order = np.argsort(-self.means, kind="stable")
        places = self.at(self.contenders[order], self.state.epochs)
        means = self.posterior.mean(places, shared=True)
        whitened = self.posterior.whitened(places, shared=True)
        reach = 2 * np.sqrt(self.posterior.variance(places, whitened, shared=True))
        fitness = [self.transform.invert(means + sign * reach) for sign in (0, -1, 1)]
        numbers = [self.trials[place].number for place in self.contenders[order]]
        return tuple(Forecast(n, *map(float, row)) for n, *row in zip(numbers, *fitness, strict=True))

    def fitness(self, means: Array) -> Array:
        """Fitness at the last epoch, of posterior means of g there."""
        last = self.at(self.contenders[:1], self.state.epochs)
        course = self.posterior.mean(last, shared=True) - self.means[0]  # that all trials share
        return self.transform.invert(means + course)

    def lengths(self) -> dict[str, float]:
        """The fitted length of every parameter, by name."""
        return dict(zip(self.state.space, map(float, self.posterior.hyper.lengths), strict=True))

    def _contenders(self, seen: Observations) -> NDArray[np.intp]:
        """Trials with a value that did not diverge; of all with a value, where there is no such trial.

        Those of elsewhere are among them: their points can be begun here, and so are what others are compared with.
        """
        valued = np.unique(seen.trial[np.isfinite(seen.value)])
        healthy = [place for place in valued if self.trials[place].standing != "diverged"]
        return np.array(healthy, dtype=np.intp) if healthy else valued

    def _condition(self, seen: Observations) -> Posterior:
        rng = generator(self.state, "thinning")
        values = self.transform.apply(seen.value)
        if not np.isfinite(values).all():
            raise np.linalg.LinAlgError("the transformed observations are not finite")
        own = np.array([not trial.foreign for trial in self.trials])
        fitted = thinning.for_fit(seen, values, own, rng)
        likelihood = Likelihood(self._of(seen[fitted]), values[fitted], seen.weight[fitted])
        hyper = fit(likelihood, Prior.of(len(self.state.space), self.transform.noise))
        kept = thinning.for_conditioning(seen, values, own, rng)
        return Posterior(hyper, self._of(seen[kept]), values[kept], seen.weight[kept], self._pending())

    def _of(self, seen: Observations) -> Places:
        """Places of observations, with the features of their trials alone."""
        trials, row = np.unique(seen.trial, return_inverse=True)
        time = scaled_time(seen.epoch, self.state.epochs)
        scale = np.array([self.trials[place].scale for place in trials], dtype=np.intp)
        features = self._features[trials]
        return Places(features, self.encoding.owners, trials, row.reshape(-1), time, scale if scale.any() else None)

    def _pending(self) -> Places | None:
        running = [place for place, trial in enumerate(self.trials) if trial.standing == "running"]
        ends = [segment_end(self.trials[place], self.state.rungs) for place in running]
        return self.at(np.array(running, dtype=np.intp), np.array(ends, dtype=float)) if running else None


def _check_enough(seen: Observations) -> None:
    if not np.isfinite(seen.value).any():
        raise TooLittleKnown("no trial has reached a rung with a finite fitness")
    if (count := len(np.unique(seen.trial))) < ENOUGH:
        raise TooLittleKnown(f"{count} of {ENOUGH} trials have reached a rung or failed")


def known_trials(state: SearchState, encoding: Encoding) -> list[TrialRecord]:
    """By number, those that have a value for every parameter: others are of another space and tell nothing."""
    return sorted((trial for trial in state.trials if encoding.knows(trial.point)), key=lambda trial: trial.number)


def segment_end(trial: TrialRecord, rungs: Sequence[int]) -> int:
    """The epoch at which the segment of a running trial ends."""
    return trial.until or next_rung(tuple(rungs), len(trial.curve)) or rungs[-1]


def generator(state: SearchState, purpose: str) -> np.random.Generator:
    """The random numbers of one purpose: of the study's seed and the number of the next new trial."""
    digest = hashlib.sha256(f"{state.seed}:{state.next_number}:{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
