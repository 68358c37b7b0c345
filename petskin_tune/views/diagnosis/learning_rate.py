"""The learning rate: what is usual, did it ever get there, and was the run still climbing when it ended."""

from __future__ import annotations

import math

import numpy as np

from petskin_tune.views.diagnosis.curves import Curves, fitness_noise, gain
from petskin_tune.views.diagnosis.finding import NOTHING_FOUND, Finding

# Usual initial rates as Ultralytics' default.yaml gives them: "SGD=1e-2, Adam/AdamW=1e-3".
USUAL_SGD, USUAL_ADAM = 1e-2, 1e-3
FAR_BELOW = 10.0  # a rate so many times below the usual one is suspect,
FAR_ABOVE = 3.0  # and one so many times above
LATE_WARM_UP = 0.6  # a rate that still rises after this share of the run never warmed up
CLIMB = 0.05  # rise of the score within the last quarter, as a share of its level, that asks for more epochs


def usual_rates(curves: Curves) -> tuple[float, float]:
    """Lowest and highest usual rate for the optimizer in force; both optimizers' where it is not known."""
    optimizer = curves.arguments.get("optimizer", "auto")
    if optimizer in ("SGD", "MuSGD"):
        return USUAL_SGD, USUAL_SGD
    return (USUAL_ADAM, USUAL_SGD) if optimizer == "auto" else (USUAL_ADAM, USUAL_ADAM)


def compared(curves: Curves, rate: float) -> tuple[str, float, float]:
    """``rate`` beside the usual one: ("low" | "usual" | "high", how many times, the usual rate)."""
    low, high = usual_rates(curves)
    if rate * FAR_BELOW <= low:
        return "low", low / rate, low
    if rate >= FAR_ABOVE * high:
        return "high", rate / high, high
    return "usual", 1.0, high if rate >= high else low


def peak_rate(curves: Curves) -> float | None:
    """The highest rate of the run; None where it is not recorded."""
    rate = curves.learning_rate
    peak = float(np.nanmax(rate)) if rate is not None and np.isfinite(rate).any() else 0.0
    return peak if peak > 0 else None


def never_warmed_up(curves: Curves) -> Finding | None:
    """The learning rate still rose when most of the run was over."""
    rate = curves.learning_rate
    if rate is None or not np.isfinite(rate).all():
        return None
    peak = int(np.argmax(rate))
    if peak < LATE_WARM_UP * len(curves) or rate[peak] < 1.2 * rate[0]:
        return None
    asked = curves.arguments.get("warmup_epochs")
    because = f" (warmup_epochs={asked})" if asked is not None else ""
    return Finding(
        kind="never-warmed-up",
        epoch=curves.number(peak),
        message=(
            f"Never warmed up: the learning rate still rose at epoch {curves.number(peak)} of {len(curves)}, "
            f"from {rate[0]:.2g} to {rate[peak]:.2g}{because}."
        ),
        advice=f"Try warmup_epochs={max(1, len(curves) // 10)}, or a run of at least {3 * (peak + 1)} epochs.",
        numbers={"peak": float(rate[peak])},
    )


def learning_rate_too_low(curves: Curves) -> Finding | None:
    """The rate peaked far below the usual one, and the run was still climbing when it ended."""
    rate, climb, loss = peak_rate(curves), _climb(curves), curves.train_loss
    if rate is None or climb is None or loss is None or compared(curves, rate)[0] != "low":
        return None
    _, times, usual = compared(curves, rate)
    fall = 1 - float(np.median(loss[-3:])) / float(loss[0])
    return Finding(
        kind="learning-rate-too-low",
        epoch=None,
        message=(
            f"Learning rate too low: it peaked at {rate:.2g}, {times:.0f} times below the usual {usual:.2g}; after "
            f"{len(curves)} epochs the training loss was {fall:.0%} down and {curves.fitness_name} still rose "
            f"({climb:+.0%} in the last quarter)."
        ),
        advice=f"Try lr0={min(usual, 5 * rate):.2g}.",
        numbers={"learning_rate": rate, "usual": usual},
    )


def still_improving(curves: Curves) -> Finding | None:
    """The score still rose, far beyond its noise, when the run ended."""
    climb = _climb(curves)
    if climb is None:
        return None
    return Finding(
        kind="still-improving",
        epoch=None,
        message=(
            f"Still improving at the end: {curves.fitness_name} rose {climb:.0%} in the last quarter of {len(curves)} "
            f"epochs; its best, {curves.fitness[curves.best]:.3f}, is epoch {curves.number(curves.best)}."
        ),
        advice=f"Train longer: {2 * len(curves)} epochs or more.",
        numbers={"climb": climb},
    )


def _climb(curves: Curves) -> float | None:
    """The score's rise over the last quarter, as a share of its level, where it is large and beyond doubt."""
    tail = curves.fitness[-max(6, math.ceil(len(curves) / 4)) :]
    level = float(np.mean(tail))
    if level < NOTHING_FOUND or len(curves) - curves.best > len(tail):
        return None
    difference, error = gain(tail, fitness_noise(curves))
    # The means of the halves lie half a tail apart: the rise over all of it is twice their difference.
    return 2 * difference / level if difference > 3 * error and 2 * difference > CLIMB * level else None
