"""Ultralytics' training arguments: names, types, defaults from its own default.yaml; what a study may do with them.

Ultralytics is located, never imported: its import costs seconds and torch, and a study file is checked in milliseconds.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from petskin_tune.errors import UsageError
from petskin_tune.nearest import did_you_mean
from petskin_tune.owned_arguments import OWNED

Kind = Literal["int", "float", "bool", "str"]


@dataclass(frozen=True)
class Argument:
    """One of Ultralytics' arguments."""

    name: str
    kind: Kind  # the first type that default.yaml names
    default: Any


# What model.tune() searches, (low, high): engine/tuner.py of Ultralytics. Shown where a range is missing or wrong.
TUNER_BOUNDS: dict[str, tuple[float, float]] = {
    "lr0": (1e-5, 1e-2),
    "lrf": (0.01, 1.0),
    "momentum": (0.7, 0.98),
    "weight_decay": (0.0, 0.001),
    "warmup_epochs": (0.0, 5.0),
    "warmup_momentum": (0.0, 0.95),
    "box": (1.0, 20.0),
    "cls": (0.1, 4.0),
    "cls_pw": (0.0, 1.0),
    "dfl": (0.4, 12.0),
    "hsv_h": (0.0, 0.1),
    "hsv_s": (0.0, 0.9),
    "hsv_v": (0.0, 0.9),
    "degrees": (0.0, 45.0),
    "translate": (0.0, 0.9),
    "scale": (0.0, 0.95),
    "shear": (0.0, 10.0),
    "perspective": (0.0, 0.001),
    "flipud": (0.0, 1.0),
    "fliplr": (0.0, 1.0),
    "bgr": (0.0, 1.0),
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "cutmix": (0.0, 1.0),
    "copy_paste": (0.0, 1.0),
    "close_mosaic": (0.0, 10.0),
}

# What Ultralytics or torch refuses outside, or what has no meaning there: (low, high), both allowed.
LIMITS: dict[str, tuple[float, float]] = {
    "lr0": (0.0, 1.0),
    "lrf": (0.0, 1.0),
    "momentum": (0.0, 0.9999),  # Adam's beta1 must stay below 1
    "weight_decay": (0.0, 1.0),
    "warmup_epochs": (0.0, 1000.0),
    "warmup_momentum": (0.0, 0.9999),
    "warmup_bias_lr": (0.0, 1.0),
    "box": (0.0, 1000.0),
    "cls": (0.0, 1000.0),
    "cls_pw": (0.0, 1.0),
    "dfl": (0.0, 1000.0),
    "hsv_h": (0.0, 1.0),
    "hsv_s": (0.0, 1.0),
    "hsv_v": (0.0, 1.0),
    "degrees": (0.0, 180.0),
    "translate": (0.0, 1.0),
    "scale": (0.0, 1.0),
    "shear": (0.0, 89.0),
    "perspective": (0.0, 1.0),
    "flipud": (0.0, 1.0),
    "fliplr": (0.0, 1.0),
    "bgr": (0.0, 1.0),
    "mosaic": (0.0, 1.0),
    "mixup": (0.0, 1.0),
    "cutmix": (0.0, 1.0),
    "copy_paste": (0.0, 1.0),
    "close_mosaic": (0, 100_000),
    "multi_scale": (0.0, 0.99),
    "batch": (1, 65_536),
    "nbs": (1, 65_536),
    "freeze": (0, 1000),
    "imgsz": (32, 8192),
    "mask_ratio": (1, 32),
    "max_det": (1, 100_000),
    "conf": (0.0, 1.0),
    "iou": (0.0, 1.0),
    "workers": (0, 256),
}

# The values of arguments that are words (or true and false besides).
WORDS: dict[str, tuple[str | bool, ...]] = {
    "optimizer": ("SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop", "auto"),
    "copy_paste_mode": ("flip", "mixup"),
    "amp": (True, False, "fp16", "bf16", "fp32"),
    "cache": (True, False, "ram", "disk"),
}

_GROUND_TRUTH = "changes the ground truth or the metric that trials are compared by"
_NO_EFFECT = "does not change what is learnt"

# May stand under `train`, not under `search`: name -> why.
FIXED_ONLY: dict[str, str] = {
    "imgsz": _GROUND_TRUTH,
    "mask_ratio": _GROUND_TRUTH,
    "overlap_mask": _GROUND_TRUTH,
    "conf": _GROUND_TRUTH,
    "iou": _GROUND_TRUTH,
    "max_det": _GROUND_TRUTH,
    "amp": "decides on the precision that trials are compared in",
    "cache": _NO_EFFECT,
    "workers": _NO_EFFECT,
    "channels_last": _NO_EFFECT,
    "cls_remap": "belongs to the model that all trials start from",
}

# May stand under `train` or under `search`.
FREE = frozenset(LIMITS) - frozenset(FIXED_ONLY) | {"optimizer", "copy_paste_mode", "cos_lr"}

_ROW = re.compile(r"(\w+):.*?#\s*\(\s*(\w+)")


@lru_cache(maxsize=1)
def ultralytics_folder() -> Path:
    """Where the installed Ultralytics lies.

    Raises:
        UsageError: it is not installed.
    """
    found = importlib.util.find_spec("ultralytics")
    if found is None or found.origin is None:
        raise UsageError("Ultralytics is not installed here: type `pip install ultralytics`")
    return Path(found.origin).parent


@lru_cache(maxsize=1)
def arguments() -> dict[str, Argument]:
    """All arguments of the installed Ultralytics by name, from its cfg/default.yaml."""
    text = (ultralytics_folder() / "cfg" / "default.yaml").read_text(encoding="utf-8")
    defaults = yaml.safe_load(text)
    found: dict[str, Argument] = {}
    for line in text.splitlines():
        if (match := _ROW.match(line)) and match[1] in defaults:
            kind: Kind = match[2] if match[2] in ("int", "float", "bool") else "str"  # type: ignore[assignment]
            found[match[1]] = Argument(match[1], kind, defaults[match[1]])
    return found


def check_name(name: str, *, searched: bool) -> Argument:
    """The argument ``name``, where a study may fix it (or search it, when ``searched``).

    Raises:
        UsageError: it is unknown, the tool owns it, it has no effect on segmentation training, or it may only be fixed.
    """
    room = "searched" if searched else "set under `train`"
    if name in OWNED:
        raise UsageError(f"`{name}` cannot be {room}: {OWNED[name]}")
    if name not in FREE and name not in FIXED_ONLY:
        if name in arguments():
            raise UsageError(f"`{name}` cannot be {room}: it has no effect on segmentation training")
        raise UsageError(f"unknown argument `{name}`{did_you_mean(name, [*FREE, *FIXED_ONLY, *OWNED])}")
    if searched and name in FIXED_ONLY:
        raise UsageError(f"`{name}` cannot be searched, it {FIXED_ONLY[name]}; give it one value under `train`")
    return arguments()[name]


def check_value(name: str, value: Any) -> Any:
    """``value`` as Ultralytics takes it for ``name``: an int or a float as it wants it, a word in its own spelling.

    Raises:
        UsageError: wrong type, outside of what the argument allows, or an unknown word.
    """
    if name in WORDS:
        return _word(name, value)
    kind = arguments()[name].kind
    if kind == "bool":
        if not isinstance(value, bool):
            raise UsageError(f"`{name}` must be true or false, not {value!r}")
        return value
    if name == "freeze" and isinstance(value, list):
        return _layers(value)
    number = _number(name, value, whole=kind == "int")
    low, high = LIMITS[name]
    if not low <= number <= high:
        raise UsageError(f"`{name}` must lie between {low:g} and {high:g}, not {number:g}")
    if name == "imgsz" and number % 32:
        nearest = max(32, round(number / 32) * 32)
        raise UsageError(f"`imgsz` must be a multiple of 32, the model's stride: {nearest} instead of {number}")
    return number


def _number(name: str, value: Any, *, whole: bool) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise UsageError(f"`{name}` must be a number, not {value!r}")
    try:
        number = float(value)
    except OverflowError as error:
        raise UsageError(f"`{name}` must be a number, not one so large") from error
    if not whole:
        return number
    if not number.is_integer():
        raise UsageError(f"`{name}` must be a whole number, not {value!r}")
    return int(value)


def _word(name: str, value: Any) -> str | bool:
    for word in WORDS[name]:
        if value is word or (isinstance(value, str) and isinstance(word, str) and value.lower() == word.lower()):
            return word
    known = ", ".join(str(word).lower() if isinstance(word, bool) else word for word in WORDS[name])
    raise UsageError(f"`{name}` cannot be {value!r}, known are {known}")


def _layers(value: list[Any]) -> list[Any]:
    if not value or not all((type(layer) is int and layer >= 0) or isinstance(layer, str) for layer in value):
        raise UsageError(f"`freeze` must be a number of layers or a list of layers, not {value!r}")
    return value
