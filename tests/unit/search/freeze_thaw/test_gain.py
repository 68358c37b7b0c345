import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from petskin_tune.search.freeze_thaw.gain import log_gain


@pytest.mark.parametrize(("distance", "sd"), [(-1.0, 0.5), (0.0, 1.0), (0.3, 0.2), (2.0, 0.7), (5.0, 1.0)])
def test_the_gain_is_an_expectation(distance: float, sd: float) -> None:
    expected, _ = quad(lambda x: max(x, 0) * norm.pdf(x, -distance, sd), -distance - 10 * sd, -distance + 10 * sd)
    assert log_gain(np.array(distance), np.array(sd)) == pytest.approx(np.log(expected), rel=1e-5)


@pytest.mark.parametrize("join", [1.0, 100.0])
def test_where_one_formula_takes_over_from_the_other_nothing_jumps(join: float) -> None:
    slopes = np.diff(log_gain(join + np.linspace(-0.5, 0.5, 101), np.ones(101)))
    assert (slopes < 0).all()
    assert np.ptp(np.diff(slopes)) < 2e-5


def test_far_off_there_is_still_a_logarithm() -> None:
    far = log_gain(np.array([50.0, 1e6]), np.ones(2))
    assert np.isfinite(far).all()
    assert far[1] < far[0] < -1000
