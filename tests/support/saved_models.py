"""Weights as a training saves them, of a model that says what its layers are and has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def save_model(path: Path, architecture: Mapping[str, Any]) -> None:
    """Write weights of a model of this architecture."""
    import torch

    model = torch.nn.Module()
    model.yaml = dict(architecture)
    torch.save({"model": model, "ema": None}, path)
