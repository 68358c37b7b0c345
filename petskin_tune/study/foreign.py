"""Foreign trials: runs of elsewhere, imported as knowledge for the search.

One is a finished Optuna trial with its parameters and its curve, so that samplers, the dashboard and a notebook see it
as any other. It has no lease: it counts for no target and no budget, is never the best of the study (its weights are
not here, and its data may be others), and no trial is judged by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from petskin_tune.study import attributes

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

UNKNOWN = "unknown"


class Foreign(BaseModel):
    """What is kept with a foreign trial.

    Attributes:
        source: where it came from, for people.
        digest: SHA-256 of what it says; no study holds two of one.
        settings: SHA-256 of its arguments, by which with the curve a longer or shorter record of the same run is told;
            "": there is none.
        scale: "" where its fitness can be compared with that of the study's own trials; else what its fitness is, and
            only that of trials of the same scale can be compared with it.
        diverged: whether it ended in no number.
        notes: sentences on how it differs from a trial of the study.
    """

    model_config = ConfigDict(frozen=True)

    source: Annotated[str, Field(max_length=1000)]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    settings: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    scale: Annotated[str, Field(max_length=1000)] = ""
    diverged: bool = False
    notes: tuple[str, ...] = ()


def is_foreign(trial: FrozenTrial) -> bool:
    """Whether the trial was imported."""
    return attributes.FOREIGN in trial.user_attrs and attributes.MARK not in trial.system_attrs


def foreign_of(trial: FrozenTrial) -> Foreign | None:
    """What is kept with a foreign trial; None of any other. One that somebody has damaged is of an unknown scale."""
    if not is_foreign(trial):
        return None
    try:
        return Foreign.model_validate(trial.user_attrs[attributes.FOREIGN])
    except ValidationError:
        return Foreign(source=UNKNOWN, digest="0" * 64, scale=UNKNOWN)


def without_foreign(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that were not imported."""
    return [trial for trial in trials if not is_foreign(trial)]
