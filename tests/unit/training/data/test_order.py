"""Order and random numbers of a training are functions of the place in it, and of nothing else."""

from __future__ import annotations

import contextlib
import random
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from petskin_tune.protocol import Position
from petskin_tune.training.data.order import (
    LANES,
    WINDOW_IMAGES,
    Order,
    SampleKey,
    derive_seed,
    seed_batch,
    seeded_sample,
)


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


sizes = st.builds(Order, seed=st.integers(0, 99), images=st.integers(1, 200), batch=st.integers(1, 40))


@given(order=sizes, epoch=st.integers(0, 3))
def test_an_epoch_holds_every_image_once(order, epoch):
    batches = [order.indices(epoch, batch) for batch in range(order.batches)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(order.images))
    assert [len(batch) for batch in batches[:-1]] == [order.batch] * (order.batches - 1)


@given(order=sizes, data=st.data())
def test_a_stream_entered_anywhere_is_the_rest_of_the_whole_one(order, data):
    whole = list(order.stream(Position(0, 0), epochs=3))
    skipped = data.draw(st.integers(0, len(whole) - 1))
    start = Position(*divmod(skipped, order.batches))
    assert list(order.stream(start, epochs=3)) == whole[skipped:]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(Order(seed, 100, 10).indices(epoch, 0)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


@settings(max_examples=50)
@given(order=sizes, epoch=st.integers(0, 3), data=st.data())
def test_a_window_is_the_batch_and_the_latest_images_of_its_lane(order, epoch, data):
    batch = data.draw(st.integers(0, order.batches - 1))
    window = order.window(epoch, batch)
    own, earlier = window[: len(order.indices(epoch, batch))], window[len(order.indices(epoch, batch)) :]
    assert own == order.indices(epoch, batch).tolist()
    assert len(earlier) == WINDOW_IMAGES
    number = epoch * order.batches + batch
    lane = [order.indices(*divmod(n, order.batches)).tolist() for n in range(number - 32 * LANES, number, LANES)]
    flat = [index for indices in lane for index in indices]
    assert earlier == flat[-WINDOW_IMAGES:]


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 8, 12, 24])
def test_a_loader_process_meets_all_batches_of_a_lane(processes):
    """torch gives batch number n to process n modulo their number, counted from wherever the loader started."""
    for start in (0, 5):
        owners: dict[int, set[int]] = {}
        for number in range(start, start + 10 * LANES):
            owners.setdefault(number % LANES, set()).add((number - start) % processes)
        assert all(len(processes_of_lane) == 1 for processes_of_lane in owners.values())


def test_a_sample_draws_the_same_whatever_was_drawn_before():
    draws = []
    for noise in (1, 2):
        random.seed(noise)
        np.random.seed(noise)
        torch.manual_seed(noise)
        with seeded_sample(5, SampleKey(epoch=1, batch=2, image=3)):
            draws.append(draw())
    assert draws[0] == draws[1]


def test_samples_epochs_and_seeds_draw_differently():
    draws = set()
    for seed, epoch, image in [(5, 1, 3), (5, 1, 4), (5, 2, 3), (6, 1, 3)]:
        with seeded_sample(seed, SampleKey(epoch, 0, image)):
            draws.add(draw())
    assert len(draws) == 4


def test_drawing_a_sample_leaves_the_generators_as_they_were():
    seed_batch(0, 0, 0)
    expected = draw()
    seed_batch(0, 0, 0)
    with contextlib.suppress(KeyError), seeded_sample(5, SampleKey(0, 0, 0)):
        draw()
        raise KeyError
    assert draw() == expected


def test_derived_seeds_are_the_same_on_every_machine():
    assert derive_seed("epoch", 0, 0) == 7009674082697106960
    assert len({derive_seed("sample", 0, epoch, image) for epoch, image in islice(np.ndindex(50, 50), 2500)}) == 2500
