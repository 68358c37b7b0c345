import numpy as np
import pytest

from petskin_tune.search.freeze_thaw.gaussian_process.observations import Observations, epoch_noise, observe, transform
from tests.support.searches import rising, trial

RUNGS = (3, 6, 9, 27)
NAN = float("nan")


def seen_of(*trials, warmup: float = 1) -> Observations:
    return observe(trials, RUNGS, warmup)


def test_a_value_is_the_mean_of_three_epochs_without_the_warm_up() -> None:
    seen = seen_of(trial(0, [9, 1, 2, 3, 4, 5, 6]))
    assert seen.epoch.tolist() == [3, 6]
    assert seen.value.tolist() == [1.5, 4]
    assert seen.weight.tolist() == [2, 3]


def test_a_longer_warm_up_stays_out() -> None:
    assert seen_of(trial(0, [9, 9, 9, 9, 1, 3]), warmup=4).value.tolist() == [9, 2]


def test_a_diverged_trial_counts_once_more_at_the_first_rung_it_missed() -> None:
    seen = seen_of(trial(0, [1, 1, 1, NAN], "diverged"), trial(1, [], "diverged"), trial(2, [1, 1], "ended"))
    assert seen.trial.tolist() == [0, 0, 1]
    assert seen.epoch.tolist() == [3, 6, 3]
    assert np.isnan(seen.value).tolist() == [False, True, True]
    assert seen.weight.tolist() == [2, 1, 1]


def test_epochs_that_are_no_numbers_are_left_out_of_a_mean() -> None:
    seen = seen_of(trial(0, [1, NAN, 2, NAN, NAN, NAN, float("inf"), 4, 5], "ended"))
    assert seen.epoch.tolist() == [3, 9]
    assert seen.value.tolist() == [2, 4.5]
    assert seen.weight.tolist() == [1, 2]


def test_the_transform_keeps_the_order_and_comes_back() -> None:
    trials = [rising(number, 9) for number in range(12)]
    seen = observe(trials, RUNGS, 1)
    found = transform(trials, seen)
    modelled = found.apply(seen.value)
    assert modelled.mean() == pytest.approx(0, abs=1e-9)
    assert modelled.std() == pytest.approx(1)
    above = seen.value >= found.floor
    assert (np.argsort(modelled[above]) == np.argsort(seen.value[above])).all()
    assert found.invert(modelled)[above] == pytest.approx(seen.value[above])


def test_a_diverged_trial_counts_less_than_the_middle_and_no_less_than_the_floor() -> None:
    healthy = [trial(n, [v, v, v]) for n, v in enumerate((0.1, 0.2, 0.3, 0.31, 0.32))]
    trials = [*healthy, trial(5, [NAN], "diverged")]
    found = transform(trials, observe(trials, RUNGS, 1))
    assert found.failed == found.floor == pytest.approx(0.32 - 6 * 0.02)
    same = [trial(n, [0.2, 0.2, 0.2]) for n in range(4)] + [trial(4, [], "diverged")]
    assert transform(same, observe(same, RUNGS, 1)).failed < 0.2


def test_a_disaster_leaves_room_for_the_differences_between_good_trials() -> None:
    trials = [trial(n, [0, v, v]) for n, v in enumerate((0.30, 0.31, 0.32, 0.33, -1e18))]
    modelled = transform(trials, observe(trials, RUNGS, 1)).apply(np.array([0.32, 0.33]))
    assert modelled[1] - modelled[0] > 0.1


def test_the_noise_of_an_epoch_is_read_from_the_curves() -> None:
    trials = [rising(number, 27, noise=0.01) for number in range(20)]
    assert epoch_noise(trials) == pytest.approx(0.01, rel=0.15)
    assert epoch_noise([trial(0, [1, 1, 1, 1, 1])]) == 0
    assert epoch_noise([trial(0, [1])]) == epoch_noise([]) == 0


def test_the_rise_of_the_first_epoch_is_no_noise_once_there_are_enough_later_ones() -> None:
    draw = np.random.default_rng(0)
    trials = [trial(number, [0.0, *(0.3 + 0.01 * draw.standard_normal(5))]) for number in range(60)]
    assert epoch_noise(trials) == pytest.approx(0.01, rel=0.4)


def test_trials_that_find_nothing_do_not_make_the_others_quiet() -> None:
    nothing = [trial(number, [0.0] * 27) for number in range(30)]
    learning = [rising(number, 27, noise=0.01) for number in range(30, 40)]
    assert epoch_noise([*nothing, *learning]) == pytest.approx(0.01, rel=0.25)


def test_equal_values_are_no_difference() -> None:
    trials = [trial(n, [0.2, 0.2, 0.2]) for n in range(5)]
    assert transform(trials, observe(trials, RUNGS, 1)).apply(np.full(5, 0.2)).tolist() == [0] * 5
