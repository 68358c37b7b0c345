"""The finished trials of another study of this tool, as runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial

from petskin_tune.imports.runs import Run, digest_of
from petskin_tune.study import attributes
from petskin_tune.study.failures import BAD_POINTS
from petskin_tune.study.foreign import without_foreign
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.stored import recorded
from petskin_tune.study.trials import failure_kind


def runs_of(spec: StudySpec, stored: Mapping[str, Any], trials: Iterable[FrozenTrial]) -> list[Run]:
    """Every trial that has ended with something to learn from; what that study has imported itself is left out.

    Args:
        spec: of the other study.
        stored: its user attributes.
        trials: of it.
    """
    ended = (trial for trial in without_foreign(trials) if trial.state.is_finished())
    return [_run(trial, spec, stored) for trial in ended if trial.intermediate_values or _is_bad(trial)]


def _is_bad(trial: FrozenTrial) -> bool:
    return failure_kind(trial) in BAD_POINTS


def _run(trial: FrozenTrial, spec: StudySpec, stored: Mapping[str, Any]) -> Run:
    fixed = recorded(trial).get(attributes.FIXED, {})
    curve = dict(sorted(trial.intermediate_values.items()))
    return Run(
        source=f"study {spec.study}, trial {trial.number}",
        digest=digest_of([stored.get(attributes.UID), trial.number]),
        arguments={**spec.train, **fixed, **trial.params, "data": spec.data, "model": spec.model},
        curve=curve,
        epochs=spec.epochs,
        complete=trial.state.name == "COMPLETE",
        diverged=_is_bad(trial),
        defaults=True,
        subset=spec.subset,
        data=(stored.get(attributes.FINGERPRINT) or {}).get("digest"),
    )
