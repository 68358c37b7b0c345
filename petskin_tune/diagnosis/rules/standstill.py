"""Does it stand still: a model that never learnt, or one that learnt and then got stuck; and why.

A flat score alone is no standstill: real runs reach 90 % of their best at a median 43 % of their epochs. What they
never show is a training loss that stands still as well, early on and to the end: theirs goes on falling by 0.2 % an
epoch and more, long after the score has stopped to rise.
"""

from __future__ import annotations

import math

import numpy as np

from petskin_tune.diagnosis.curves import Array, Curves, change, fitness_noise, gain, noise, smooth
from petskin_tune.diagnosis.finding import CLEARLY_FOUND, NOTHING_FOUND, Finding
from petskin_tune.diagnosis.rules.learning_rate import compared, higher_and_lower, peak_rate, rate_to_try
from petskin_tune.language import _, several

LEAST_TO_LEARN = 8  # epochs: a model trained from scratch may find nothing in its first five or six
LEAST_TO_FIND = 20  # epochs: by then one whose training loss falls finds something
CONVERGED = 0.9  # a score at which a model that stands still is done
NOTHING_LEARNT = 0.10  # a training loss that fell by less than this share has not learnt
PLATEAU_EPOCHS, PLATEAU_SHARE = 8, 0.25  # the shortest plateau, in epochs and as a share of the run
PLATEAU_START = 0.5  # share of the run by which it must begin: later, the falling learning rate explains it
FLAT, FLAT_PER_EPOCH, FLAT_AT_MOST = 0.02, 0.001, 0.05  # change of a flat training loss, as shares of its level


def not_learning(curves: Curves) -> Finding | None:
    """From the first epoch on, the loss hardly falls and nothing is found."""
    loss = curves.train_loss
    if loss is None or len(curves) < LEAST_TO_LEARN or np.max(smooth(curves.fitness)) >= NOTHING_FOUND:
        return None
    if _beginning(loss) <= 0:  # the columns are there, and nobody has filled them
        return None
    fall = 1 - float(np.median(loss[-3:])) / _beginning(loss)
    if fall >= NOTHING_LEARNT:
        return None
    went = _("did not fall") if fall <= 0 else _("fell by {fall:.0%} only").format(fall=fall)
    return Finding(
        kind="not-learning",
        epoch=1,
        message=_(
            "Not learning: in {epochs} epochs the training loss {went} ({first:.3g} to {last:.3g}) and {score} stayed "
            "below {nothing}. This is a model that does not learn, not one in a local minimum: it never went anywhere."
        ).format(
            epochs=len(curves), went=went, first=loss[0], last=loss[-1], score=curves.score, nothing=NOTHING_FOUND
        ),
        advice=_why_not_learning(curves),
        numbers={"loss_fall": fall, "best": float(np.max(curves.fitness))},
    )


def nothing_found(curves: Curves) -> Finding | None:
    """The training images are learnt, and on those of the validation set nothing is found, neither masks nor boxes."""
    loss = curves.train_loss
    if loss is None or len(curves) < LEAST_TO_FIND or np.max(smooth(curves.fitness)) >= NOTHING_FOUND:
        return None
    if _beginning(loss) <= 0:
        return None
    fall = 1 - float(np.median(loss[-3:])) / _beginning(loss)
    if fall < NOTHING_LEARNT or (curves.box is not None and np.max(smooth(curves.box)) >= CLEARLY_FOUND):
        return None
    return Finding(
        kind="nothing-found",
        epoch=1,
        message=_(
            "Nothing found: in {epochs} epochs the training loss fell by {fall:.0%} ({first:.3g} to {last:.3g}), and "
            "{score} stayed below {nothing}. The model learns its training images and finds nothing on the validation "
            "images."
        ).format(
            epochs=len(curves), fall=fall, first=loss[0], last=loss[-1], score=curves.score, nothing=NOTHING_FOUND
        ),
        advice=_(
            "Compare the labels and the classes of train and val (petskin-tune data check): missing or shifted label "
            "files, another order of the classes, other images. More epochs will not help."
        ),
        numbers={"loss_fall": fall, "best": float(np.max(curves.fitness))},
    )


def _why_not_learning(curves: Curves) -> str:
    look = _("look at the labels on their images (petskin-tune data check)")
    rate = peak_rate(curves)
    if rate is None:
        both = _("Try {rates}, for three epochs each, and {look}.")
        return both.format(rates=higher_and_lower(curves), look=look)
    verdict, times, usual = compared(curves, rate)
    if verdict == "usual":
        return _("The learning rate is usual ({rate:.2g}), so {look}.").format(rate=rate, look=look)
    peaked = _(
        "The learning rate peaked at {rate:.2g}, {times:.0f} times below the usual {usual:.2g}: raise lr0 (try "
        "{instead})."
    )
    if verdict == "high":
        peaked = _(
            "The learning rate peaked at {rate:.2g}, {times:.0f} times above the usual {usual:.2g}: lower lr0 (try "
            "{instead})."
        )
    return peaked.format(rate=rate, times=times, usual=usual, instead=rate_to_try(curves, usual))


def stuck(curves: Curves) -> Finding | None:
    """It learnt, then score and training loss stood still from the first half of the run on, to its end."""
    start = _plateau(curves)
    if start is None or curves.train_loss is None or _has_converged(curves, start):
        return None
    loss, score = curves.train_loss[start : _end_of_loss(curves, start)], curves.fitness[start:]
    first, level, rate = _beginning(curves.train_loss), float(np.median(loss)), curves.rate(start)
    fall = 1 - level / first
    at_rate = _(", with a learning rate of {rate:.2g}").format(rate=rate) if rate else ""
    learnt = _("It hardly learnt before either (the loss fell {fall:.0%} from {first:.3g}).")
    if fall >= NOTHING_LEARNT:
        learnt = _(
            "It did learn before (the loss fell {fall:.0%} from {first:.3g}): this is not a model that cannot learn."
        )
    cause, advice = _cause(curves, rate, level)
    return Finding(
        kind="stuck",
        epoch=curves.number(start),
        message=_(
            "Stuck since epoch {epoch}: for {epochs} the training loss stayed at {level:.3g} ({change:+.1%}) and "
            "{score} at {mean:.3f} (noise {noise:.3f}){at_rate}. {learnt} {cause}"
        ).format(
            epoch=curves.number(start),
            epochs=several(len(score), _("{count} epoch"), _("{count} epochs")),
            level=level,
            change=change(loss),
            score=curves.score,
            mean=np.mean(score),
            noise=fitness_noise(curves),
            at_rate=at_rate,
            learnt=learnt.format(fall=fall, first=first),
            cause=cause,
        ),
        advice=advice,
        numbers={
            "loss": level,
            "score": float(np.mean(score)),
            "learning_rate": rate or math.nan,
            "epochs": float(len(score)),
        },
    )


def _cause(curves: Curves, rate: float | None, level: float) -> tuple[str, str]:
    """Why it stands still, as far as the learning rate tells, and the short run that decides it."""
    decides = _("Three epochs are enough: a loss below {loss:.3g} means that it was the size of the steps").format(
        loss=0.97 * level
    )
    if rate is None:
        unknown = _("The run recorded no learning rate, so whether its steps were too small cannot be told.")
        return unknown, _("Try {rate}. {decides}.").format(rate=higher_and_lower(curves), decides=decides)
    verdict, times, usual = compared(curves, rate)
    if verdict == "low":
        small = _(
            "Its steps are small, {times:.0f} times below the usual {usual:.2g}: the likely cause is a learning rate "
            "that is too low, not a local minimum."
        )
        advice = _("Try {rate}. {decides}; a loss that stays there means that it is the floor.").format(
            rate=rate_to_try(curves, min(usual, 5 * rate)), decides=decides
        )
        return small.format(times=times, usual=usual), advice
    if verdict == "high":
        large = _("Its steps are large, {times:.0f} times above the usual {usual:.2g}: it bounces instead of settling.")
        advice = _("Try {rate}. {decides}.").format(rate=rate_to_try(curves, rate / 5), decides=decides)
        return large.format(times=times, usual=usual), advice
    return (
        _(
            "Its steps are of the usual size ({rate:.2g}), large enough to leave a local minimum: this loss is the "
            "floor of this model on these images, as they are augmented and labelled."
        ).format(rate=rate),
        _(
            "Try less augmentation (mosaic, scale, degrees, hsv), a larger imgsz or model, and look at the labels "
            "(petskin-tune data check). More epochs will not help."
        ),
    )


def _plateau(curves: Curves) -> int | None:
    """Index of the first epoch from which on score and training loss are flat, to the end of the run."""
    if curves.train_loss is None:
        return None
    least = max(PLATEAU_EPOCHS, math.ceil(PLATEAU_SHARE * len(curves)))
    for start in range(min(len(curves) - least, math.floor(PLATEAU_START * len(curves))) + 1):
        loss = curves.train_loss[start : _end_of_loss(curves, start)]
        if _is_flat(loss) and not _rises(curves.fitness[start:], fitness_noise(curves)):
            return start
    return None


def _has_converged(curves: Curves, start: int) -> bool:
    """Whether there is little left to find, and the validation loss does not say that it gets worse."""
    worse = curves.val_loss is not None and change(curves.val_loss[start:]) > FLAT
    return float(np.mean(curves.fitness[start:])) >= CONVERGED and not worse


def _beginning(loss: Array) -> float:
    """The level a loss began at; the very first epoch may lie below it, before anything is matched."""
    return max(float(loss[0]), float(np.median(loss[:3])))


def _end_of_loss(curves: Curves, start: int) -> int:
    """Where to stop looking at the training loss: closing mosaic makes it drop by itself."""
    closes = curves.mosaic_closes
    return closes if closes - start >= PLATEAU_EPOCHS else len(curves)


def _is_flat(loss: Array) -> bool:
    level = float(np.mean(loss))
    if level <= 0:
        return False
    # A straight line through n values of noise s rises by s * sqrt(12 / n) over its length, give or take.
    by_chance = 2 * noise(loss) / level * math.sqrt(12 / len(loss))
    allowed = min(FLAT_AT_MOST, max(FLAT, FLAT_PER_EPOCH * len(loss), by_chance))
    return abs(loss[0] / level - 1) <= allowed and abs(change(loss)) <= allowed


def _rises(score: Array, deviation: float) -> bool:
    difference, error = gain(score, deviation)
    return difference > max(2 * error, 0.02 * abs(float(np.mean(score))))
