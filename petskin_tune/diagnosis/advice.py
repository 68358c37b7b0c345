"""What the curves of most trials of a study advise for the study itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from petskin_tune.diagnosis.finding import Kind
from petskin_tune.language import _
from petskin_tune.study.spec import StudySpec

COMMON = 0.5  # share of the trials from which on a finding is the study's
FEWEST = 2  # trials

# Of common findings that advise the opposite only the more frequent one is told, and neither of two as frequent ones.
_TOO_SLOW: tuple[Kind, ...] = ("learning-rate-too-low", "stuck", "not-learning")
_OPPOSED: Mapping[Kind, tuple[Kind, ...]] = {
    "still-improving": ("overfitting",),
    "overfitting": ("still-improving",),
    "diverged": _TOO_SLOW,
    **dict.fromkeys(_TOO_SLOW, ("diverged",)),
}


def _advice(epochs: int | None) -> Mapping[Kind, tuple[str, str]]:
    """What trials did, and what to do about it; ``epochs``: of a trial."""
    longer = _("longer trials, twice as many epochs or more in a new study")
    if epochs is not None:
        longer = _("longer trials, {epochs} epochs or more in a new study").format(epochs=2 * epochs)
    return {
        "still-improving": (_("still improved when they ended"), longer),
        "learning-rate-too-low": (_("learnt too slowly"), _("raise the range of lr0")),
        "never-warmed-up": (_("were over before they had warmed up"), _("fewer warmup_epochs, or longer trials")),
        "diverged": (_("diverged"), _("lower `high` of lr0")),
        "overfitting": (_("overfitted"), _("fewer epochs, more images, or stronger augmentation")),
        "stuck": (
            _("got stuck"),
            _("widen the range of lr0; if they stay there, it is what these labels allow"),
        ),
        "not-learning": (
            _("learnt nothing"),
            _("raise the range of lr0, and look at the labels: petskin-tune data check"),
        ),
        "nothing-found": (_("found nothing"), _("look at the labels first: petskin-tune data check")),
        "class-never-found": (
            _("never found one of the classes"),
            _("look for its labels: petskin-tune data check"),
        ),
        "mask-worse-than-box": (
            _("found boxes and lost the outlines"),
            _("look at the outlines: petskin-tune data check"),
        ),
    }


def advice(
    shown: Mapping[str, Collection[int]], judged: Collection[int], complete: Collection[int], spec: StudySpec | None
) -> list[str]:
    """What to change in the study, each in a sentence; nothing where no finding is common to most trials.

    Args:
        shown: numbers of the trials by what their curves show.
        judged: numbers of the trials that were long enough for a verdict.
        complete: of them, those that trained to their end: the others cannot have improved in the end.
        spec: of the study.
    """
    of = {kind: set(complete if kind == "still-improving" else judged) for kind in _advice(None)}
    counts = {kind: len(set(shown.get(kind, ())) & among) for kind, among in of.items()}
    common = {kind for kind, count in counts.items() if count >= max(FEWEST, COMMON * len(of[kind]))}
    said = []
    for kind, (what, do) in _advice(spec.epochs if spec else None).items():
        opposed = common.intersection(_OPPOSED.get(kind, ()))
        if kind in common and not any(counts[other] >= counts[kind] for other in opposed):
            line = _("{count} of {total} trials {what}: {do}.")
            said.append(line.format(count=counts[kind], total=len(of[kind]), what=what, do=do))
    return said
