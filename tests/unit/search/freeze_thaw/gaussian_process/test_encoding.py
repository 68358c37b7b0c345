import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.search.freeze_thaw.gaussian_process.encoding import Encoding
from petskin_tune.study.spec import Choices, Range
from tests.support.searches import SPACE, trial

EVERY_KIND = {
    "number": Range(low=-2.0, high=3.0),
    "log": Range(low=1e-6, high=1e2, log=True),
    "whole": Range(low=0, high=7, integer=True),
    "whole_log": Range(low=1, high=1000, log=True, integer=True),
    "step": Range(low=0.1, high=0.7, step=0.2),
    "whole_step": Range(low=0, high=180, step=15, integer=True),
    "choice": Choices(choices=("SGD", None, True, 0.5)),
}


def test_a_point_comes_back_from_its_coordinates() -> None:
    encoding = Encoding(EVERY_KIND)
    point = {"number": 1.25, "log": 3e-4, "whole": 5, "whole_log": 32, "step": 0.5, "whole_step": 45, "choice": None}
    [coordinates] = encoding.coordinates([point])
    found = encoding.point(coordinates)
    assert found == pytest.approx(point)
    assert {name: type(value) for name, value in found.items()} == {name: type(v) for name, v in point.items()}


@given(st.lists(st.floats(0, 1), min_size=len(EVERY_KIND), max_size=len(EVERY_KIND)))
def test_all_coordinates_stand_for_a_point_of_the_space(places: list[float]) -> None:
    encoding = Encoding(EVERY_KIND)
    point = encoding.point(np.array(places))
    assert encoding.knows(point)
    for name, searched in EVERY_KIND.items():
        value = point[name]
        if isinstance(searched, Choices):
            assert value in searched.choices
            continue
        assert searched.low <= value <= searched.high
        assert isinstance(value, int if searched.integer else float)
        if searched.step:
            assert (value - searched.low) / searched.step == pytest.approx(
                round((value - searched.low) / searched.step)
            )
    snapped = encoding.snapped(np.array([places]))
    assert encoding.coordinates([point]) == pytest.approx(snapped)
    assert encoding.snapped(snapped) == pytest.approx(snapped)


def test_the_ends_of_a_range_are_reached_exactly() -> None:
    encoding = Encoding({"log": Range(low=1e-5, high=0.3, log=True), "step": Range(low=0.1, high=0.7, step=0.2)})
    assert encoding.point(np.zeros(2)) == {"log": 1e-5, "step": 0.1}
    assert encoding.point(np.ones(2)) == {"log": 0.3, "step": pytest.approx(0.7)}
    assert encoding.point(np.ones(2))["step"] <= 0.7


def test_two_different_choices_lie_one_apart_and_a_number_by_its_difference() -> None:
    encoding = Encoding(SPACE)
    points = [trial(0, optimizer=o, lr0=1e-3, momentum=m, batch=4).point for o, m in (("SGD", 0.6), ("AdamW", 0.98))]
    features = encoding.features(encoding.coordinates(points))
    squares = (features[0] - features[1]) ** 2
    by_parameter = np.bincount(encoding.owners, squares)
    assert by_parameter == pytest.approx([0, 1, 1, 0])


def test_a_point_of_another_space_is_not_known() -> None:
    encoding = Encoding({"lr0": Range(low=1e-5, high=0.1, log=True), "optimizer": Choices(choices=("SGD", "AdamW"))})
    assert encoding.knows({"lr0": 5.0, "optimizer": "SGD", "momentum": 1})
    for point in ({"lr0": 1e-3}, {"lr0": 0.0, "optimizer": "SGD"}, {"lr0": 1e-3, "optimizer": "Adam"},
                  {"lr0": "SGD", "optimizer": "SGD"}, {"lr0": float("nan"), "optimizer": "SGD"}):  # fmt: skip
        assert not encoding.knows(point)


def test_a_space_without_parameters_has_one_point() -> None:
    encoding = Encoding({})
    assert encoding.coordinates([{}, {}]).shape == (2, 0)
    assert encoding.features(encoding.snapped(np.empty((3, 0)))).shape == (3, 0)
    assert encoding.point(np.empty(0)) == {}


@pytest.mark.parametrize("value", [[0, 1], 10**400, -(10**400), float("nan"), float("inf"), True, "3", None])
def test_a_point_with_a_value_that_is_no_number_is_of_another_space(value: object) -> None:
    space = {"whole": EVERY_KIND["whole"]}
    assert Encoding(space).knows({"whole": 3})
    assert not Encoding(space).knows({"whole": value})  # type: ignore[dict-item]
