"""The next segment: of a frozen trial, or of a new one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from petskin_tune.language import figure
from petskin_tune.search.freeze_thaw.candidates import is_exhausted, propose_by_turns, random_point
from petskin_tune.search.freeze_thaw.gain import log_gain
from petskin_tune.search.freeze_thaw.gaussian_process.encoding import Encoding
from petskin_tune.search.freeze_thaw.gaussian_process.kernel import Places, own_covariance
from petskin_tune.search.freeze_thaw.gaussian_process.model import (
    ENOUGH,
    StudyModel,
    TooLittleKnown,
    generator,
    known_trials,
)
from petskin_tune.search.freeze_thaw.options import Proposal, can_go_on, shortlist, together
from petskin_tune.search.freeze_thaw.outlook import outlook
from petskin_tune.search.freeze_thaw.state import Begin, Continue, Decision, Point, Rule, SearchState, Why
from petskin_tune.study.rungs import next_rung

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

FIRST = 8  # configurations begun before there is a model


def choose(state: SearchState, propose: Proposal = propose_by_turns) -> Decision:
    """The next segment of a worker that is free: the same for the same state.

    Figures of ``why`` under the rule ``model``: ``mean`` and ``best_other`` (fitness expected at the last epoch, of
    this trial or point and of the best other trial), ``log_gain_per_epoch``, ``planned_epochs`` (up to the rung with
    the largest gain per epoch), ``frozen`` and ``candidates`` (that competed).

    Args:
        state: the study.
        propose: where new points come from; a benchmark chooses between the rows of a table.
    """
    if state.start:
        point = _completed(state, state.start[0])
        return Decision(Begin(point, state.rungs[0], start=True), Why("start", "a start point"))
    if _is_beginning(state):
        return _random(state, "first", f"one of the first {max(FIRST, state.workers)} configurations")
    try:
        with np.errstate(divide="raise", invalid="raise", over="raise"):
            return _modelled(StudyModel(state), propose)
    except TooLittleKnown as reason:
        return _random(state, "first", str(reason))
    except Exception as error:  # noqa: BLE001 - whatever it was, a worker must have something to train
        return _random(state, "fallback", f"the model failed: {type(error).__name__}: {error}")


def at_random(state: SearchState) -> Begin:
    """A random new trial up to its first rung, which takes no time to choose."""
    return Begin(_completed(state, {}), state.rungs[0])


def is_all_tried(state: SearchState) -> bool:
    """Whether every point of the space is one of the study's own trials."""
    encoding = Encoding(state.space)
    return encoding.size <= len(state.trials) and is_exhausted(encoding, _tried(state, encoding))


def _is_beginning(state: SearchState) -> bool:
    """Whether too little is known for a model: a few configurations, of more, unless foreign trials teach enough."""
    foreign = len(state.trials) - len(state.own)
    return not state.full and foreign < ENOUGH and len(state.trials) < max(FIRST, state.workers)


def _random(state: SearchState, rule: Rule, text: str) -> Decision:
    """A random new trial; where none may begin, the oldest that can go on."""
    if state.full:
        trial = next(trial for trial in state.trials if can_go_on(state, trial))
        until = next_rung(state.rungs, len(trial.curve)) or state.epochs
        return Decision(Continue(trial.number, until), Why(rule, f"{text}; no more trials may begin"))
    return Decision(at_random(state), Why(rule, text))


def _completed(state: SearchState, point: Point) -> Point:
    """``point`` with what it leaves out drawn at random; its values of names that are not searched left out."""
    encoding = Encoding(state.space)
    drawn = encoding.point(random_point(encoding, _tried(state, encoding), generator(state, "random")))
    return drawn | {name: value for name, value in point.items() if name in state.space}


def _tried(state: SearchState, encoding: Encoding) -> Array:
    """Coordinates (n, d) of the study's own trials; a foreign one can be begun here."""
    return encoding.coordinates([trial.point for trial in known_trials(state, encoding) if not trial.foreign])


def _modelled(model: StudyModel, propose: Proposal) -> Decision:
    state = model.state
    frozen = np.array([p for p, trial in enumerate(model.trials) if can_go_on(state, trial)], dtype=np.intp)
    leaving = [p for p, trial in enumerate(model.trials) if trial.standing == "leaving"]
    keep = _worth_keeping(model, np.array(sorted([*frozen, *leaving]), dtype=np.intp))
    fresh = np.empty((0, len(state.space))) if state.full else shortlist(model, propose)
    segments = _Segments(model, frozen, fresh)
    if not len(segments.rung):
        return _random(state, "first", "no trial can go on and all points were tried")
    won = int(np.argmax(segments.score))  # of equal ones the first: the lowest number, then the first candidate
    action = segments.action(won)
    if isinstance(action, Continue):
        keep = tuple(sorted({*keep, action.trial}))
    figures = segments.figures(won)
    why = Why("model", _text(action, figures), figures, model.lengths())
    return Decision(action, why, keep, outlook(model, frozen) if state.ahead else None)


def _text(action: Continue | Begin, figures: Mapping[str, float]) -> str:
    what = f"trial {action.trial} goes on" if isinstance(action, Continue) else "a new trial"
    mean, other = figure(figures["mean"], ".4f"), figure(figures["best_other"], ".4f")
    expected = f"expected to end at {mean}, the best other one at {other}"
    among = (
        f"the most to learn per epoch of {figures['frozen']:.0f} frozen trials and {figures['candidates']:.0f} points"
    )
    return f"{what}: {expected}; {among}"


def _worth_keeping(model: StudyModel, frozen: Indices) -> tuple[int, ...]:
    """Numbers of the frozen trials with the largest expected last epoch."""
    means = model.posterior.mean(model.at(frozen, model.state.epochs))
    best = frozen[np.argsort(-means, kind="stable")[: model.state.snapshots]]
    return tuple(sorted(model.trials[place].number for place in best))


class _Segments:
    """Every frozen trial and every new point, up to every rung ahead of it: arrays (s,) over these segments."""

    def __init__(self, model: StudyModel, frozen: Indices, fresh: Array) -> None:
        self._model, self._frozen, self._fresh = model, frozen, fresh
        trained = np.array([*(len(model.trials[place].curve) for place in frozen), *[0] * len(fresh)])
        rungs, landmarks = model.state.rungs, set(model.state.landmarks)
        pairs = [(who, rung) for who, n in enumerate(trained) for rung in _ahead(rungs, landmarks, int(n))]
        pairs = _within(model.state.reach, pairs, trained) or pairs
        self.who, self.rung = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        self.epochs = self.rung - trained[self.who]
        self._others = np.concatenate([_best_others(model, frozen), np.full(len(fresh), model.means.max())])
        last = together(model, frozen, fresh, np.arange(len(trained)), model.state.epochs)
        self._means = model.posterior.mean(last)
        ends = together(model, frozen, fresh, self.who, self.rung)
        sd = self._learnt(last, ends)
        self._gain = log_gain(np.abs(self._means - self._others)[self.who], sd)
        self.score = self._gain - np.log(self.epochs)

    def action(self, segment: int) -> Continue | Begin:
        """The first part of a segment: up to its next rung, where everything is decided again."""
        model, who = self._model, int(self.who[segment])
        if who >= len(self._frozen):
            return Begin(model.encoding.point(self._fresh[who - len(self._frozen)]), model.state.rungs[0])
        trial = model.trials[self._frozen[who]]
        return Continue(trial.number, next_rung(model.state.rungs, len(trial.curve)) or model.state.epochs)

    def _learnt(self, last: Places, ends: Places) -> Array:
        """Standard deviation of the change of a mean at the last epoch by an observation at the segment's end."""
        posterior, hyper = self._model.posterior, self._model.posterior.hyper
        of_last = posterior.whitened(last)[:, self.who]
        of_end = posterior.whitened(ends, shared=True)
        prior = own_covariance(hyper, last.time[self.who], ends.time, shared=False)
        covariance = prior - (of_last * of_end).sum(axis=0)
        variance = posterior.variance(ends, of_end, shared=True) + hyper.noise**2
        return np.maximum(np.abs(covariance) / np.sqrt(variance), 1e-12)

    def figures(self, segment: int) -> dict[str, float]:
        """Of one segment, see :func:`choose`."""
        who = self.who[segment]
        mean, other = self._model.fitness(np.array([self._means[who], self._others[who]]))
        return {
            "mean": float(mean),
            "best_other": float(other),
            "log_gain_per_epoch": float(self.score[segment]),
            "planned_epochs": float(self.epochs[segment]),
            "frozen": float(len(self._frozen)),
            "candidates": float(len(self._fresh)),
        }


def _ahead(rungs: tuple[int, ...], landmarks: Collection[int], trained: int) -> list[int]:
    """The rungs up to which a trial of ``trained`` epochs may be planned: its next one, and landmarks."""
    upcoming = next_rung(rungs, trained)
    return [rung for rung in rungs if rung > trained and (rung == upcoming or rung in landmarks)]


def _within(reach: int | None, pairs: list[tuple[int, int]], trained: Indices) -> list[tuple[int, int]]:
    """Those of the segments ``(who, rung)`` that take at most ``reach`` epochs."""
    return pairs if reach is None else [(who, rung) for who, rung in pairs if rung - trained[who] <= reach]


def _best_others(model: StudyModel, frozen: Indices) -> Array:
    """For each frozen trial the largest mean among all other contenders; its own where there is none."""
    order = np.argsort(-model.means, kind="stable")
    best, second = model.contenders[order[0]], order[min(1, len(order) - 1)]
    return np.array([model.means[second if place == best else order[0]] for place in frozen], dtype=float)
