"""Which sample comes when, and with which random numbers: pure functions of (seed, epoch, batch, sample).

Nothing here has a history, so any batch of any epoch can be entered directly, in any process.

Mosaic needs three more images for every sample. Ultralytics takes them from a buffer of images that its loader process
decoded lately, which is fast and cannot be resumed. Here they come from a *window* of the order itself: the sample's
own batch and some images before it in the same *lane*. Every ``LANES``-th batch is of one lane, and a loader whose
number of processes divides ``LANES`` gives all batches of a lane to one process, which therefore finds the window's
images already decoded. Over the epochs a window is a random subset, so that a mosaic is any four images of the data
set, as likely as any other.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from petskin_tune.protocol import Position

LANES = 24  # divisible by the usual numbers of loader processes
WINDOW_IMAGES = 32  # mosaic partners from earlier batches, besides the sample's own batch


class SampleKey(NamedTuple):
    """What a data set is asked for: the image, and where in the training it is asked for."""

    epoch: int
    batch: int  # 0-based, within the epoch
    image: int  # its index in the data set


def derive_seed(*parts: int | str) -> int:
    """Return 64 bits that depend on all ``parts`` and on nothing else (BLAKE2b; the same on every machine)."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def seed_everything(seed: int) -> None:
    """Seed ``random``, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


def seed_batch(seed: int, epoch: int, batch: int) -> None:
    """Seed what the main process draws for one batch (multi-scale, dropout)."""
    seed_everything(derive_seed("batch", seed, epoch, batch))


@contextmanager
def seeded_sample(seed: int, key: SampleKey) -> Iterator[None]:
    """Give the enclosed code random numbers of this sample; the CPU generators are as before afterwards."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    sample_seed = derive_seed("sample", seed, key.epoch, key.image)
    random.seed(sample_seed)
    np.random.seed(sample_seed % 2**32)
    torch.default_generator.manual_seed(sample_seed % 2**63)  # torch.manual_seed would touch CUDA in a loader process
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@lru_cache(maxsize=64)
def _permutation(seed: int, epoch: int, images: int) -> np.ndarray:
    generator = np.random.Generator(np.random.PCG64(derive_seed("epoch", seed, epoch)))
    permutation = generator.permutation(images)
    permutation.flags.writeable = False
    return permutation


@dataclass(frozen=True)
class Order:
    """The order of a training: every epoch is a permutation of ``images`` indices, cut into batches of ``batch``."""

    seed: int
    images: int
    batch: int

    @property
    def batches(self) -> int:
        """Batches per epoch; the last one may be smaller."""
        return math.ceil(self.images / self.batch)

    def indices(self, epoch: int, batch: int) -> np.ndarray:
        """Return the image indices of one batch, shape (batch,) or less for an epoch's last."""
        return _permutation(self.seed, epoch, self.images)[batch * self.batch : (batch + 1) * self.batch]

    def window(self, epoch: int, batch: int) -> list[int]:
        """Return the images that samples of this batch may be combined with: its own, and the latest of its lane.

        Lanes reach back before the first epoch, into orders of epochs -1, -2, …: mosaics are as varied from the start.
        """
        number = epoch * self.batches + batch
        earlier: list[int] = []
        while len(earlier) < WINDOW_IMAGES:
            number -= LANES
            earlier = [*self.indices(*divmod(number, self.batches)).tolist(), *earlier]
        return [*self.indices(epoch, batch).tolist(), *earlier[-WINDOW_IMAGES:]]

    def stream(self, start: Position, epochs: int) -> Iterator[list[SampleKey]]:
        """Yield the batches from ``start`` to the end of the last epoch."""
        for epoch in range(start.epoch, epochs):
            for batch in range(start.batch if epoch == start.epoch else 0, self.batches):
                yield [SampleKey(epoch, batch, int(index)) for index in self.indices(epoch, batch)]
