"""A trial is sent to the browser as optuna-dashboard would send it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard import _serializer

from petskin_tune.views.dashboard import serialised
from petskin_tune.views.dashboard.serialised import NAME, Faster, make_faster

# Of a study: notes of its own and of trials whose ids begin alike, pictures of trials, and what is of none.
ATTRIBUTES: dict[str, Any] = {
    "dashboard:note_ver": 3,
    "dashboard:note_str:0": "of the study",
    "dashboard:1:note_ver": 0,
    "dashboard:1:note_str:0": "of the first, ",
    "dashboard:1:note_str:1": "at length",
    "dashboard:11:note_ver": 2,
    "dashboard:11:note_str:0": "of the eleventh",
    "dashboard:artifacts:1:a1": json.dumps({"artifact_id": "a1", "filename": "1.png"}),
    "dashboard:artifacts:11:a2": json.dumps({"artifact_id": "a2", "filename": "11.png"}),
    "artifacts:a3": json.dumps({"artifact_id": "a3", "filename": "of the study"}),
    "preferential": False,
}


def usual() -> Any:
    known = getattr(_serializer, NAME)
    return known._usual if isinstance(known, Faster) else known


def trial(number: int, **changes: Any) -> FrozenTrial:
    known: dict[str, Any] = {
        "state": TrialState.COMPLETE,
        "value": 0.5,
        "params": {"lr0": 0.01, "batch": 16, "optimizer": None},
        "distributions": {
            "lr0": FloatDistribution(1e-5, 0.1, log=True),
            "batch": IntDistribution(1, 64, log=True),
            "optimizer": CategoricalDistribution((None, "SGD")),
        },
        "user_attrs": {"text": "é", "number": 1, "list": [1, None]},
        "system_attrs": {"fixed_params": {"lr0": 0.01}, "artifacts:x": json.dumps({"artifact_id": "x"})},
        "intermediate_values": {7: math.nan, 1: 0.1, 3: math.inf, 2: -math.inf, 11: 1, 0: -0.0},
    }
    made = create_trial(**{**known, **changes})
    made._trial_id = made.number = number
    return made


@pytest.mark.parametrize("number", [1, 11, 111, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"value": math.inf},
        {"intermediate_values": {}},
        {"state": TrialState.RUNNING, "value": None},
        {"state": TrialState.WAITING, "value": None, "params": {}, "distributions": {}},
    ],
)
@pytest.mark.parametrize("attributes", [ATTRIBUTES, {}])
def test_a_trial_is_said_as_usual(number: int, changes: dict[str, Any], attributes: dict[str, Any]) -> None:
    shown = trial(number, **changes)
    steps = list(shown.intermediate_values.items())
    assert repr(Faster(usual())(5, shown, attributes)) == repr(usual()(5, shown, attributes))
    assert repr(list(shown.intermediate_values.items())) == repr(steps)


def test_attributes_that_came_since_are_seen() -> None:
    faster = Faster(usual())
    attributes: dict[str, Any] = {}
    assert faster(5, trial(1), attributes)["note"]["body"] == ""
    attributes |= ATTRIBUTES
    assert faster(5, trial(1), attributes)["note"]["body"] == "of the first, at length"
    assert faster(5, trial(1), {})["note"]["body"] == ""


def test_it_is_used_once_and_where_there_is_something_to_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_serializer, NAME, usual())
    make_faster()
    make_faster()
    assert getattr(_serializer, NAME)._usual is usual()
    assert _serializer.serialize_study_detail.__globals__[NAME] is getattr(_serializer, NAME)
    monkeypatch.setattr(serialised, "NAME", "of another release")
    make_faster()
    assert not hasattr(_serializer, "of another release")


def test_a_release_that_sends_other_epochs_is_left_as_it_is() -> None:
    def other(study_id: int, shown: FrozenTrial, attributes: Any) -> dict[str, Any]:
        return {"epochs": len(shown.intermediate_values), "study": study_id}

    assert Faster(other)(5, trial(1), {}) == {"epochs": 6, "study": 5}
