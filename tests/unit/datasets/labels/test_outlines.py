"""Outlines are measured as a training clips them, and those without an area are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from petskin_tune.datasets.labels.outlines import Outlines, read_outlines


def read(tmp_path: Path, text: str, pixels: int = 0) -> Outlines:
    (tmp_path / "a.txt").write_text(text)
    return read_outlines(tmp_path / "a.txt", 3, pixels)


@pytest.mark.parametrize(
    "row",
    [
        "0 0.5 0.5 0.5 0.5 0.5 0.5",
        "0 0.1 0.1 0.5 0.5 0.9 0.9",
        "0 0.1 0.2 0.8 0.2 0.4 0.2 0.3 0.2",
        "0 0.1 0.1 0.1 0.1 0.9 0.3",
        "0 1.005 0.2 1.0 0.4 1.007 0.9",
    ],
)
def test_a_point_or_a_line_has_no_area(tmp_path: Path, row: str) -> None:
    assert read(tmp_path, row).flat == 1


@pytest.mark.parametrize(
    "row",
    [
        "0 0 0 1 0 1 1",
        "0 0.1 0.1 0.9 0.9 0.9 0.1 0.1 0.9",
        "0 0.1 0.1 0.1 0.1 0.9 0.1 0.5 0.1001",
    ],
    ids=["a triangle", "a ring that crosses itself", "a corner given twice"],
)
def test_others_have_one(tmp_path: Path, row: str) -> None:
    assert read(tmp_path, row).flat == 0


def test_a_coordinate_a_hair_outside_is_clipped_and_measured(tmp_path: Path) -> None:
    found = read(tmp_path, "2 0 0 1.0000001 0 1.0000001 1 -0.000001 1")
    assert found.areas == {2: (1.0,)}


def test_less_than_a_pixel_is_told_where_the_picture_is_known(tmp_path: Path) -> None:
    row = "0 0.5 0.5 0.51 0.5 0.51 0.51"
    assert read(tmp_path, row, 100 * 100).below_a_pixel == 1
    assert read(tmp_path, row, 1000 * 1000).below_a_pixel == 0
    assert read(tmp_path, row).below_a_pixel == 0
