"""Runs of elsewhere, from which the search learns: they are in no plot, which would not say that they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from petskin_tune import text as words
from petskin_tune.study.foreign import Foreign, foreign_of
from petskin_tune.views.report.parts import cell, section, table

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial


def imported(study: Study) -> str:
    """Where they are from, and how they differ from the study's trials; nothing where there are none."""
    found = [(trial, kept) for trial in study.get_trials(deepcopy=False) if (kept := foreign_of(trial))]
    if not found:
        return ""
    count = words.counted(len(found), "run")
    sentence = f"{count} of elsewhere, from which the search learns; they count for nothing else."
    return section("Imported", sentence, table(("trial", "source", "noted"), [_cells(*one) for one in found]))


def _cells(trial: FrozenTrial, foreign: Foreign) -> list[str]:
    return [cell(text) for text in (str(trial.number), foreign.source, "; ".join(foreign.notes))]
