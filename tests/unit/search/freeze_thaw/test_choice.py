import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petskin_tune.search.freeze_thaw import choice
from petskin_tune.search.freeze_thaw.choice import choose
from petskin_tune.search.freeze_thaw.gaussian_process.encoding import Encoding
from petskin_tune.search.freeze_thaw.recommend import finish, recommend
from petskin_tune.search.freeze_thaw.state import Begin, Continue, Decision, SearchState, TrialRecord
from petskin_tune.study.rungs import next_rung
from petskin_tune.study.spec import Choices, Range
from tests.support.searches import SPACE, end_of, rising, search_of, state, trial

NAN = float("nan")


def check(decision: Decision, asked: SearchState) -> None:
    """What holds of every decision, whatever the state."""
    action, why = decision.action, decision.why
    if isinstance(action, Begin):
        assert action.until == asked.rungs[0]
        assert action.point.keys() == asked.space.keys()
        assert Encoding(asked.space).knows(action.point)
        for name, searched in asked.space.items():
            value = action.point[name]
            assert not isinstance(searched, Range) or searched.low <= value <= searched.high
    else:
        [thawed] = [one for one in asked.trials if one.number == action.trial]
        assert thawed.standing == "frozen"
        assert len(thawed.curve) < action.until == next_rung(asked.rungs, len(thawed.curve))
    assert why.rule != "fallback", why.text
    assert all(math.isfinite(value) for value in [*why.figures.values(), *why.lengths.values()])
    frozen = {one.number for one in asked.trials if one.standing == "frozen"}
    assert decision.keep is None or set(decision.keep) <= frozen


def test_start_points_come_first_and_what_they_leave_out_is_drawn() -> None:
    asked = state(rising(0, 3), start=({"lr0": 1e-3, "cos_lr": True}, {"batch": 8}))
    decision = choose(asked)
    check(decision, asked)
    assert decision.why.rule == "start"
    assert decision.action.start
    assert decision.action.point["lr0"] == 1e-3


@pytest.mark.parametrize(("workers", "begun", "rule"), [(1, 7, "first"), (1, 8, "model"), (16, 15, "first")])
def test_the_first_configurations_are_random(workers: int, begun: int, rule: str) -> None:
    asked = search_of(begun, workers=workers)
    decision = choose(asked)
    check(decision, asked)
    assert decision.why.rule == rule


def test_the_same_state_gets_the_same_decision_in_any_order_of_trials() -> None:
    asked = search_of(25)
    first = choose(asked)
    assert choose(dataclasses.replace(asked, trials=asked.trials[::-1])) == choose(asked) == first
    others = [choose(dataclasses.replace(asked, trials=(), seed=seed)).action for seed in range(5)]
    assert len({tuple(other.point.items()) for other in others}) == 5


def test_where_every_point_was_tried_one_of_two_close_leaders_goes_on_to_its_next_rung() -> None:
    space = {"batch": Choices(choices=tuple(range(8)))}
    ends = [0.1, 0.12, 0.14, 0.45, 0.16, 0.18, 0.44, 0.2]
    trials = [TrialRecord(n, {"batch": n}, (0.05, end, end), "frozen") for n, end in enumerate(ends)]
    asked = SearchState(space, 27, tuple(trials))
    decision = choose(asked)
    check(decision, asked)
    assert decision.action in (Continue(3, 6), Continue(6, 6))
    assert decision.why.text.startswith(f"trial {decision.action.trial} goes on")
    assert decision.action.trial in decision.keep


def test_new_points_are_looked_for_where_trials_are_good() -> None:
    asked = search_of(40)
    trials = tuple(
        dataclasses.replace(one, standing="ended") if one.standing == "frozen" else one for one in asked.trials
    )
    decision = choose(dataclasses.replace(asked, trials=trials))
    assert isinstance(decision.action, Begin)
    assert end_of(decision.action.point) > np.quantile([end_of(one.point) for one in trials], 0.8)


def test_a_trial_without_a_snapshot_never_goes_on() -> None:
    trials = [dataclasses.replace(rising(number, 9), standing="ended") for number in range(20)]
    for seed in range(3):
        assert isinstance(choose(state(*trials, seed=seed)).action, Begin)


@pytest.mark.parametrize("snapshots", [3, 8])
def test_the_snapshots_of_the_most_promising_are_kept(snapshots: int) -> None:
    decision = choose(dataclasses.replace(search_of(40), snapshots=snapshots))
    assert decision.keep is not None
    assert snapshots <= len(decision.keep) <= snapshots + 1
    expected = {one.number: one.mean for one in recommend(search_of(40)).forecasts}
    frozen = [one.number for one in search_of(40).trials if one.standing == "frozen"]
    assert set(sorted(frozen, key=lambda number: -expected[number])[:snapshots]) <= set(decision.keep)


def test_while_a_trial_is_on_its_way_to_being_frozen_the_choice_is_the_one_that_was_made_over_it() -> None:
    for count in (12, 20, 40):
        frozen = search_of(count)
        made = choose(frozen)
        losers = [one.number for one in frozen.trials if one.standing == "frozen" and one.number in made.keep]
        loser = next(number for number in losers if made.action != Continue(number, getattr(made.action, "until", 0)))
        trials = [dataclasses.replace(t, standing="leaving") if t.number == loser else t for t in frozen.trials]
        again = choose(dataclasses.replace(frozen, trials=tuple(trials)))
        assert (again.action, again.keep) == (made.action, made.keep)


def test_workers_that_ask_one_after_the_other_train_different_segments() -> None:
    asked, actions = search_of(20, workers=16), []
    for _ in range(16):
        action = choose(asked).action
        check(choose(asked), asked)
        actions.append(action if isinstance(action, Continue) else tuple(action.point.items()))
        asked = _with_segment(asked, action)
    assert len(set(actions)) == 16
    assert sum(one.standing == "running" for one in asked.trials) == 16


def _with_segment(asked: SearchState, action: Begin | Continue) -> SearchState:
    if isinstance(action, Begin):
        new = TrialRecord(asked.next_number, action.point, (), "running", action.until)
        return dataclasses.replace(asked, trials=(*asked.trials, new))
    trials = tuple(
        dataclasses.replace(one, standing="running", until=action.until) if one.number == action.trial else one
        for one in asked.trials
    )
    return dataclasses.replace(asked, trials=trials)


ODD = {
    "no trials": (),
    "one trial": (rising(0, 9),),
    "all diverged at once": tuple(trial(n, [NAN], "diverged") for n in range(12)),
    "all out of memory": tuple(trial(n, [], "diverged") for n in range(12)),
    "all equal": tuple(trial(n, [0.25] * 6) for n in range(12)),
    "all zero": tuple(trial(n, [0.0] * 3) for n in range(12)),
    "constant curves": tuple(trial(n, [0.1 * n] * 9) for n in range(12)),
    "the same point again and again": tuple(
        trial(n, [0.1, 0.2, 0.2 + n / 100], lr0=1e-3, momentum=0.9, optimizer="SGD", batch=8) for n in range(12)
    ),
    "nan between numbers": tuple(trial(n, [0.1, NAN, 0.2, NAN, NAN, NAN, 0.3, 0.1, n]) for n in range(12)),
    "infinite": tuple(trial(n, [0.1, float("inf"), 0.2 + n, float("-inf")]) for n in range(12)),
    "half diverged": tuple(rising(n, 9) if n % 2 else trial(n, [0.1, 0.2, 0.3, NAN], "diverged") for n in range(12)),
    "one that did not diverge": (rising(0, 9), *(trial(n, [NAN], "diverged") for n in range(1, 12))),
    "far apart": tuple(trial(n, [0.0, 0.0, -(10.0**n)]) for n in range(18)),
    "longer than a run": tuple(rising(n, 60, "complete") for n in range(12)),
    "sixteen running": tuple(trial(n, [], "running", until=3) for n in range(16)),
    "sixteen of thirty running": tuple(rising(n, 3, "running" if n < 16 else "frozen") for n in range(30)),
    "nothing frozen": tuple(rising(n, 27, "complete") for n in range(12)),
}


@pytest.mark.parametrize("trials", ODD.values(), ids=ODD.keys())
def test_odd_studies_get_a_valid_decision(trials: tuple[TrialRecord, ...]) -> None:
    for asked in (state(*trials), state(*trials, sparse=True), state(*trials, epochs=100)):
        check(choose(asked), asked)


@pytest.mark.parametrize(
    "space",
    [{}, {"a": Choices(choices=(True, False))}, {"a": Range(low=0, high=1, integer=True)}],
    ids=["no parameter", "one choice", "two numbers"],
)
def test_a_space_that_was_tried_up_still_gets_a_decision(space: dict) -> None:
    points = [{name: n % 2 == 0 if isinstance(s, Choices) else n % 2 for name, s in space.items()} for n in range(10)]
    trials = [TrialRecord(n, point, (0.1, 0.2, 0.3), "complete") for n, point in enumerate(points)]
    asked = SearchState(space, 3, tuple(trials))
    check(choose(asked), asked)
    frozen = SearchState(space, 9, tuple(dataclasses.replace(one, standing="frozen") for one in trials))
    check(choose(frozen), frozen)


def test_a_model_that_fails_is_replaced_by_a_random_point_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(choice, "StudyModel", fails)
    decision = choose(search_of(20))
    assert isinstance(decision.action, Begin)
    assert decision.why.rule == "fallback"
    assert "LinAlgError: not positive definite" in decision.why.text
    assert decision.keep is None


# ---- any state ----------------------------------------------------------------------------------------------------

_VALUES = st.one_of(st.floats(0, 1), st.just(0.0), st.just(NAN), st.floats(-1e12, 1e12))
_SEARCHED = {
    "lr0": Range(low=1e-5, high=1e-1, log=True),
    "batch": Range(low=2, high=5, integer=True),
    "mosaic": Range(low=0.0, high=1.0, step=0.25),
    "optimizer": Choices(choices=("SGD", "AdamW")),
}


@st.composite
def states(draw: st.DrawFn) -> SearchState:
    space = {name: _SEARCHED[name] for name in draw(st.sets(st.sampled_from(sorted(_SEARCHED))))}
    epochs = draw(st.integers(1, 30))
    encoding = Encoding(space)
    trials = []
    for number in range(draw(st.integers(0, 14))):
        places = draw(st.lists(st.floats(0, 1), min_size=len(space), max_size=len(space)))
        standing = draw(st.sampled_from(["running", "frozen", "complete", "diverged", "ended"]))
        most = epochs - (standing in ("running", "frozen"))
        curve = draw(st.lists(_VALUES, min_size=epochs if standing == "complete" else 0, max_size=most))
        trials.append(TrialRecord(number, encoding.point(np.array(places)), tuple(curve), standing))
    return SearchState(
        space=space, epochs=epochs, trials=tuple(trials), warmup=draw(st.sampled_from([0, 1, 3])),
        seed=draw(st.integers(-5, 5)), workers=draw(st.sampled_from([1, 4])), sparse=draw(st.booleans()),
    )  # fmt: skip


@given(states())
@settings(max_examples=40)
def test_any_state_gets_a_valid_decision_and_recommendation(asked: SearchState) -> None:
    check(choose(asked), asked)
    found = recommend(asked)
    valued = {one.number for one in asked.trials if any(math.isfinite(value) for value in one.curve)}
    assert (found is None) == (not valued)
    assert found is None or found.number in valued
    last = finish(asked)
    assert last is None or last.until == asked.epochs


def test_a_run_of_one_segment_is_searched_too() -> None:
    asked = SearchState(SPACE, 1, tuple(rising(n, 1, "complete") for n in range(10)))
    decision = choose(asked)
    check(decision, asked)
    assert decision.action.until == 1


def test_of_a_few_configurations_that_have_all_begun_the_model_says_which_goes_on() -> None:
    trials = [rising(number, 3, lr0=1e-5, optimizer="SGD") for number in range(5)]
    trials.append(rising(5, 3, lr0=1e-3, optimizer="AdamW"))
    decision = choose(state(*trials, full=True))
    assert decision.why.rule == "model"
    assert isinstance(decision.action, Continue)
