"""What a worker says of the search as a whole while it goes on; the rules are those of ``petskin-tune diagnose``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from petskin_tune.diagnosis import search
from petskin_tune.protocol import FailureKind
from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.study.best.ranking import best
from petskin_tune.study.foreign import without_foreign
from petskin_tune.study.spec import StudySpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class SearchWatch:
    """Says what is wrong with the search when it begins to be, and not again after every trial."""

    def __init__(self) -> None:
        self._known: set[search.Concern] = set()

    def news(self, trials: Sequence[FrozenTrial], spec: StudySpec) -> list[str]:
        """Sentences on what was right when this was asked last; what passed may be said again when it comes back."""
        concerns = search.concerns(trials, spec, best(trials), spec.max_identical_failures)
        new = [sentence for concern, sentence in concerns.items() if concern not in self._known]
        self._known = set(concerns)
        return new


def stopped_by_failures(trials: Sequence[FrozenTrial], spec: StudySpec) -> str | None:
    """Why to go on would be a waste: the last ``max_identical_failures`` trials failed alike; None: nothing is.

    What the sampler is told as a constraint it learns to avoid, if not at once: while there are trials with a value,
    too, such failures are a warning and no end.
    """
    alike = search.identical_failures(trials)
    is_constraint = alike is not None and any(constraint_attrs(cast(FailureKind, alike[0])).values())
    if is_constraint and any(map(search.is_healthy, without_foreign(trials))):
        return None
    return search.concerns(trials, spec, None, spec.max_identical_failures).get("same-failure")
