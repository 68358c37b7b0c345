from __future__ import annotations

import numpy as np

from petskin_tune.training.pictures.canvas import colour_of
from petskin_tune.training.pictures.photographs import (
    PER_SHEET,
    TILE,
    Outlined,
    Shown,
    outlines_of,
    sheet,
    tile_size,
)

SQUARE = np.array([[60, 60], [200, 60], [200, 200], [60, 200]], np.float32)


def a_photograph(*predictions: Outlined) -> Shown:
    return Shown("val/a.jpg", np.full((240, TILE, 3), 128, np.uint8), [Outlined(0, (SQUARE,))], predictions)


def inside(picture: np.ndarray, left: int) -> np.ndarray:
    """A point that the square covers, in the tile that begins at ``left``."""
    return picture[52 + 130, left + 130].astype(int)


def test_labels_lie_on_the_left_and_predictions_on_the_right() -> None:
    picture = sheet([a_photograph(Outlined(3, (SQUARE,), 0.9))], ["a", "b", "c", "d"], 1)
    grey = np.full(3, 128)
    for left, number in ((10, 0), (20 + TILE, 3)):
        moved = inside(picture, left) - grey
        towards = np.array(colour_of(number)) - grey
        assert np.dot(moved, towards) > 0.2 * np.dot(towards, towards)
    assert np.array_equal(picture[52 + 230, 10 + 250], grey)


def test_a_sheet_holds_photographs_of_any_shape_and_none() -> None:
    shapes = [tile_size(*size) for size in ((4000, 30), (30, 4000), (10, 10))]
    assert max(max(shape) for shape in shapes) == TILE
    shown = [Shown("x", np.zeros((*shape, 3), np.uint8), [], []) for shape in shapes]
    assert len(shown) <= PER_SHEET
    assert sheet(shown, [], 5).shape[1] == sheet([], [], 9).shape[1]


def test_names_are_drawn_at_the_edges_for_objects_without_an_outline_and_for_classes_without_a_name() -> None:
    corner = SQUARE - SQUARE.min(0)
    many = [Outlined(number, (corner,), 0.5) for number in range(30)]
    picture = sheet([a_photograph(*many, Outlined(1, (), 0.4))], ["구진"], 1)
    assert not np.array_equal(picture, sheet([a_photograph(*many)], ["플라크"], 1))


def test_the_outlines_of_a_mask_go_around_it() -> None:
    mask = np.zeros((50, 60), bool)
    mask[10:20, 30:40] = True
    (outline,) = outlines_of(mask)
    assert (outline.min(0).tolist(), outline.max(0).tolist()) == ([30, 10], [39, 19])
    assert outlines_of(np.zeros((5, 5), bool)) == ()


def test_of_a_model_that_finds_far_too_much_only_the_surest_objects_are_named() -> None:
    low = SQUARE + np.array([0, 100], np.float32)
    flood = [Outlined(0, (low,), 0.9 - number / 100) for number in range(20)]
    named = sheet([a_photograph(*flood)], ["a"], 1)
    other = [*flood[:6], *(Outlined(0, one.outlines, 0.3) for one in flood[6:])]
    assert np.array_equal(named, sheet([a_photograph(*other)], ["a"], 1)), "confidences that nobody reads"
    assert not np.array_equal(named, sheet([a_photograph(*flood[:19])], ["a"], 1)), "it is said how many are shown"
