"""How many pixels of the image the deepest layers of a model see as one, told from its architecture without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from petskin_tune.trial.model import layers

# By which number a layer divides the sides of what it gets, where its arguments do not say it.
_DIVIDES = {"ADown": 2.0, "AConv": 2.0, "Focus": 2.0, "HGStem": 4.0}
# Where among its arguments a layer has its stride, 1 where it is left out.
_STRIDE_AT = {"Conv": 2, "DWConv": 2, "GhostConv": 2, "SCDown": 2, "nn.MaxPool2d": 1}
_UNTOLD = ("ConvTranspose", "GhostBottleneck", "Index", "ResNetLayer", "TorchVision", "DWConvTranspose2d", "HGBlock")


def largest_stride(architecture: Mapping[str, Any]) -> int | None:
    """The largest stride of what a model's head gets, in pixels of the image; None where it cannot be told."""
    rows: Sequence[Any] = [*architecture["backbone"], *architecture["head"]]
    strides: list[float] = []
    try:
        for source, repeats, module, arguments in rows[:-1]:
            before = _of(source if isinstance(source, int) else source[-1], strides)  # CBFuse resizes to its last
            divides = _divides(module, arguments, repeats)
            if divides is None:
                return None
            strides.append(before * divides)
        found = max(_of(number, strides) for number in rows[-1][0])
    except (IndexError, TypeError, ValueError, ZeroDivisionError):
        return None
    return int(found) if found >= 1 and found == int(found) else None


def _of(source: int, strides: Sequence[float]) -> float:
    return strides[source] if strides else 1.0


def _divides(module: str, arguments: Sequence[Any], repeats: int) -> float | None:
    if module in _DIVIDES or module in _STRIDE_AT:
        at = _STRIDE_AT.get(module)
        divides = _DIVIDES[module] if at is None else float(arguments[at] if len(arguments) > at else 1)
        return divides if repeats == 1 or divides == 1 else None
    if module == "nn.Upsample":
        return 1 / float(arguments[1])
    is_told = module not in _UNTOLD and (
        not module.startswith((layers.TORCH, "torchvision.")) or module == "nn.Identity"
    )
    return 1.0 if is_told else None
