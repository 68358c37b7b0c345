"""Does it overfit: the training loss falls on, and the images that it does not train on get worse.

Two witnesses, either will do: a validation loss that rises while the score gains nothing, or a score that has fallen
far from its peak. A validation loss that rises while the score still does is common and no reason to act: the score
counts what is found, the loss also how surely. Before anything is found, a validation loss says nothing at all.
"""

from __future__ import annotations

import math

import numpy as np

from petskin_tune.diagnosis.curves import Array, Curves, fitness_noise, gain, noise, smooth
from petskin_tune.diagnosis.finding import NOTHING_FOUND, Finding
from petskin_tune.language import _

CHANGE = 0.03  # least rise of the validation loss, and least fall of the training loss, that count
DROP = 0.1  # least fall of the score from its peak, as a share of it
SINCE_EPOCHS, SINCE_SHARE = 5, 0.15  # for how long it must have lasted, in epochs and as a share of the run
AROUND = 2  # epochs on either side that a level is read from


def overfitting(curves: Curves) -> Finding | None:
    """See the module."""
    if curves.train_loss is None or len(curves) < 2 * SINCE_EPOCHS or curves.fitness[curves.best] < NOTHING_FOUND:
        return None
    for start, witness in ((_losses_part(curves), "losses"), (_score_falls(curves), "score")):
        since = max(SINCE_EPOCHS, math.ceil(SINCE_SHARE * len(curves)))
        if start is None or len(curves) - start <= since:
            continue
        fall = -_change_since(curves.train_loss, start)
        if fall >= CHANGE:
            return _finding(curves, start, fall, witness)
    return None


def _losses_part(curves: Curves) -> int | None:
    """Index since which the validation loss rises beyond its noise and the score gains nothing."""
    if curves.val_loss is None:
        return None
    found = int(np.argmax(smooth(curves.fitness) >= 0.5 * np.max(smooth(curves.fitness))))
    start = found + int(np.argmin(smooth(smooth(curves.val_loss))[found:]))
    relative_noise = noise(curves.val_loss) / abs(float(np.mean(curves.val_loss)))
    difference, error = gain(curves.fitness[start:], fitness_noise(curves))
    rises = _change_since(curves.val_loss, start) > max(CHANGE, 3 * relative_noise)
    return start if rises and difference <= error else None


def _score_falls(curves: Curves) -> int | None:
    """Index of the score's peak, where the last epochs lie far below it."""
    level = smooth(curves.fitness)
    start = int(np.argmax(level))
    drop = level[start] - float(np.median(curves.fitness[-2 * AROUND - 1 :]))
    return start if drop > max(4 * fitness_noise(curves), DROP * level[start]) else None


def _finding(curves: Curves, start: int, fall: float, witness: str) -> Finding:
    best, last = float(curves.fitness[curves.best]), float(np.median(curves.fitness[-2 * AROUND - 1 :]))
    best_epoch = curves.number(curves.best)
    losses = _("the training loss fell another {fall:.0%}").format(fall=fall)
    if witness == "losses" and curves.val_loss is not None:
        both = _("the validation loss rose {rise:.0%} while the training loss fell another {fall:.0%}")
        losses = both.format(rise=_change_since(curves.val_loss, start), fall=fall)
    return Finding(
        kind="overfitting",
        epoch=curves.number(start),
        message=_(
            "Overfitting since epoch {epoch}: {losses}, and {score} went from its best {best:.3f} (epoch {best_epoch}) "
            "to {last:.3f}."
        ).format(
            epoch=curves.number(start),
            losses=losses,
            score=curves.score,
            best=best,
            best_epoch=best_epoch,
            last=last,
        ),
        advice=_(
            "Use the weights of epoch {epoch}. Try fewer epochs, more augmentation (mosaic, mixup, copy_paste, "
            "degrees), a higher weight_decay, a smaller model, or more images."
        ).format(epoch=best_epoch),
        numbers={"train_fall": fall, "best": best, "last": last},
    )


def _change_since(values: Array, start: int) -> float:
    """Change from around ``start`` to the run's last epochs, as a share."""
    first = float(np.median(values[max(0, start - AROUND) : start + AROUND + 1]))
    return float(np.median(values[-2 * AROUND - 1 :])) / first - 1 if first else 0.0
