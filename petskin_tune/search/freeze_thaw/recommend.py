"""The trial to name as the best, and how to bring it to its last epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from petskin_tune.search.freeze_thaw.gaussian_process.model import StudyModel, TooLittleKnown
from petskin_tune.search.freeze_thaw.state import Continue, Forecast, SearchState, TrialRecord


@dataclass(frozen=True)
class Recommendation:
    """The trial whose last epoch is expected to be the best, of all that have a value and did not diverge."""

    number: int
    complete: bool
    forecasts: tuple[Forecast, ...]  # of all such trials, best first; empty where there was no model
    text: str


def recommend(state: SearchState) -> Recommendation | None:
    """The best trial of the study's own; None while none has a finite value.

    Where no model can be made it is the one with the best mean of three epochs among those trained longest.
    """
    try:
        with np.errstate(divide="raise", invalid="raise", over="raise"):
            model = StudyModel(state)
            own = {trial.number for trial in state.own}
            forecasts = tuple(forecast for forecast in model.forecasts() if forecast.number in own)
        if not forecasts:
            return _without_model(state, "no trial of the study itself has a forecast")
        return _of(state, forecasts[0].number, forecasts, "the largest expected fitness at the last epoch")
    except TooLittleKnown as reason:
        return _without_model(state, str(reason))
    except Exception as error:  # noqa: BLE001 - a report must not fail because a model does
        return _without_model(state, f"the model failed: {type(error).__name__}: {error}")


def finish(state: SearchState, clear: float = 0.0) -> Continue | None:
    """What is left to train when the budget is used up: the recommended trial up to its last epoch.

    Of the trials that are complete or can go on the best is taken; None where that one is complete, or on its way to
    being frozen: it can go on soon.

    Args:
        state: the study.
        clear: a complete trial whose forecast is at most so much lower is as good.
    """
    found = recommend(state)
    if found is None:
        return None
    standing = {trial.number: trial.standing for trial in state.trials}
    complete = max((one.mean for one in found.forecasts if standing[one.number] == "complete"), default=-np.inf)
    reachable = ("complete", "leaving", "frozen")  # of the others nothing more can come
    best = next((one.mean for one in found.forecasts if standing[one.number] in reachable), -np.inf)
    if complete > -np.inf and complete + clear >= best:
        return None
    for number in [forecast.number for forecast in found.forecasts] or [found.number]:
        if standing[number] in ("complete", "leaving"):
            return None
        if standing[number] == "frozen":
            return Continue(number, state.epochs)
    return None


def _of(state: SearchState, number: int, forecasts: tuple[Forecast, ...], text: str) -> Recommendation:
    complete = any(trial.number == number and trial.standing == "complete" for trial in state.trials)
    return Recommendation(number, complete, forecasts, text)


def _without_model(state: SearchState, text: str) -> Recommendation | None:
    rated = [(rating, trial.number) for trial in state.own if (rating := _rating(trial)) is not None]
    if not rated:
        return None
    return _of(state, max(rated, key=lambda one: (*one[0], -one[1]))[1], (), text)


def _rating(trial: TrialRecord) -> tuple[bool, int, float] | None:
    """Healthy before diverged, longer before shorter, then the mean of the last three finite epochs."""
    finite = [value for value in trial.curve if np.isfinite(value)]
    if not finite:
        return None
    return trial.standing != "diverged", len(finite), float(np.mean(finite[-3:]))
