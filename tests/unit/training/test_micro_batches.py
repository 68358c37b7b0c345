"""Batches in parts."""

from __future__ import annotations

import pytest

from petskin_tune.training.micro_batches import smaller_part


@pytest.mark.parametrize(
    ("whole", "parts"),
    [(16, [8, 4, 2, 1, 0]), (14, [7, 2, 1, 0]), (10, [5, 2, 1, 0]), (6, [3, 1, 0]), (50, [25, 10, 5, 2, 1, 0])],
)
def test_parts_never_cut_across_two_groups(whole: int, parts: list[int]) -> None:
    """Images of one shape come in groups of ``whole``: each part must divide it."""
    found, part = [], whole
    while part:
        part = smaller_part(whole, part)
        found.append(part)
    assert found == parts
