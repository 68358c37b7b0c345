"""Made curves: what a healthy training looks like, and each illness on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from petskin_tune.diagnosis.curves import from_history
from petskin_tune.diagnosis.finding import Finding
from petskin_tune.diagnosis.verdict import judge

MASK, BOX, MASK50 = "metrics/mAP50-95(M)", "metrics/mAP50-95(B)", "metrics/mAP50(M)"
History = dict[str, Sequence[float]]


def healthy(
    seed: int,
    *,
    epochs: int = 100,
    best: float = 0.4,
    noise: float = 0.007,
    reach: float = 0.43,
    decline: float = 0.027,
    lr0: float = 0.01,
    mosaic_drop: float = 0.08,
) -> History:
    """As public YOLO segmentation runs are: 90 % of the best at 43 % of the run, 2.7 % lost in the end, noise 0.007, a
    training loss that falls for ever and drops when mosaic closes ten epochs before the end."""
    rng = np.random.default_rng(seed)
    index = np.arange(epochs)
    share = (index + 1) / epochs
    score = best * (1 - np.exp(-share * np.log(10) / reach)) * (1 - decline * np.clip((share - 0.6) / 0.4, 0, 1))
    loss = (4 + 4 * np.exp(-8 * share)) * np.exp(-0.3 * share)
    if epochs > 20:
        loss[-10:] *= 1 - mosaic_drop
    val = (4.8 + 4 * np.exp(-8 * share)) * (1 - 0.08 * share)
    mask = np.clip(score + rng.normal(0, noise, epochs), 0, 1)
    rate = lr0 * (1 - 0.99 * index / epochs) * np.clip((index + 1) / 3, 0, 1)
    return {
        "epoch": index + 1,
        "train/box_loss": 0.4 * loss * (1 + rng.normal(0, 0.005, epochs)),
        "train/seg_loss": 0.6 * loss * (1 + rng.normal(0, 0.005, epochs)),
        "val/box_loss": 0.4 * val * (1 + rng.normal(0, 0.02, epochs)),
        "val/seg_loss": 0.6 * val * (1 + rng.normal(0, 0.02, epochs)),
        MASK: mask,
        BOX: mask * 1.2,
        "lr/pg0": rate,
    }


def arguments(epochs: int = 100, **changes: Any) -> dict[str, Any]:
    known = {"epochs": epochs, "optimizer": "SGD", "lr0": 0.01, "mosaic": 1.0, "close_mosaic": 10, "warmup_epochs": 3.0}
    return known | changes


def seed_project(seed: int = 0) -> History:
    """Loss 1.8 for 40 epochs at lr 7.3e-5 under AdamW, after six epochs that learnt: mask mAP 0.117."""
    rng = np.random.default_rng(seed)
    index = np.arange(47)
    loss = 1.8 + 2.1 * np.exp(-index / 1.2)
    score = 0.117 * (1 - np.exp(-index / 1.5))
    return {
        "epoch": index + 1,
        "train/seg_loss": loss * (1 + rng.normal(0, 0.004, 47)),
        "val/seg_loss": (loss + 0.3) * (1 + rng.normal(0, 0.01, 47)),
        MASK: np.clip(score + rng.normal(0, 0.004, 47), 0, 1),
        BOX: np.clip(1.2 * score + rng.normal(0, 0.004, 47), 0, 1),
        "lr/pg0": np.full(47, 7.3e-5),
    }


def diverging(seed: int = 0, *, at: int = 20, value: float = float("nan")) -> History:
    history = healthy(seed)
    history["train/seg_loss"][at:] = value  # type: ignore[index]
    history[MASK][at:] = 0.0  # type: ignore[index]
    return history


def overfitted(seed: int = 0, *, since: int = 30, rise: float = 0.25, score_falls: bool = True) -> History:
    history = healthy(seed, reach=0.25, decline=0.0)
    after = np.clip((np.arange(100) - since) / (100 - since), 0, None)
    for name in ("val/box_loss", "val/seg_loss"):
        history[name] = history[name] * (1 + (rise + 0.08) * after)  # type: ignore[operator]
    for name in ("train/box_loss", "train/seg_loss"):
        history[name] = history[name] * (1 - 0.3 * after)  # type: ignore[operator]
    if score_falls:
        history[MASK] = history[MASK] * (1 - 0.15 * after)  # type: ignore[operator]
    return history


def never_learning(seed: int = 0, lr: float = 1e-7) -> History:
    rng = np.random.default_rng(seed)
    return {
        "train/seg_loss": 8 * (1 + rng.normal(0, 0.01, 20)),
        "val/seg_loss": 9 * (1 + rng.normal(0, 0.01, 20)),
        MASK: np.abs(rng.normal(0, 0.0005, 20)),
        BOX: np.abs(rng.normal(0, 0.0005, 20)),
        "lr/pg0": np.full(20, lr),
    }


def never_warmed_up(seed: int = 0, epochs: int = 20) -> History:
    return healthy(seed, epochs=epochs) | {"lr/pg0": np.linspace(1e-4, 9e-3, epochs)}


def masks_off(seed: int = 0) -> History:
    history = healthy(seed)
    return history | {MASK: 0.4 * np.asarray(history[BOX])}


def climbing(seed: int = 0, *, lr0: float = 0.01) -> History:
    return healthy(seed, epochs=40, reach=2.0, decline=0.0, lr0=lr0)


def diagnose_curves(
    history: Mapping[str, Sequence[float]], arguments: Mapping[str, Any] | None = None
) -> list[Finding]:
    return judge(from_history(history, arguments))
