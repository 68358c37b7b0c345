"""The learning rate: what is usual, did it ever get there, and was the run still climbing when it ended.

A run that has not done all its epochs is judged by none of these: its warm-up may go on, and of course it still climbs.
"""

from __future__ import annotations

import math

import numpy as np

from petskin_tune.diagnosis.curves import Curves, fitness_noise, gain
from petskin_tune.diagnosis.finding import NOTHING_FOUND, Finding
from petskin_tune.language import _

# Usual initial rates as Ultralytics' default.yaml gives them: "SGD=1e-2, Adam/AdamW=1e-3".
USUAL_SGD, USUAL_ADAM = 1e-2, 1e-3
FAR_BELOW = 10.0  # a rate so many times below the usual one is suspect,
FAR_ABOVE = 3.0  # and one so many times above
LATE_WARM_UP = 0.6  # a rate that still rises after this share of the run never warmed up
LEAST_TAIL = 6  # epochs: the end of a run is its last quarter, but not fewer
CLIMB = 0.05  # rise of the score within that end, as a share of its level, that asks for more epochs


def usual_rates(curves: Curves) -> tuple[float, float]:
    """Lowest and highest usual rate for the optimizer in force; both optimizers' where it is not known."""
    optimizer = _optimizer(curves)
    if optimizer in ("sgd", "musgd"):
        return USUAL_SGD, USUAL_SGD
    return (USUAL_ADAM, USUAL_SGD) if optimizer == "auto" else (USUAL_ADAM, USUAL_ADAM)


def _optimizer(curves: Curves) -> str:
    return str(curves.arguments.get("optimizer") or "auto").lower()


def rate_to_try(curves: Curves, rate: float) -> str:
    """How to ask for an initial rate; ``optimizer=auto``, Ultralytics' default, ignores lr0 unless one is named."""
    if _optimizer(curves) == "auto":
        return f"optimizer=AdamW lr0={min(rate, USUAL_ADAM):.2g}"
    return f"lr0={rate:.2g}"


def lower_rate(curves: Curves, rate: float | None) -> str:
    """How to ask for a fifth of the initial rate, where the run had ``rate`` when that was too much."""
    known = (peak_rate(curves) or USUAL_ADAM) if _optimizer(curves) == "auto" else curves.asked("lr0", rate or 0.0)
    return rate_to_try(curves, known / 5) if known > 0 else _("a fifth of lr0")


def higher_and_lower(curves: Curves) -> str:
    """How to ask for both directions, where the run recorded no rate."""
    if _optimizer(curves) == "auto":
        both = _("optimizer=AdamW with lr0={high:.2g} and with lr0={low:.2g}")
        return both.format(high=5 * USUAL_ADAM, low=USUAL_ADAM / 5)
    return _("lr0 five times higher and five times lower")


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
    if curves.in_progress or rate is None or not np.isfinite(rate).all():
        return None
    peak = int(np.argmax(rate))
    if peak < LATE_WARM_UP * len(curves) or rate[peak] < 1.2 * rate[0]:
        return None
    asked = curves.asked("warmup_epochs", -1)
    because = f" (warmup_epochs={asked:g})" if asked >= 0 else ""
    return Finding(
        kind="never-warmed-up",
        epoch=curves.number(peak),
        message=_(
            "Never warmed up: the learning rate still rose at epoch {epoch} of {epochs}, from {first:.2g} to "
            "{peak:.2g}{because}."
        ).format(epoch=curves.number(peak), epochs=len(curves), first=rate[0], peak=rate[peak], because=because),
        advice=_("Try warmup_epochs={warm_up}, or a run of at least {epochs} epochs.").format(
            warm_up=max(1, len(curves) // 10), epochs=3 * (peak + 1)
        ),
        numbers={"peak": float(rate[peak])},
    )


def learning_rate_too_low(curves: Curves) -> Finding | None:
    """The rate peaked far below the usual one, and the run was still climbing when it ended."""
    rate, (window, climb), loss = peak_rate(curves), _climb(curves), curves.train_loss
    if rate is None or climb is None or loss is None or loss[0] <= 0 or compared(curves, rate)[0] != "low":
        return None
    times, usual = compared(curves, rate)[1:]
    fall = 1 - float(np.median(loss[-3:])) / float(loss[0])
    return Finding(
        kind="learning-rate-too-low",
        epoch=None,
        message=_(
            "Learning rate too low: it peaked at {rate:.2g}, {times:.0f} times below the usual {usual:.2g}; after "
            "{epochs} epochs the training loss was {fall:.0%} down and {score} still rose ({climb:+.0%} in the last "
            "{window})."
        ).format(
            rate=rate,
            times=times,
            usual=usual,
            epochs=len(curves),
            fall=fall,
            score=curves.score,
            climb=climb,
            window=window,
        ),
        advice=_("Try {rate}.").format(rate=rate_to_try(curves, min(usual, 5 * rate))),
        numbers={"learning_rate": rate, "usual": usual},
    )


def still_improving(curves: Curves) -> Finding | None:
    """The score still rose, far beyond its noise, when the run ended."""
    window, climb = _climb(curves)
    if climb is None:
        return None
    return Finding(
        kind="still-improving",
        epoch=None,
        message=_(
            "Still improving at the end: {score} rose {climb:.0%} in the last {window} of {epochs} epochs; its best, "
            "{best:.3f}, is epoch {epoch}."
        ).format(
            score=curves.score,
            climb=climb,
            window=window,
            epochs=len(curves),
            best=curves.fitness[curves.best],
            epoch=curves.number(curves.best),
        ),
        advice=_("Train longer: {epochs} epochs or more.").format(epochs=2 * len(curves)),
        numbers={"climb": climb},
    )


def _climb(curves: Curves) -> tuple[int, float | None]:
    """Over how many last epochs of an ended run, and by what share of its level, the score rose beyond doubt."""
    tail = curves.fitness[-max(LEAST_TAIL, math.ceil(len(curves) / 4)) :]
    level = float(np.mean(tail))
    if curves.in_progress or level < NOTHING_FOUND or len(curves) - curves.best > len(tail):
        return len(tail), None
    difference, error = gain(tail, fitness_noise(curves))
    # The means of the halves lie half a tail apart: the rise over all of it is twice their difference.
    rises = difference > 3 * error and 2 * difference > CLIMB * level
    return len(tail), 2 * difference / level if rises else None
