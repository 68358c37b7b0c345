"""What can go wrong in a training, provoked in the test's own process."""

from __future__ import annotations

import math

import torch
from ultralytics.nn.tasks import SegmentationModel

from petskin_tune.protocol import Position
from petskin_tune.training.trainer import ResumableTrainer


def poisoned_at(monkeypatch, epoch, batch, precision):
    """Let the images of one batch be NaN, as long as the training runs in ``precision``."""
    original = ResumableTrainer.preprocess_batch

    def poison(self, loaded):
        loaded = original(self, loaded)
        if (self.counters.position, self.precision) == (Position(epoch, batch), precision):
            loaded["img"][0] = math.nan
            poison.fired += 1
        return loaded

    poison.fired = 0
    monkeypatch.setattr(ResumableTrainer, "preprocess_batch", poison)
    return poison


def memory_for(monkeypatch, images, training_only=True):
    """Let the model run out of memory, as torch says it, on more than so many images at once."""
    original = SegmentationModel.forward

    def forward(self, x, *args, **kwargs):
        tensor = x["img"] if isinstance(x, dict) else x
        if len(tensor) > images and (self.training or not training_only):
            forward.fired += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(self, x, *args, **kwargs)

    forward.fired = 0
    monkeypatch.setattr(SegmentationModel, "forward", forward)
    return forward
