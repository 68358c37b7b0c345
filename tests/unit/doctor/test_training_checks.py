"""What doctor says of the device and of unfinished trials."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest

from petskin_tune.doctor import training_checks
from petskin_tune.doctor.examination import Examination
from tests.support.studies import a_spec, a_study, add

HERE: dict[str, Any] = {
    "versions": {"torch": "2.14.0", "ultralytics": "8.4.190"},
    "threads": 1,
    "device": "cpu",
    "device_model": "Xeon",
    "cuda": None,
}


def examined(study: optuna.Study) -> Examination:
    class Opened:
        def trials(self, *states: optuna.trial.TrialState) -> list[optuna.trial.FrozenTrial]:
            return study.get_trials(states=states)

    return cast(
        Examination, SimpleNamespace(probe=SimpleNamespace(started=SimpleNamespace(machine=HERE)), study=Opened())
    )


@pytest.mark.parametrize(
    ("there", "verdict"),
    [({}, "ok"), ({"threads": 2}, "ok"), ({"device_model": "Tesla T4", "device": "0"}, "warning")],
    ids=["as here", "more threads", "a GPU"],
)
def test_trials_that_were_begun_on_another_device_are_named(there: dict[str, Any], verdict: str) -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1, **{**HERE, "device": "1"})
    add(study, "RUNNING", curve={1: 0.1}, **{**HERE, **there})

    check = training_checks.device(examined(study))

    assert check.verdict == verdict
    assert ("(1)" in check.message) == (verdict == "warning")
