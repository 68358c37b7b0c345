"""The best weights of a trial, as Ultralytics' own checkpoint: ``YOLO(path)`` loads them and predicts."""

from __future__ import annotations

import io
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics import __version__ as ultralytics_version
from ultralytics.utils import DEFAULT_CFG_KEYS

from petskin_tune.files.atomic import replacing


def checkpoint(ema: nn.Module, arguments: dict[str, Any], metrics: dict[str, float], epoch: int) -> dict[str, Any]:
    """Return what ``strip_optimizer`` would leave of Ultralytics' ``best.pt``, but in fp32 (fp16 loses mAP).

    Args:
        ema: The trainer's averaged model; it is copied to the CPU, without a second one on its device.
        arguments: Training arguments in force.
        metrics: Metrics of the epoch, ``fitness`` among them.
        epoch: 1-based.
    """
    copies: dict[int, object] = {id(value): _on_cpu(value) for value in (*ema.parameters(), *ema.buffers())}
    model = deepcopy(ema, copies).float().to("cpu", memory_format=torch.contiguous_format)
    model.criterion = None
    model.args = {key: value for key, value in arguments.items() if key in DEFAULT_CFG_KEYS}
    return {
        "epoch": -1,  # Ultralytics' mark of a training that is over
        "best_epoch": epoch,
        "model": model,
        "ema": None,
        "optimizer": None,
        "train_args": model.args,
        "train_metrics": metrics,
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics_version,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
    }


def _on_cpu(value: torch.Tensor) -> torch.Tensor:
    copied = value.detach().to("cpu", copy=True)
    return nn.Parameter(copied, requires_grad=False) if isinstance(value, nn.Parameter) else copied


def write(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint: whole or not at all.

    Raises:
        OSError: The disk is full or fails.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, alone=True) as file:
        file.write(buffer.getbuffer())
