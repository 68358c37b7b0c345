"""Batches in parts: the same effective batch with less memory, and a test of the largest one before hours are spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

_OF_OBJECTS = ("batch_idx", "bboxes", "cls")  # rows of objects, not of images
_DRAWN_BATCHES = 1000  # the fullest of so many is what a training meets sooner or later
_STATES = {"SGD": 1, "MuSGD": 2, "RMSprop": 2, "NAdam": 2, "RAdam": 2, "Adam": 2, "AdamW": 2, "Adamax": 2}


def split(batch: dict[str, Any], size: int | None, *, overlap_mask: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield ``batch`` in parts of at most ``size`` images, each with its number of images.

    Args:
        batch: As Ultralytics' ``collate_fn`` makes it, B images with N objects.
        size: None: in one part, which is ``batch`` itself.
        overlap_mask: Masks are (B, height, width); else (N, height, width).
    """
    images = len(batch["im_file"])
    if size is None or size >= images:
        yield images, batch
        return
    of_objects = {*_OF_OBJECTS} if overlap_mask else {*_OF_OBJECTS, "masks"}
    for start in range(0, images, size):
        end = min(start + size, images)
        inside = (batch["batch_idx"] >= start) & (batch["batch_idx"] < end)
        part = {key: value[inside] if key in of_objects else value[start:end] for key, value in batch.items()}
        part["batch_idx"] = part["batch_idx"] - start
        yield end - start, part


def smaller_part(whole: int, part: int) -> int:
    """Return the largest divisor of ``whole`` that is at most half of ``part``; 0 where there is none."""
    return next((size for size in range(part // 2, 0, -1) if whole % size == 0), 0)


def dry_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    backward: Callable[[dict[str, Any]], None],
    batch: Callable[[], dict[str, Any]],
) -> None:
    """Run forward and backward once, with room for the optimizer's state, and leave no trace.

    Args:
        model: Not wrapped.
        optimizer: Of the model, before its first step.
        backward: Computes the loss of a batch and its gradients.
        batch: Makes the largest batch that the training may meet.

    Raises:
        torch.OutOfMemoryError: What the trial needs does not fit.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    try:
        copies = _STATES.get(type(optimizer).__name__, 2)
        reserved = [torch.empty_like(parameter) for parameter in parameters for _ in range(copies)]
        backward(batch())
        del reserved
    finally:
        optimizer.zero_grad(set_to_none=True)
        for buffer, value in buffers:
            buffer.copy_(value)
        model.criterion = None


def largest_batch(
    counts_of_objects: Sequence[int], images: int, channels: int, stride: int, arguments: Any, device: torch.device
) -> dict[str, Any]:
    """Return a batch of grey images of the largest size, as full of objects as augmentation makes them.

    Args:
        counts_of_objects: Of each training image.
        images: Of the batch.
        channels: Of an image.
        stride: Of the model; sides are its multiples.
        arguments: Of the training.
        device: Where the batch shall lie.
    """
    side = int(arguments.imgsz * (1 + arguments.multi_scale) + stride - 1) // stride * stride
    objects = _most_objects(counts_of_objects, images, arguments)
    on_device = {"device": device}
    counts = torch.tensor(objects, **on_device)
    mask_side = side // arguments.mask_ratio
    masks = torch.ones(images, mask_side, mask_side, **on_device)
    return {
        "im_file": [""] * images,
        "img": torch.full((images, channels, side, side), 0.5, **on_device),
        "batch_idx": torch.arange(images, **on_device).repeat_interleave(counts).float(),
        "cls": torch.zeros(sum(objects), 1, **on_device),
        "bboxes": torch.cat([_spread(count) for count in objects]).to(device),
        "masks": masks if arguments.overlap_mask else masks.repeat_interleave(counts, 0),
        "sem_masks": torch.zeros(images, mask_side, mask_side, **on_device),
    }


def _most_objects(counts: Sequence[int], images: int, arguments: Any) -> list[int]:
    """Return how many objects each image of a batch has in the fullest one to be expected.

    Memory grows with the batch's objects (each has its mask in the loss) and with those of its fullest image. Every
    image as full as the fullest would be a batch that no training meets: the batch is the fullest of many drawn at
    random, and one of its images is as full as an image can be.

    Args:
        counts: Objects of each training image.
        images: Of a batch.
        arguments: Of the training; mosaic makes one image of four, mixup, cutmix and copy-paste add to it.
    """
    doubles = arguments.mixup > 0 or arguments.cutmix > 0 or arguments.copy_paste > 0
    parts = (4 if arguments.mosaic > 0 else 1) * (2 if doubles else 1)
    known = np.sort(np.asarray(list(counts) or [0]))
    drawn = np.random.default_rng(0).choice(known, (_DRAWN_BATCHES, images, parts)).sum(axis=2)
    fullest = drawn[drawn.sum(axis=1).argmax()]
    fullest[0] = max(drawn.max(), known[-parts:].sum())
    return [int(count) for count in fullest]


def _spread(count: int) -> torch.Tensor:
    """Return ``count`` boxes side by side, (count, 4): alike ones in one place would share a few anchors."""
    columns = max(1, math.ceil(math.sqrt(count)))
    index = torch.arange(count)
    centres = torch.stack([index % columns, index // columns], dim=1).add(0.5) / columns
    return torch.cat([centres, torch.full((count, 2), 1 / columns)], dim=1)
