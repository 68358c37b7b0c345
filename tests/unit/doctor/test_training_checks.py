"""What doctor says of the device and of unfinished trials."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest

from petskin_tune.database.storage import open_storage
from petskin_tune.doctor import checks, training_checks
from petskin_tune.doctor.examination import Check, Examination
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from tests.support.leased_studies import fence_of, new_study
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


@pytest.mark.parametrize(("lives", "trains"), [(True, False), (False, True)])
def test_nothing_is_trained_beside_a_worker_of_this_machine(
    tmp_path: Path, lives: bool, trains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device has no room for two, and the worker would be blamed for it."""
    leased = new_study(open_storage(f"sqlite:///{tmp_path / 'tune.db'}"))
    here = Identity.mine() if lives else replace(Identity.mine(), host="elsewhere")
    claims = Claims(leased.storage, fence_of(leased.optuna), "w", 90.0, 300.0, identity=here)
    assert claims.next_trial(1) is not None
    tried: list[str] = []
    monkeypatch.setattr(training_checks, "training", lambda _: tried.append("training") or Check("training", "ok", ""))
    monkeypatch.setattr(training_checks, "trials", lambda _: iter(()))
    pulse = SimpleNamespace(during=lambda _: contextlib.nullcontext())
    study = SimpleNamespace(storage=leased.storage, id=leased.id)
    found = SimpleNamespace(study=study, model="m", prepared=object(), probe=None, pulse=pulse)
    said = [check.message for check in checks._by_training(cast(Examination, found))]
    assert (tried == ["training"]) is trains
    assert any(message.startswith("not tried: a worker trains") for message in said) is not trains
