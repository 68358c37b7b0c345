"""Trials as optuna-dashboard sends them to the browser, made faster.

optuna-dashboard looks through all attributes of the study for every trial, and asks NumPy four times about every epoch.
Here its own function is given what names the trial, and no epochs; these are added as it would have added them.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Attributes = Mapping[str, Any]
Serialise = Callable[[int, "FrozenTrial", Attributes], dict[str, Any]]

NAME = "serialize_frozen_trial"
EPOCHS = "intermediate_values"
_NUMBER = re.compile(r"\d+")


def make_faster() -> None:
    """Let optuna-dashboard use :class:`Faster`, once; a release of it that has no such function is left as it is."""
    from optuna_dashboard import _serializer

    usual = getattr(_serializer, NAME, None)
    if usual is not None and not isinstance(usual, Faster):
        setattr(_serializer, NAME, Faster(usual))


class Faster:
    """What ``usual`` says of a trial, in less time.

    Args:
        usual: optuna-dashboard's; of a study's id, a trial and all attributes of the study.
    """

    def __init__(self, usual: Serialise) -> None:
        self._usual = usual
        self._by_trial: tuple[Attributes, _ByTrial] | None = None

    def __call__(self, study_id: int, trial: FrozenTrial, attributes: Attributes) -> dict[str, Any]:
        """The trial as JSON has it."""
        known = self._by_trial  # read once: several threads may be here
        if known is None or known[0] is not attributes or known[1].count != len(attributes):
            known = self._by_trial = attributes, _ByTrial(attributes)
        bare = copy.copy(trial)
        bare.intermediate_values = {}
        said = self._usual(study_id, bare, known[1].of(trial._trial_id))
        if said.get(EPOCHS) != []:
            return self._usual(study_id, trial, attributes)
        said[EPOCHS] = [
            {"step": step, "value": _said(trial.intermediate_values[step])}
            for step in sorted(trial.intermediate_values)
        ]
        return said


class _ByTrial:
    """The attributes of a study by the trials that they name; what names none may be of any."""

    def __init__(self, attributes: Attributes) -> None:
        self.count = len(attributes)
        self._attributes = attributes
        self._of_any: list[str] = []
        self._of: dict[str, list[str]] = {}
        for name in attributes:
            numbers = set(_NUMBER.findall(name))
            for number in numbers:
                self._of.setdefault(number, []).append(name)
            if not numbers:
                self._of_any.append(name)

    def of(self, trial_id: int) -> Attributes:
        named = self._of.get(str(trial_id), ())
        return {name: self._attributes[name] for name in (*self._of_any, *named)}


def _said(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
