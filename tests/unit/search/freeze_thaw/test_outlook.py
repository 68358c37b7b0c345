"""What another day may bring, as the model sees it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from petskin_tune.search.freeze_thaw.choice import choose
from petskin_tune.search.freeze_thaw.state import Outlook, SearchState
from tests.support.searches import end_of, rising, search_of, state


def outlook_of(search: SearchState, ahead: int) -> Outlook:
    found = choose(dataclasses.replace(search, ahead=ahead)).outlook
    assert found is not None
    return found


def test_more_epochs_have_more_of_a_chance() -> None:
    search = search_of(20)
    chances = [outlook_of(search, ahead).chance for ahead in (3, 27, 270)]
    assert chances == sorted(chances)
    assert 0 <= chances[0] < chances[-1] <= 1


def test_epochs_in_which_nothing_can_be_begun_or_thawed_have_no_chance() -> None:
    best = max(range(12), key=lambda number: end_of(rising(number, 3).point))
    trials = [rising(n, 27, "complete") if n == best else rising(n, 3, "ended") for n in range(12)]
    assert outlook_of(state(*trials), 2).chance == 0


def test_the_more_is_known_the_less_is_left_to_be_found() -> None:
    early, late = (outlook_of(search_of(count), 27).chance for count in (12, 60))
    assert late < early


def test_the_noise_is_that_of_an_epoch() -> None:
    assert outlook_of(search_of(40), 27).noise == pytest.approx(0.002, rel=0.5)


def test_the_same_study_has_the_same_outlook_and_looking_ahead_changes_no_choice() -> None:
    search = search_of(20)
    assert outlook_of(search, 100) == outlook_of(search, 100)
    assert choose(dataclasses.replace(search, ahead=100)).action == choose(search).action


def test_nothing_is_said_of_the_future_where_nothing_is_known() -> None:
    assert choose(state(*(rising(n, 3) for n in range(2)), ahead=100)).outlook is None
    assert choose(state(*(rising(n, 0) for n in range(20)), ahead=100)).outlook is None


def test_of_a_search_that_knows_its_space_little_is_expected() -> None:
    chances = np.array([outlook_of(search_of(80, seed=seed), 9).chance for seed in range(3)])
    assert chances.max() < 0.6


def test_a_run_of_elsewhere_is_nothing_that_the_study_has() -> None:
    """However good a foreign trial is, what the study can still find is compared with its own best one."""
    foreign = [dataclasses.replace(rising(n, 27, "complete"), foreign=True) for n in range(40)]
    own = [rising(n, 27, "complete") for n in sorted(range(40), key=lambda n: end_of(rising(n, 3).point))[:3]]
    own = [dataclasses.replace(trial, number=40 + place) for place, trial in enumerate(own)]
    assert choose(state(*foreign, ahead=100)).outlook is None
    assert outlook_of(state(*foreign, *own), 100).chance > 0.9
    counted = state(*foreign, *own)
    as_own = dataclasses.replace(counted, trials=tuple(dataclasses.replace(t, foreign=False) for t in counted.trials))
    assert outlook_of(as_own, 100).chance < 0.9
