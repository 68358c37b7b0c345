"""Has it diverged: a loss that is no number or grew many-fold, a score that collapsed."""

from __future__ import annotations

import math

import numpy as np

from petskin_tune.diagnosis.curves import Array, Curves, fitness_noise
from petskin_tune.diagnosis.finding import CLEARLY_FOUND, NOTHING_FOUND, Finding
from petskin_tune.diagnosis.rules.learning_rate import lower_rate
from petskin_tune.language import _

GROWTH = 3.0  # a loss that grew so many-fold and stayed there has diverged
COLLAPSED = 0.1  # a score that fell to this share of its best and stayed there has collapsed
LAST = 3  # epochs that "stayed there" looks at
COMES_BACK = 10  # epochs after which a score that collapsed in the warm-up may have come back


def diverged(curves: Curves) -> Finding | None:
    """The training loss is not finite any more, or grew many-fold and stayed there, or the score collapsed.

    Validation losses are no witness: validators of 2023 recorded infinite ones on healthy runs. Nor is one cell of the
    file that is no number.
    """
    loss = curves.train_loss
    if loss is not None and (at := _ends_as_no_number(loss, curves.fitness)) is not None:
        what = _("the training loss is {loss} at epoch {epoch}")
        if at:
            what = _("the training loss is {loss} at epoch {epoch} after {before:.3g} an epoch earlier")
        return _finding(curves, at, what.format(loss=loss[at], epoch=curves.number(at), before=loss[at - 1]))
    if (at := _ends_as_no_number(curves.fitness, curves.fitness)) is not None:
        what = _("the {score} is not a number at epoch {epoch}")
        return _finding(curves, at, what.format(score=curves.score, epoch=curves.number(at)))
    sound = curves.sound()
    return (_explosion(sound) or _collapse(sound)) if len(sound) else None


def _ends_as_no_number(values: Array, score: Array) -> int | None:
    """Index since which ``values`` are not finite, for three epochs or with the score lost; None: they are again."""
    finite = np.isfinite(values)
    if finite[-1]:
        return None
    at = len(values) - int(np.argmax(finite[::-1])) if finite.any() else 0
    before, after = score[:at][np.isfinite(score[:at])], score[at:][np.isfinite(score[at:])]
    lost = len(after) > 0 and np.max(after) < max(NOTHING_FOUND, COLLAPSED * float(np.max(before, initial=0.0)))
    return at if lost or len(values) - at >= LAST else None


def _explosion(curves: Curves) -> Finding | None:
    """A loss that grew many-fold and did not come back, or after which nothing was found any more.

    A broken model predicts nothing, and nothing costs little: its loss may well come down again.
    """
    loss = curves.train_loss
    if loss is None or len(loss) < LAST:
        return None
    least = np.minimum.accumulate(loss)
    exploded = loss / GROWTH > least
    if not exploded.any():
        return None
    at = int(np.argmax(exploded))
    grown = _("the training loss grew from {least:.3g} to {loss:.3g} at epoch {epoch}").format(
        least=least[at], loss=loss[at], epoch=curves.number(at)
    )
    if float(np.median(loss[-LAST:])) / GROWTH > least[-1]:
        return _finding(
            curves, at, _("{grown} and stayed high ({last:.3g} in the end)").format(grown=grown, last=loss[-1])
        )
    if len(loss) - at >= LAST and np.max(curves.fitness[at:]) < NOTHING_FOUND:
        return _finding(curves, at, _("{grown}, and nothing was found any more").format(grown=grown))
    return None


def _collapse(curves: Curves) -> Finding | None:
    """What is left when weights that were no numbers are made zeros: nothing is found ever after."""
    best = float(curves.fitness[curves.best])
    since = len(curves) - 1 - curves.best
    if best < max(CLEARLY_FOUND, 10 * fitness_noise(curves)) or since < (LAST if curves.has_ended else COMES_BACK):
        return None
    if np.max(curves.fitness[-LAST:]) > COLLAPSED * best:
        return None
    at = curves.best + int(np.argmax(curves.fitness[curves.best :] <= COLLAPSED * best))
    fell = _("the {score} fell from {best:.3f} to {fallen:.3f} at epoch {epoch} and never came back")
    fallen = fell.format(score=curves.score, best=best, fallen=curves.fitness[at], epoch=curves.number(at))
    return _finding(curves, at, fallen)


def _finding(curves: Curves, at: int, what: str) -> Finding:
    rate = curves.rate(at)
    at_rate = _(", with a learning rate of {rate:.2g}").format(rate=rate) if rate else ""
    return Finding(
        kind="diverged",
        epoch=curves.number(at),
        message=_("Diverged: {what}{at_rate}. Nothing from there on is worth keeping.").format(
            what=what, at_rate=at_rate
        ),
        advice=_(
            "Try {rate}, or a longer warm-up (warmup_epochs); if it persists on a GPU, amp=bf16 or amp=False."
        ).format(rate=lower_rate(curves, rate)),
        numbers={"learning_rate": rate or math.nan, "best": float(np.nanmax(curves.fitness, initial=0.0))},
    )
