"""The course of a run on which no rule has found anything: healthy, too young to tell, or out of the ordinary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from petskin_tune.diagnosis.curves import Curves, fitness_noise
from petskin_tune.diagnosis.finding import NOTHING_FOUND
from petskin_tune.diagnosis.rules.divergence import COMES_BACK
from petskin_tune.diagnosis.rules.standstill import LEAST_TO_FIND
from petskin_tune.language import _

NEARLY_ALL = 0.9  # of the best value: when it was reached says how the run spent its time
NOISY = 0.05  # of the best value: noise of which it is said that it explains a best that stands out
USUAL_NEARLY, USUAL_FALL = 0.43, 0.027  # when that is, and how far runs end below their best: medians of public runs
LATE_TIMES, FAR_TIMES = 2.0, 4.0  # times the usual, from which on a run is not called usual
ENDS_LOW, LATE = "ends far below its best", "good only in the end"
FALLEN = 0.5  # of the best value: a run that ends below it is not called healthy


def no_finding(curves: Curves) -> tuple[str, list[str]]:
    """What to say of a run on which no rule has found anything."""
    best, last = float(curves.fitness[curves.best]), _last(curves)
    if best < NOTHING_FOUND:
        nothing = _(
            "No verdict yet: after {epochs} epochs nothing is found ({score} below {nothing}). From scratch that may "
            "take {least} epochs; if it goes on, compare the labels and the classes of train and val (petskin-tune "
            "data check)."
        )
        said = nothing.format(epochs=len(curves), score=curves.score, nothing=NOTHING_FOUND, least=LEAST_TO_FIND)
        return _("no verdict yet"), [said]
    if last < FALLEN * best and _comes_back_no_more(curves):
        gone = _(
            "{score} fell from {best:.3f} (epoch {epoch}) to {last:.3f} and did not come back: the weights of epoch "
            "{epoch} are the best; a smaller lr0 or fewer epochs may hold it."
        )
        epoch = curves.number(curves.best)
        return _("worth a look"), [gone.format(score=curves.score, best=best, epoch=epoch, last=last)]
    if last < FALLEN * best:
        fell = _(
            "No verdict yet: {score} fell from {best:.3f} (epoch {epoch}) to {last:.3f}. In the first epochs that "
            "often heals; {epochs} epochs after the best it can be told."
        )
        epoch = curves.number(curves.best)
        said = fell.format(score=curves.score, best=best, epoch=epoch, last=last, epochs=COMES_BACK)
        return _("no verdict yet"), [said]
    if curves.in_progress:
        so_far = _("No sign of trouble so far, {done} of {planned} epochs are done.")
        return _("nothing is wrong so far"), [so_far.format(done=curves.number(-1), planned=curves.planned)]
    if seen := unusual(curves):
        return _("worth a look"), _of_an_unusual_end(curves, seen)
    return _("nothing is wrong"), [_("No sign of trouble: {course}.").format(course=_course(curves))]


def _comes_back_no_more(curves: Curves) -> bool:
    """Whether a run that has fallen is over, or has had the epochs in which others recover."""
    return curves.has_ended or len(curves) - 1 - curves.best >= COMES_BACK


def _last(curves: Curves) -> float:
    return float(np.mean(curves.fitness[-3:]))


def _nearly(curves: Curves) -> int:
    """The index of the epoch at which nearly all of the best was there."""
    return int(np.argmax(curves.fitness >= NEARLY_ALL * curves.fitness[curves.best]))


def unusual(curves: Curves) -> list[str]:
    """What is out of the ordinary about a run that has no finding."""
    best = float(curves.fitness[curves.best])
    if curves.in_progress or best < NOTHING_FOUND:
        return []
    ends_low = 1 - _last(curves) / best > FAR_TIMES * USUAL_FALL
    late = (_nearly(curves) + 1) / len(curves) > LATE_TIMES * USUAL_NEARLY
    return [name for name, found in ((ENDS_LOW, ends_low), (LATE, late)) if found]


def _of_an_unusual_end(curves: Curves, seen: Sequence[str]) -> list[str]:
    best, noise = float(curves.fitness[curves.best]), fitness_noise(curves)
    lines = [_("Its course is unusual: {course}.").format(course=_course(curves))]
    ways: list[str] = []
    if ENDS_LOW in seen and noise > NOISY * best:
        ways.append(_("The best epoch may be luck: validate on more images, or compare with other seeds."))
    elif ENDS_LOW in seen:
        best_weights = _("The weights of epoch {epoch} are the best; fewer epochs or a smaller lrf would have done.")
        ways.append(best_weights.format(epoch=curves.number(curves.best)))
    if LATE in seen and ENDS_LOW not in seen:  # a single high epoch near the end is no rise
        late = _("It was good only in the end: {epochs} epochs may make it better.")
        ways.append(late.format(epochs=2 * len(curves)))
    return [*lines, *(f"  → {way}" for way in ways)]


def _course(curves: Curves) -> str:
    """When the run was nearly as good as its best, and how it ended, beside what is usual."""
    best, noise, nearly = float(curves.fitness[curves.best]), fitness_noise(curves), _nearly(curves)
    noisy = _(", with noise of {noise:.3f} from one epoch to the next").format(noise=noise)
    return _(
        "90 % of the best was there at epoch {epoch} ({share:.0%} of the run; {usual:.0%} is usual), the last epochs "
        "lie {below:.1%} below the best ({usual_below:.1%} is usual){noisy}"
    ).format(
        epoch=curves.number(nearly),
        share=(nearly + 1) / len(curves),
        usual=USUAL_NEARLY,
        below=1 - _last(curves) / best,
        usual_below=USUAL_FALL,
        noisy=noisy if noise > NOISY * best else "",
    )
