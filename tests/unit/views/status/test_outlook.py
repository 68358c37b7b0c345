"""What people are told of another day."""

from __future__ import annotations

from petskin_tune.study import attributes
from petskin_tune.views.status.outlook import sentence


def test_nothing_is_said_before_the_search_has_said_something() -> None:
    assert sentence({}) is None


def test_a_chance_is_told_beside_the_noise_that_it_is_to_exceed() -> None:
    said = sentence({attributes.OUTLOOK: {"chance": 0.42, "noise": 0.0071, "epochs": 648}})
    assert said == "another day of search has a chance of at most 42% to beat the best by more than the noise (0.0071)"


def test_where_the_chance_is_small_the_final_run_is_advised() -> None:
    said = sentence({attributes.OUTLOOK: {"chance": 0.08, "noise": 0.007, "epochs": 648}})
    assert said is not None
    assert said.endswith("; train the best at length instead: petskin-tune train")
