"""What to train next in a study of the sampler ``freeze-thaw``: from Optuna's trials and our leases to a choice.

A pure function: equal trials and leases get the same choice, whichever worker asks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import count, takewhile
from statistics import median
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from petskin_tune.leases.segments import Begin, Choice, Continue
from petskin_tune.search.foreign import comparable, scales
from petskin_tune.search.freeze_thaw import choice, recommend
from petskin_tune.search.freeze_thaw.state import Continue as GoOn
from petskin_tune.search.freeze_thaw.state import Decision, SearchState, Standing, TrialRecord
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import ended, has_reached
from petskin_tune.study.failures import BAD_POINTS
from petskin_tune.study.foreign import Foreign, foreign_of
from petskin_tune.study.space.arguments import arguments
from petskin_tune.study.stored import enqueued_params, recorded
from petskin_tune.study.trials import failure_kind

if TYPE_CHECKING:
    from petskin_tune.leases.lease import Lease
    from petskin_tune.study.spec import StudySpec

A_WAITING_ONE = "a trial that waits"
BUDGET = "the budget is used up"
GOOD_ENOUGH = "the study has reached its `stop_at`"
ALL_BEGUN = "the study has all its configurations"
ALL_TRIED = "every point of the search space has been tried"
DAY = 86400.0  # seconds: how far an outlook looks
_OWNED = ("running", "released")  # states of the lease of a trial that somebody trains, or takes over


def choose(
    trials: Iterable[FrozenTrial],
    leases: Sequence[Lease],
    spec: StudySpec,
    asking: int | None = None,
    seconds: float | None = None,
    *,
    last_run: Mapping[str, int] | None = None,
    leave: Collection[int] = (),
) -> Choice:
    """The next segment; none while the last ones are trained, and none when the study has used up its budget or is
    as good as it is to become.

    As long as the budget lasts, a trial that waits comes before whatever the search would go on with.

    Args:
        trials: of the study.
        leases: of all its trials that have one.
        spec: of the study; its sampler is ``freeze-thaw``.
        asking: number of the running trial that has reached the end of its segment; it may be chosen.
        seconds: that are left to whoever asks, where somebody limits them: what can be done in them is preferred.
        last_run: as the study keeps it, see ``attributes.LAST_RUN``.
        leave: numbers of the trials that whoever asks cannot go on with. Others can: none of them is dropped for it.
    """
    held, trials = {lease.number: lease for lease in leases}, list(trials)
    if has_reached(spec.stop_at, trials):
        return Choice(None, reason=GOOD_ENOUGH)
    state = _state(trials, held, spec, asking)
    if (good := _good_enough(state, spec.stop_at)) is not None:
        return _last_run(state, GOOD_ENOUGH, leave=leave, trial=good)
    if pace := seconds_per_epoch(trials):
        reach = None if seconds is None else max(0, int(seconds / pace))
        state = replace(state, reach=reach, ahead=int(state.workers * DAY / pace))
    ours = state.own
    paid = [record for record in ours if record.number in held]
    if used(paid) >= (spec.budget or math.inf):
        return Choice(None, reason=BUDGET) if _is_made(last_run, state) else _last_run(state, leave=leave)
    paused = {record.number for record in ours if record.standing == "frozen"}
    frozen = paused - set(leave)
    waits = _begun(state, held) < spec.target_trials and any(trial.state == TrialState.WAITING for trial in trials)
    if state.full and not frozen and not waits:
        why = ALL_TRIED if _begun(state, held) < spec.target_trials else ALL_BEGUN
        return Choice(None, reason=f"{why}, and none is paused that is not left to others", left=tuple(sorted(paused)))
    if waits and (not frozen or len(paused) <= spec.keep_frozen):  # and so no snapshot is to be chosen either
        return Choice(_segment(choice.at_random(state)), reason=A_WAITING_ONE)
    decision = choice.choose(state)
    outlook = decision.outlook
    if outlook and spec.stop_when is not None and outlook.chance < spec.stop_when and not waits:
        why = f"within a day there is a chance of {outlook.chance:.1%} of more"
        return _last_run(state, why, clear=outlook.noise, leave=leave)
    if _number(decision.action) in leave:
        decision = choice.choose(_without(state, leave))
    drop = () if decision.keep is None else tuple(sorted(frozen - set(decision.keep) - {_number(decision.action)}))
    found = None if outlook is None else asdict(outlook)
    if waits and isinstance(decision.action, GoOn):
        return Choice(_segment(choice.at_random(state)), drop, A_WAITING_ONE, found)
    return Choice(_segment(decision.action), drop, decision.why.text, found)


def first_choice(trials: Iterable[FrozenTrial], leases: Sequence[Lease], spec: StudySpec) -> Decision:
    """What a worker that is free would begin with now, had it not to go on with anything: for people.

    Args:
        trials: of the study; those that wait are passed over.
        leases: of all its trials that have one.
        spec: of the study; its sampler is ``freeze-thaw``.
    """
    return _first_choice(_state(trials, {lease.number: lease for lease in leases}, spec))


def _first_choice(state: SearchState) -> Decision:
    settled = tuple(replace(t, standing="ended") if t.standing == "frozen" else t for t in state.trials)
    return choice.choose(replace(state, trials=settled, full=False))


def recommendation(trials: Iterable[FrozenTrial], leases: Sequence[Lease], spec: StudySpec) -> dict[str, Any] | None:
    """What a study that has ended keeps as its best trial; None where no trial has a value.

    Args:
        trials: of the study; those that can go on no more are judged as well.
        leases: of all its trials that have one.
        spec: of the study; its sampler is ``freeze-thaw``.
    """
    trials = list(trials)
    found = recommend.recommend(_state(trials, {lease.number: lease for lease in leases}, spec))
    if found is None:
        return None
    complete = {trial.number for trial in trials if trial.state == TrialState.COMPLETE}
    order = [forecast.number for forecast in found.forecasts] or [found.number]
    first = next((number for number in order if number in complete), found.number)
    return {"trial": first, "ended": ended(trials), "reason": found.text}


def promised(trials: Iterable[FrozenTrial], leases: Sequence[Lease], spec: StudySpec) -> dict[int, float]:
    """The mask mAP that each own trial is expected to end with, by number; where no model knows, its best so far.

    Args:
        trials: of the study.
        leases: of all its trials that have one.
        spec: of the study.
    """
    state = _state(trials, {lease.number: lease for lease in leases}, spec)
    found = recommend.recommend(state)
    forecasts = {} if found is None else {forecast.number: forecast.mean for forecast in found.forecasts}
    return {trial.number: forecasts.get(trial.number, _highest(trial)) for trial in state.own}


def _state(
    trials: Iterable[FrozenTrial], held: Mapping[int, Lease], spec: StudySpec, asking: int | None = None
) -> SearchState:
    seen = [trial for trial in comparable(trials) if _tells(trial)]
    scale = scales(seen)
    records = [
        replace(_record(trial, held.get(trial.number), asking), scale=scale.get(trial.number, 0)) for trial in seen
    ]
    state = SearchState(
        space=spec.search,
        epochs=spec.epochs,
        trials=tuple(sorted(records, key=lambda record: record.number)),
        warmup=_warm_up(spec),
        pauses=spec.sampler.rungs or (),
        seed=spec.seed,
        snapshots=spec.keep_frozen,
        workers=1 + sum(record.standing == "running" for record in records),
    )
    return replace(state, full=_begun(state, held) >= spec.target_trials or choice.is_all_tried(state))


def _begun(state: SearchState, held: Collection[int]) -> int:
    """How many configurations workers have begun."""
    return sum(record.number in held for record in state.trials)


def _good_enough(state: SearchState, stop_at: float | None) -> TrialRecord | None:
    """The best trial that has reached ``stop_at`` and can be trained to its end, as what counts is one that was."""
    going = [trial for trial in state.own if trial.standing in ("running", "leaving", "frozen")]
    best = max(going, key=lambda trial: (_highest(trial), -trial.number), default=None)
    return best if best is not None and stop_at is not None and _highest(best) >= stop_at else None


def _highest(trial: TrialRecord) -> float:
    return max(filter(math.isfinite, trial.curve), default=-math.inf)


def seconds_per_epoch(trials: Iterable[FrozenTrial]) -> float | None:
    """What an epoch takes, as a median over the trials that say so."""
    paces = []
    for trial in trials:
        known = recorded(trial)
        if (epochs := known.get(attributes.EPOCHS)) and (seconds := known.get(attributes.SECONDS)):
            paces.append(seconds / epochs)
    return median(paces) if paces else None


def used(ours: Iterable[TrialRecord]) -> int:
    """Epochs of our trials that are trained, or will be before their workers ask again."""
    return sum(
        max(len(trial.curve), trial.until or 0) if trial.standing == "running" else len(trial.curve) for trial in ours
    )


def _last_run(
    state: SearchState,
    why: str = BUDGET,
    *,
    clear: float = 0.0,
    leave: Collection[int] = (),
    trial: TrialRecord | None = None,
) -> Choice:
    """The recommended trial up to its last epoch, once nothing else is trained.

    Args:
        state: the study.
        why: it ends.
        clear: by how much a trial must be expected to end above the best complete one.
        leave: see :func:`choose`. Where it is one of them, no other one is trained in its place.
        trial: the one to train, whatever is recommended, and at once; None: the recommended one.
    """
    if any(other.standing == "running" for other in (state.trials if trial is None else [trial])):
        return Choice(None, reason=why)
    if trial is None:
        last = recommend.finish(state, clear)
    else:
        last = GoOn(trial.number, state.epochs) if trial.standing == "frozen" else None
    if last is None:
        return Choice(None, reason=f"{why}, and the best trial is complete, or not quite frozen")
    if last.trial in leave:
        return Choice(None, reason=f"{why}, and the best trial is left to others", left=(last.trial,))
    (epochs,) = (len(trial.curve) for trial in state.own if trial.number == last.trial)
    why = f"{why}: the best trial is trained to its end"
    return Choice(_segment(last), reason=why, last_run={"trial": last.trial, "epochs": epochs})


def _is_made(last_run: Mapping[str, int] | None, state: SearchState) -> bool:
    """Whether the last run has ended: it is made once.

    One that has trained nothing, or has failed while no trial at all is complete, is none.
    """
    trial = next((trial for trial in state.own if last_run and trial.number == last_run["trial"]), None)
    if trial is None or last_run is None or trial.standing in ("running", "leaving", "frozen"):
        return False
    complete = any(other.standing == "complete" for other in state.own)
    return complete and len(trial.curve) > last_run["epochs"]


def _without(state: SearchState, leave: Collection[int]) -> SearchState:
    """The study for somebody who cannot go on with the trials ``leave``: as if they were not quite frozen."""
    trials = (
        replace(trial, standing="leaving") if trial.standing == "frozen" and trial.number in leave else trial
        for trial in state.trials
    )
    return replace(state, trials=tuple(trials))


def _segment(action: Any) -> Begin | Continue:
    return Continue(action.trial, action.until) if isinstance(action, GoOn) else Begin(action.point, action.until)


def _number(action: Any) -> int | None:
    return action.trial if isinstance(action, GoOn) else None


def _tells(trial: FrozenTrial) -> bool:
    return trial.state != TrialState.WAITING


def _record(trial: FrozenTrial, lease: Lease | None, asking: int | None) -> TrialRecord:
    if foreign := foreign_of(trial):
        return _foreign_record(trial, foreign)
    standing = _standing(trial, lease, asking)
    until = lease.until if lease and standing == "running" else None
    return TrialRecord(trial.number, _point(trial), _curve(trial.intermediate_values), standing, until)


def _foreign_record(trial: FrozenTrial, foreign: Foreign) -> TrialRecord:
    """An imported run: epochs of which nothing is known, all but the last of one without a curve, are nan."""
    standing: Standing = "complete" if trial.state == TrialState.COMPLETE else "ended"
    known = trial.intermediate_values
    curve = tuple(known.get(epoch, math.nan) for epoch in range(1, max(known, default=0) + 1))
    return TrialRecord(trial.number, _point(trial), curve, "diverged" if foreign.diverged else standing, foreign=True)


def _standing(trial: FrozenTrial, lease: Lease | None, asking: int | None) -> Standing:
    if trial.state == TrialState.COMPLETE:
        return "complete"
    if trial.state != TrialState.RUNNING:
        return "diverged" if failure_kind(trial) in BAD_POINTS else "ended"
    if trial.number == asking:
        return "frozen"
    if lease is None:
        return "ended"  # a person's own, in a notebook: whatever becomes of it, it is not ours to continue
    if lease.state in _OWNED:
        return "leaving" if lease.until == 0 else "running"
    return "frozen" if lease.state == "frozen" and lease.snapshot else "ended"


def _point(trial: FrozenTrial) -> Mapping[str, Any]:
    return {**enqueued_params(trial), **trial.params}


def _curve(values: Mapping[int, float]) -> tuple[float, ...]:
    """Fitness of epochs 1, 2, ... up to the first that is missing."""
    return tuple(values[epoch] for epoch in takewhile(values.__contains__, count(1)))


def _warm_up(spec: StudySpec) -> float:
    return float(spec.train.get("warmup_epochs", arguments()["warmup_epochs"].default))
