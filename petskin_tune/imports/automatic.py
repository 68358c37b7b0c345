"""What ``optimizer: auto`` trained with, told by the learning rates of ``results.csv``.

Ultralytics' ``auto`` takes AdamW with lr0 0.01 / (4 + classes) for short runs. For long ones it takes lr0 0.01, with
SGD until 8.3 and with MuSGD since: which of them, no file says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from petskin_tune.diagnosis.curves import Curves
from petskin_tune.study.space.start_points import BUILT_MOMENTUM

_SLACK = 0.02  # of a learning rate: six digits are written, and releases differ in the step that they write
_OF_LONG_RUNS = 0.01
_MOST_CLASSES = 10_000
SET = ("optimizer", "lr0", "momentum", "warmup_bias_lr")  # by `auto`


def resolved(arguments: Mapping[str, Any], curves: Curves) -> dict[str, Any]:
    """``arguments`` with what ``auto`` set in force; without lr0, momentum, … where that cannot be told."""
    if str(arguments.get("optimizer", "auto")).lower() != "auto":
        return dict(arguments)
    others = {name: value for name, value in arguments.items() if name not in SET}
    rate = _lr0(curves)
    if rate is None:
        return {**others, "optimizer": "auto"}
    if abs(rate / _OF_LONG_RUNS - 1) <= _SLACK:
        return {**others, "optimizer": "auto", "lr0": _OF_LONG_RUNS, "momentum": BUILT_MOMENTUM, "warmup_bias_lr": 0.0}
    classes = round(_OF_LONG_RUNS / rate - 4)
    if not 1 <= classes <= _MOST_CLASSES or abs(rate * (4 + classes) / _OF_LONG_RUNS - 1) > _SLACK:
        return {**others, "optimizer": "auto"}
    lr0 = round(_OF_LONG_RUNS / (4 + classes), 6)
    return {**others, "optimizer": "AdamW", "lr0": lr0, "momentum": BUILT_MOMENTUM, "warmup_bias_lr": 0.0}


def unknown(arguments: Mapping[str, Any]) -> frozenset[str]:
    """What ``auto`` has set, and :func:`resolved` could not tell."""
    left = arguments.get("optimizer") == "auto"
    return frozenset(name for name in SET if name not in arguments) if left else frozenset()


def _lr0(curves: Curves) -> float | None:
    """lr0 by the first rate after the warm-up; None where there is none."""
    epochs = curves.planned
    warmup = math.ceil(curves.asked("warmup_epochs", 3.0))
    after = [index for index in range(len(curves)) if curves.number(index) > warmup]
    if epochs is None or not after or (rate := curves.rate(after[0])) is None:
        return None
    done, lrf = (curves.number(after[0]) - 1) / epochs, curves.asked("lrf", 0.01)
    cosine = bool(curves.arguments.get("cos_lr"))
    share = (1 - np.cos(done * np.pi)) / 2 if cosine else done
    factor = 1 - float(share) * (1 - lrf)
    return rate / factor if factor > 0 else None
