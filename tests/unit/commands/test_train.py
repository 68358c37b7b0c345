"""The study of a final run keeps the rules of a study file."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, create_trial

from petskin_tune.commands.train import final_spec
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from tests.support.studies import a_spec, a_study, add


def trial(**changes: Any) -> FrozenTrial:
    return add(a_study(a_spec()), "COMPLETE", 0.2, **changes)


def of_a_person() -> FrozenTrial:
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(value=0.3, params={"x": 0.1}, distributions={"x": FloatDistribution(0, 1)}))
    return study.trials[0]


def test_a_final_run_is_the_same_study_without_search() -> None:
    final = final_spec(a_spec(subset={"train": 9}), "petskin-top-1-100-epochs", [trial()], 100, 640)
    assert (final.epochs, final.train["imgsz"], final.target_trials, final.pruner.name) == (100, 640, 1, "none")
    assert final.subset is None
    assert final.start == ({"lr0": 0.001, "optimizer": "AdamW"},)


def test_the_longest_name_of_a_study_leaves_room_for_that_of_its_final_run() -> None:
    name = "피" * 60
    assert final_spec(a_spec(study=name), f"{name}-trial-123456-300-epochs-640px", [trial()], 300, 640).epochs == 300


@pytest.mark.parametrize(
    ("chosen", "epochs", "imgsz", "said"),
    [
        (trial(), 2**31, None, "The final run: `epochs` must be from 1 to"),
        (trial(), 10**18, None, "The final run: `epochs` must be from 1 to"),
        (trial(), 100, 500, "The final run: `imgsz` must be a multiple of 32"),
        (trial(), 100, 10**9, "The final run: `imgsz` must lie between"),
        (of_a_person(), 100, None, "Trial 0 cannot be trained as it stands in the database: unknown argument `x`"),
        (trial(**{attributes.FIXED: {"pretrained": "http://127.0.0.1/evil.pt"}}), 100, None, "`pretrained` cannot be"),
    ],
    ids=["2^31 epochs", "10^18 epochs", "imgsz 500", "imgsz 10^9", "a person's trial", "pretrained"],
)
def test_a_final_run_that_no_study_file_could_ask_for_is_refused(
    chosen: FrozenTrial, epochs: int, imgsz: int | None, said: str
) -> None:
    with pytest.raises(UsageError) as refused:
        final_spec(a_spec(), "petskin-final", [chosen], epochs, imgsz)
    assert said in str(refused.value)
