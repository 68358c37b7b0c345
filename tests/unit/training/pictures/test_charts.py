from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from petskin_tune.training.pictures import charts
from petskin_tune.training.pictures.canvas import INK, PAPER, blank, jpeg, put, steps

NAMES = ["구진", "플라크", "erosion"]


def test_the_matrix_has_a_name_at_each_row_and_column_and_its_darkest_cell_where_most_objects_are() -> None:
    matrix = np.zeros((4, 4))
    matrix[2, 1] = 9
    picture = charts.confusion_matrix(matrix, NAMES)
    others = charts.confusion_matrix(matrix, ["구진", "☃☃☃", "erosion"])
    assert picture.shape[1] == charts.WIDTH
    assert not np.array_equal(picture, others)
    filled = np.argwhere((picture == charts.BEST).all(-1))
    rows, columns = filled.mean(0) / picture.shape[:2]
    assert 0.3 < rows < 0.7
    assert columns < 0.6


@pytest.mark.parametrize("classes", [1, 3, 17, 80, 300])
def test_plots_of_any_number_of_classes_are_as_wide_as_all_others(classes: int) -> None:
    names = [f"class {number} with a rather long name" for number in range(classes)]
    values = np.linspace(0.1, 0.9, classes)
    by_class = np.repeat(values[:, None], 50, 1)
    drawn = [
        charts.confusion_matrix(np.eye(classes + 1), names),
        charts.curves(np.linspace(0, 1, 50), by_class, names, "t", ("x", "y"), ["1"] * (classes + 1)),
        charts.bars(names, values.tolist(), "t"),
    ]
    assert {picture.shape[1] for picture in drawn} == {charts.WIDTH}
    assert all(len(jpeg(picture)) < 400_000 for picture in drawn)


def test_a_validation_in_which_nothing_was_there_still_makes_plots() -> None:
    assert charts.curves(np.linspace(0, 1, 9), np.zeros((0, 9)), [], "t", ("x", "y"), ["0"]).any()
    assert charts.bars([], [], "t").any()
    assert charts.losses({}).any()


def test_losses_that_are_not_finite_leave_gaps_and_those_of_other_models_are_left_out() -> None:
    history = {"train/box_loss": [1.0, float("nan"), float("inf"), 0.5], "val/box_loss": [2.0, 1.0, 0.9, 0.8]}
    alone = charts.losses(history)
    assert np.array_equal(alone, charts.losses({**history, "train/sem_loss": [0.0] * 4}))
    assert not np.array_equal(alone, charts.losses({**history, "train/cls_loss": [3.0] * 4}))


def test_text_is_cut_off_at_the_edges_and_turned_text_reads_from_below() -> None:
    picture = blank(60, 60)
    for x, y in ((-200, 30), (55, 30), (30, -9), (500, 500)):
        put(picture, "a long line of text", x, y, 20)
    assert (picture == INK).all(-1).any()
    turned = blank(40, 120)
    put(turned, "text", 4, 100, 20, turned=True)
    rows, columns = np.nonzero((turned != PAPER).any(-1))
    assert np.ptp(rows) > np.ptp(columns)
    assert rows.max() <= 100


@given(st.floats(-1e4, 1e4), st.floats(1e-4, 1e6))
@example(0.0, 0.0)
@example(2.0, 0.9)
@example(0.0, 9.0)
def test_ticks_are_round_and_within_their_range(low: float, span: float) -> None:
    found = steps(low, low + span)
    assert 1 + (span > 0) <= len(found) <= 6
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)
