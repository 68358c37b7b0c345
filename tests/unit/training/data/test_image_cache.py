"""How often a loader process has to decode an image, by what its cache holds."""

from __future__ import annotations

import random

import numpy as np
import pytest

from petskin_tune.training.data.loading import IMAGE_CACHE_BYTES, ImageCache
from petskin_tune.training.data.order import Order

PIXELS = np.zeros((1, 1, 3), np.uint8)
BYTES = PIXELS.nbytes  # of an image
HELD = IMAGE_CACHE_BYTES // (640 * 360 * 3)  # images of a wide screen's shape, at 640 pixels


def touch(cache, index):
    if cache.get(index) is None:
        cache.put(index, (PIXELS, (1, 1), (1, 1)))


def decodes_per_sample(processes, batch, images=17_000):
    """Return decodes per sample in the second epoch, over all processes together."""
    order = Order(seed=0, images=images, batch=batch)
    caches = [ImageCache(HELD // processes * BYTES) for _ in range(processes)]
    for epoch in range(2):
        before = sum(cache.misses for cache in caches)
        for number in range(order.batches):
            cache = caches[(epoch * order.batches + number) % processes]
            window = order.window(epoch, number)
            for index in order.indices(epoch, number).tolist():
                for image in (index, *random.choices(window, k=3)):
                    touch(cache, image)
        assert all(cache.bytes <= cache.limit for cache in caches)
    return (sum(cache.misses for cache in caches) - before) / images


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 8, 12])
def test_mosaic_costs_no_decoding_worth_naming(processes):
    """Ultralytics' buffer needs 1.0 decodes a sample as well, and it cannot be resumed."""
    random.seed(0)
    assert decodes_per_sample(processes, batch=16) <= 1.05


@pytest.mark.parametrize("batch", [2, 4, 8, 32, 64])
def test_mosaic_costs_no_decoding_worth_naming_at_other_batch_sizes(batch):
    random.seed(0)
    assert decodes_per_sample(2, batch) <= 1.05


def test_a_cache_keeps_what_was_used_last():
    cache = ImageCache(3 * BYTES)
    for index in (0, 1, 2, 0, 3):
        touch(cache, index)
    assert [index for index in range(4) if cache.get(index) is not None] == [0, 2, 3]


def test_an_image_too_large_for_the_cache_is_not_kept():
    cache = ImageCache(BYTES - 1)
    touch(cache, 0)
    assert cache.get(0) is None
    assert cache.bytes == 0
