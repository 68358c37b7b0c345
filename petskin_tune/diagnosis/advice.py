"""What the curves of most trials of a study advise for the study itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from petskin_tune.diagnosis.finding import Kind
from petskin_tune.study.spec import StudySpec

COMMON = 0.5  # share of the trials from which on a finding is the study's
FEWEST = 2  # trials

_ADVICE: Mapping[Kind, tuple[str, str]] = {
    "still-improving": ("still improved when they ended", "longer trials, {epochs} epochs or more in a new study"),
    "learning-rate-too-low": ("learnt too slowly", "raise the range of lr0"),
    "never-warmed-up": ("were over before they had warmed up", "fewer warmup_epochs, or longer trials"),
    "diverged": ("diverged", "lower `high` of lr0"),
    "overfitting": ("overfitted", "fewer epochs, more images, or stronger augmentation"),
    "stuck": ("got stuck", "widen the range of lr0; if they stay there, it is what these labels allow"),
    "not-learning": ("learnt nothing", "raise the range of lr0, and look at the labels: petskin-tune data check"),
    "nothing-found": ("found nothing", "look at the labels first: petskin-tune data check"),
    "class-never-found": ("never found one of the classes", "look for its labels: petskin-tune data check"),
    "mask-worse-than-box": ("found boxes and lost the outlines", "look at the outlines: petskin-tune data check"),
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
    said = []
    for kind, (what, do) in _ADVICE.items():
        of = complete if kind == "still-improving" else judged
        count = len(set(shown.get(kind, ())) & set(of))
        if count >= max(FEWEST, COMMON * len(of)):
            epochs = 2 * spec.epochs if spec else "twice as many"
            said.append(f"{count} of {len(of)} trials {what}: {do.format(epochs=epochs)}.")
    return said
