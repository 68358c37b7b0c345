"""Batches in parts, and how full of objects the largest batch is that a trial is tried with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from petskin_tune.training import micro_batches

PLAIN = {"mosaic": 0.0, "mixup": 0.0, "cutmix": 0.0, "copy_paste": 0.0}


def objects(counts, images=4, **arguments):
    return micro_batches._most_objects(counts, images, SimpleNamespace(**PLAIN | arguments))


@pytest.mark.parametrize(
    ("arguments", "times"),
    [
        ({}, 1),
        ({"mosaic": 0.1}, 4),
        ({"mixup": 0.1}, 2),
        ({"mosaic": 1.0, "copy_paste": 0.1}, 8),
        ({"mosaic": 1.0, "cutmix": 0.1, "mixup": 0.1}, 8),
    ],
)
def test_augmentation_that_puts_images_together_puts_their_objects_together(arguments, times):
    assert objects([30] * 20, **arguments) == [30 * times] * 4


def test_one_image_is_as_full_as_can_be_and_the_batch_no_fuller_than_batches_are():
    counts = [1] * 950 + [40] * 50
    first, *others = objects(counts, images=16, mosaic=1.0)
    assert first == 160
    rng = np.random.default_rng(1)
    usual = rng.choice(counts, (1000, 15, 4)).sum(axis=(1, 2))
    assert np.quantile(usual, 0.99) <= sum(others) <= 2 * usual.max()


def test_a_data_set_without_a_single_object_has_a_batch_too():
    assert objects([0, 0, 0]) == [0] * 4
    assert objects([]) == [0] * 4
    assert micro_batches._spread(0).shape == (0, 4)


@pytest.mark.parametrize("count", [1, 2, 30, 121])
def test_boxes_lie_side_by_side_inside_the_image(count):
    boxes = micro_batches._spread(count)
    assert boxes.shape == (count, 4)
    assert len(torch.unique(boxes[:, :2], dim=0)) == count
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])
    assert corners.min() > -1e-6
    assert corners.max() < 1 + 1e-6


@pytest.mark.parametrize(
    ("whole", "parts"),
    [(16, [8, 4, 2, 1, 0]), (14, [7, 2, 1, 0]), (10, [5, 2, 1, 0]), (6, [3, 1, 0]), (50, [25, 10, 5, 2, 1, 0])],
)
def test_parts_never_cut_across_two_groups(whole: int, parts: list[int]) -> None:
    """Images of one shape come in groups of ``whole``: each part must divide it."""
    found, part = [], whole
    while part:
        part = micro_batches.smaller_part(whole, part)
        found.append(part)
    assert found == parts
