"""The interval is Welch's, and the sentence says what it shows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_ind

from petskin_tune.study.best.gain import Gain, Interval, Repeats, welch

OURS, THEIRS = [0.3120, 0.2980, 0.3054], [0.2702, 0.2811, 0.2597]
values = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def gain(ours: list[float], theirs: list[float], **changes: Any) -> Gain:
    known: dict[str, Any] = {"trial": 17, "against": "defaults", "best": ours, "defaults": theirs}
    return Gain(**known | changes)


def of_scipy(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    found = ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return found.low, found.high


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(OURS, THEIRS), (THEIRS, OURS), ([0.3, 0.31], [0.2, 0.4, 0.3, 0.25]), ([0.3, 0.3, 0.3001], [0.2, 0.21])],
    ids=["three of each", "the other way round", "two and four", "one side nearly without noise"],
)
def test_the_interval_is_the_one_of_scipy(ours: list[float], theirs: list[float]) -> None:
    found = welch(ours, theirs)
    assert (found.low, found.high) == pytest.approx(of_scipy(ours, theirs), abs=1e-12)
    assert found.difference == pytest.approx((found.low + found.high) / 2, abs=1e-12)


@given(ours=values, theirs=values)
def test_whatever_was_measured_the_interval_holds_its_difference(ours: list[float], theirs: list[float]) -> None:
    found = welch(ours, theirs)
    assert found.low <= found.difference <= found.high


def test_trainings_that_are_all_alike_leave_no_doubt() -> None:
    assert welch([0.25, 0.25], [0.25, 0.25, 0.25]) == Interval(0.0, 0.0, 0.0)
    assert gain([0.25] * 2, [0.25] * 2).verdict == "noise"


def test_a_gain_beyond_the_interval_is_more_than_noise() -> None:
    low, high = of_scipy(OURS, THEIRS)
    assert gain(OURS, THEIRS).sentence() == (
        "trial 17 beside Ultralytics' defaults, each trained again under 3 further seeds: "
        f"a gain of 0.0348 (95% interval {low:.4f} to {high:.4f}), more than noise"
    )


def test_a_difference_within_the_interval_is_called_noise_on_either_side() -> None:
    near = [0.29, 0.31, 0.27]
    better, worse = gain(OURS, near).sentence(), gain(near, OURS).sentence()
    low, high = of_scipy(OURS, near)
    assert better.endswith(f"a gain of 0.0151 (95% interval {low:.4f} to {high:.4f}), within noise")
    assert worse.endswith(f"a loss of 0.0151 (95% interval {low:.4f} to {high:.4f}), within noise")


def test_a_loss_beyond_the_interval_says_who_is_better() -> None:
    low, high = of_scipy(OURS, THEIRS)
    said = f"a loss of 0.0348 (95% interval {low:.4f} to {high:.4f})"
    assert gain(THEIRS, OURS).sentence().endswith(f"{said}: the defaults are better")
    of_a_point = gain(THEIRS, OURS, against="start point").sentence()
    assert of_a_point.startswith("trial 17 beside the start point, each trained")
    assert of_a_point.endswith(f"{said}: the start point is better")


@pytest.mark.parametrize(("ours", "theirs"), [([0.3], [0.2]), ([0.3, 0.3], [0.2]), ([], [])])
def test_fewer_than_two_of_each_give_no_interval(ours: list[float], theirs: list[float]) -> None:
    found = gain(ours, theirs)
    assert (found.interval, found.verdict) == (None, None)
    assert "no interval can be given before 2 trainings of each are complete" in found.sentence()


def test_trainings_that_ended_early_are_told() -> None:
    assert gain(OURS, THEIRS, left_out=1).sentence().endswith("; 1 training that ended early is not counted")
    assert gain(OURS, THEIRS[:2], left_out=2).sentence().endswith("; 2 trainings that ended early are not counted")
    assert "trained again under 3 and 2 further seeds" in gain(OURS, THEIRS[:2]).sentence()


def test_a_gain_that_was_measured_for_another_trial_says_so() -> None:
    found = gain(OURS, THEIRS)
    assert found.sentence(17) == found.sentence()
    assert found.sentence(21).endswith("; measured when trial 17 was the best, by now it is trial 21")


def test_what_is_repeated_is_said_in_words() -> None:
    found = Repeats(study="petskin", uid="0" * 12, trial=17, against="defaults")
    assert str(found) == "trial 17 of petskin and Ultralytics' defaults, repeated under further seeds"
