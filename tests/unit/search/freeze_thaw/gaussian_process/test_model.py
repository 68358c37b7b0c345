"""The Gaussian process: covariance, likelihood, fit, posterior."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from petskin_tune.search.freeze_thaw.gaussian_process import thinning
from petskin_tune.search.freeze_thaw.gaussian_process.fit import Prior, fit, penalised
from petskin_tune.search.freeze_thaw.gaussian_process.kernel import (
    Hyperparameters,
    Places,
    covariance,
    matern,
    own_covariance,
)
from petskin_tune.search.freeze_thaw.gaussian_process.likelihood import Likelihood
from petskin_tune.search.freeze_thaw.gaussian_process.model import StudyModel, TooLittleKnown
from petskin_tune.search.freeze_thaw.gaussian_process.observations import observe
from petskin_tune.search.freeze_thaw.gaussian_process.posterior import Posterior, cholesky
from tests.support.searches import EPOCHS, end_of, rising, search_of, state, trial

OWNERS = np.array([0, 1, 1, 1, 2])  # the middle one is a choice of three


def some_places(seed: int, trials: int = 8, rows: int = 20) -> Places:
    draw = np.random.default_rng(seed)
    row = np.sort(draw.integers(0, trials, rows))
    return Places(draw.random((trials, len(OWNERS))), OWNERS, np.arange(trials), row, draw.choice([0.3, 0.5, 1], rows))


def some_logarithms(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(-0.5, 0.7, 3 + 7)


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_what_differences_say(seed: int) -> None:
    draw = np.random.default_rng(seed)
    likelihood = Likelihood(some_places(seed), draw.normal(size=20), draw.integers(1, 4, 20).astype(float))
    objective = penalised(likelihood, Prior.of(3, 0.1))
    at = some_logarithms(seed)
    differences = approx_fprime(at, lambda vector: objective(vector)[0], 1e-6)
    assert objective(at)[1] == pytest.approx(differences, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_is_the_normal_density_of_the_covariance(seed: int) -> None:
    from scipy.stats import multivariate_normal

    places, values, at = some_places(seed), np.random.default_rng(seed).normal(size=20), some_logarithms(seed)
    hyper = Hyperparameters.from_logarithms(at)
    matrix = covariance(hyper, places, places) + np.eye(20) * (hyper.noise**2 / 2 + 1e-8)
    expected = -multivariate_normal(cov=matrix).logpdf(values) - 20 / 2 * np.log(2 * np.pi)
    assert Likelihood(places, values, np.full(20, 2.0))(at)[0] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("shared", [True, False])
def test_the_covariance_is_positive_definite_and_symmetric(seed: int, shared: bool) -> None:
    places = some_places(seed)
    matrix = covariance(Hyperparameters.from_logarithms(some_logarithms(seed)), places, places, shared=shared)
    assert matrix == pytest.approx(matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9


def test_a_trial_s_covariance_with_itself_is_the_diagonal() -> None:
    places, hyper = some_places(0), Hyperparameters.from_logarithms(some_logarithms(0))
    own = own_covariance(hyper, places.time, places.time, shared=True)
    assert np.diagonal(covariance(hyper, places, places)) == pytest.approx(own)


def test_the_matern_kernel_s_slope_is_its_derivative() -> None:
    squared = np.array([0.01, 0.5, 3.0])
    step = 1e-6
    assert matern(np.zeros(1))[0] == 1
    assert (matern(squared + step)[0] - matern(squared - step)[0]) / (2 * step) == pytest.approx(matern(squared)[1])


def test_the_fit_does_not_depend_on_what_was_fitted_before() -> None:
    places, values = some_places(1), np.random.default_rng(1).normal(size=20)
    found = [fit(Likelihood(places, values, np.ones(20)), Prior.of(3, 0.1)) for _ in range(2)]
    assert (found[0].lengths == found[1].lengths).all()
    assert found[0].noise == found[1].noise


def test_a_fit_without_a_finite_value_keeps_the_prior() -> None:
    def hopeless(vector: np.ndarray) -> tuple[float, np.ndarray]:
        raise np.linalg.LinAlgError

    prior = Prior.of(2, 0.1)
    assert fit(hopeless, prior).lengths == pytest.approx(np.exp(prior.mean[:2]))


def test_segments_in_progress_shrink_variances_and_move_no_mean() -> None:
    places, values = some_places(2), np.random.default_rng(2).normal(size=20)
    hyper = Hyperparameters.from_logarithms(some_logarithms(2))
    pending = Places(np.full((2, 5), 0.4), OWNERS, np.array([0, 90]), np.array([0, 1]), np.array([0.7, 1.0]))
    alone = Posterior(hyper, places, values, np.ones(20))
    beside = Posterior(hyper, places, values, np.ones(20), pending)
    at = Places(some_places(3).features, OWNERS, 100 + np.arange(8), np.arange(8), np.ones(8))
    assert beside.mean(at) == pytest.approx(alone.mean(at))
    variances = [posterior.variance(at, posterior.whitened(at)) for posterior in (alone, beside)]
    assert (variances[1] <= variances[0] + 1e-12).all()
    assert (variances[1] < 0.99 * variances[0]).any()


def test_a_matrix_that_rounding_has_broken_still_has_a_factor() -> None:
    broken = np.ones((5, 5)) - 1e-12 * np.eye(5)
    factor = cholesky(broken)
    assert factor @ factor.T == pytest.approx(broken, abs=1e-4)
    with pytest.raises(np.linalg.LinAlgError):
        cholesky(np.full((2, 2), np.nan))


def test_the_model_knows_where_it_is_good_and_which_parameters_matter() -> None:
    model = StudyModel(search_of(40))
    best = model.forecasts()[0]
    ends = {record.number: end_of(record.point) for record in model.trials}
    assert ends[best.number] >= sorted(ends.values())[-3]
    assert best.low < best.mean < best.high
    assert best.mean == pytest.approx(ends[best.number], abs=0.05)
    lengths = model.lengths()
    assert lengths["lr0"] < lengths["momentum"]
    assert lengths["optimizer"] < lengths["batch"]


def test_trials_of_another_space_teach_nothing() -> None:
    known = [rising(number, 9) for number in range(10)]
    foreign = [trial(20, [0.9] * 9, optimizer="Adam"), trial(21, [0.9] * 9, lr0=-1.0)]
    assert StudyModel(state(*known, *foreign)).means == pytest.approx(StudyModel(state(*known)).means)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_of_fewer_than_three_trials_there_is_no_model(count: int) -> None:
    with pytest.raises(TooLittleKnown):
        StudyModel(state(*(rising(number, 9) for number in range(count))))


def test_a_long_study_is_thinned_to_its_best_trials_and_last_values() -> None:
    trials = [rising(number, 27 if number % 3 == 0 else 3) for number in range(700)]
    seen = observe(trials, (3, 6, 9, 27), 1)
    draw = np.random.default_rng(0)
    own = np.ones(700, dtype=bool)
    kept = seen[thinning.for_conditioning(seen, seen.value, own, draw)]
    assert len(seen) > thinning.CONDITIONED > len(kept)
    assert set(kept.trial) == set(seen.trial)
    best = seen.trial[seen.value.argmax()]
    assert (kept.trial == best).sum() == (seen.trial == best).sum()
    fitted = seen[thinning.for_fit(seen, seen.value, own, draw)]
    assert thinning.FITTED - 4 <= len(fitted) <= thinning.FITTED
    assert best in fitted.trial


def test_no_study_is_too_long() -> None:
    seen = observe([trial(number, [0.1, 0.2, number]) for number in range(4000)], (3, 27), 1)
    kept = thinning.for_conditioning(seen, seen.value, np.ones(4000, dtype=bool), np.random.default_rng(0))
    assert kept.sum() == thinning.MOST
    assert kept[-64:].all()


def test_thousands_of_imported_runs_leave_room_for_all_of_the_study_s_own() -> None:
    seen = observe([trial(number, [0.1, 0.2, number % 1000]) for number in range(4000)], (3, 27), 1)
    own = np.arange(4000) % 5 == 0
    kept = seen[thinning.for_conditioning(seen, seen.value, own, np.random.default_rng(0))]
    assert len(kept) == thinning.MOST
    assert set(np.flatnonzero(own)) <= set(kept.trial)
    fitted = seen[thinning.for_fit(seen, seen.value, own, np.random.default_rng(0))]
    assert own[fitted.trial].mean() > 0.8, "the best ones may be foreign"


def test_a_short_study_is_not_thinned() -> None:
    seen = observe([rising(number, EPOCHS) for number in range(20)], (3, 27), 1)
    own = np.ones(20, dtype=bool)
    assert thinning.for_fit(seen, seen.value, own, np.random.default_rng(0)).all()
    assert thinning.for_conditioning(seen, seen.value, own, np.random.default_rng(0)).all()


def test_a_study_with_a_rung_after_each_of_many_epochs_is_looked_at_as_seldom_as_others() -> None:
    every = tuple(range(1, 301))
    asked = state(*(rising(number, 30 * number) for number in range(1, 11)), epochs=300, pauses=every)
    assert len(asked.landmarks) <= 10
    assert asked.landmarks[-1] == 300
    seen = observe(asked.trials, asked.rungs, asked.warmup, asked.landmarks)
    last = {int(place): int(epoch) for place, epoch in zip(seen.trial, seen.epoch, strict=True)}
    assert last == {number: len(trial.curve) for number, trial in enumerate(asked.trials)}
    assert len(seen) < 100
    few = state(rising(0, 9), epochs=27, pauses=(3, 9, 27))
    assert few.landmarks == few.rungs
