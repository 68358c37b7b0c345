import dataclasses

import numpy as np
import pytest

from petskin_tune.search.freeze_thaw import recommend as module
from petskin_tune.search.freeze_thaw.recommend import finish, recommend
from petskin_tune.search.freeze_thaw.state import Continue
from tests.support.searches import end_of, rising, search_of, state, trial

NAN = float("nan")


def test_nothing_is_recommended_before_a_finite_value() -> None:
    assert recommend(state()) is None
    assert recommend(state(trial(0, [NAN], "diverged"), trial(1, [], "running"))) is None
    assert finish(state()) is None


def test_the_recommended_trial_is_among_the_best() -> None:
    asked = search_of(40)
    found = recommend(asked)
    ends = {one.number: end_of(one.point) for one in asked.trials}
    assert ends[found.number] >= sorted(ends.values())[-3]
    assert [one.mean for one in found.forecasts] == sorted((one.mean for one in found.forecasts), reverse=True)
    assert len(found.forecasts) == 40


def test_a_trial_that_diverged_is_not_recommended() -> None:
    trials = [rising(number, 9) for number in range(12)]
    best = recommend(state(*trials)).number
    diverged = [dataclasses.replace(one, standing="diverged") if one.number == best else one for one in trials]
    assert recommend(state(*diverged)).number != best


def test_with_one_trial_it_is_that_one() -> None:
    found = recommend(state(rising(3, 3)))
    assert (found.number, found.complete, found.forecasts) == (3, False, ())


def test_what_is_left_is_to_complete_the_recommended_trial() -> None:
    asked = search_of(40)
    number = recommend(asked).number
    frozen = [dataclasses.replace(one, standing="frozen") if one.number == number else one for one in asked.trials]
    frozen = [dataclasses.replace(one, curve=one.curve[:24]) if one.number == number else one for one in frozen]
    assert finish(state(*frozen)) == Continue(number, 27)
    complete = [
        dataclasses.replace(rising(one.number, 27), standing="complete") if one.number == number else one
        for one in asked.trials
    ]
    assert recommend(state(*complete)).complete
    assert finish(state(*complete)) is None


def test_what_cannot_go_on_is_not_finished() -> None:
    trials = [dataclasses.replace(rising(number, 9), standing="ended") for number in range(12)]
    assert finish(state(*trials)) is None
    assert finish(state(trial(0, [0.1, 0.2, 0.3]))) == Continue(0, 27)


def test_no_other_trial_is_finished_while_the_recommended_one_is_on_its_way_to_being_frozen() -> None:
    asked = search_of(40)
    number = recommend(asked).number
    leaving = [
        dataclasses.replace(one, curve=one.curve[:24], standing="leaving" if one.number == number else "frozen")
        for one in asked.trials
    ]
    assert recommend(state(*leaving)).number == number
    assert finish(state(*leaving)) is None
    frozen = [dataclasses.replace(one, standing="frozen") for one in leaving]
    assert finish(state(*frozen)) == Continue(number, 27)


def test_without_a_model_the_longest_and_best_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise np.linalg.LinAlgError("no")

    monkeypatch.setattr(module, "StudyModel", fails)
    trials = [trial(0, [0.9] * 3), trial(1, [0.2] * 9), trial(2, [0.3] * 9), trial(3, [0.5] * 9, "diverged")]
    found = recommend(state(*trials))
    assert found.number == 2
    assert "LinAlgError" in found.text


def test_a_complete_trial_is_compared_with_what_can_still_be_trained() -> None:
    """One that ended early is forecast higher, and nothing can bring it to its end."""
    best = rising(0, 24, "ended", lr0=1.0e-3, optimizer="AdamW")
    best = dataclasses.replace(best, curve=tuple(1.3 * value for value in best.curve))
    complete = rising(1, 27, "complete", lr0=1.1e-3, optimizer="AdamW")
    close = rising(2, 24, lr0=1.2e-3, optimizer="AdamW")
    close = dataclasses.replace(close, curve=tuple(1.05 * value for value in close.curve))
    others = [rising(number, 3, lr0=1e-5 * number, optimizer="SGD") for number in range(3, 12)]
    asked = state(best, complete, close, *others)
    found = recommend(asked)
    assert found.number == 0
    forecast = {one.number: one.mean for one in found.forecasts}
    margin = forecast[2] - forecast[1] + 1e-6
    assert forecast[0] - forecast[1] > margin > 1e-6
    assert finish(asked, clear=margin) is None
