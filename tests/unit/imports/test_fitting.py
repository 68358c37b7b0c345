"""Which runs of elsewhere are trials of a study, what is noted of them, and which are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from petskin_tune.imports.fitting import Terms, Unfit, fit
from petskin_tune.imports.runs import read_folder
from petskin_tune.search.constraints import PREFIX
from petskin_tune.study.foreign import Foreign, foreign_of
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.spec import Choices, Subset
from tests.support.foreign_runs import SEARCH, rising, run_folder, spec


def kept(folder: Path, terms: Terms | None = None) -> Foreign:
    found = foreign_of(fit(read_folder(folder), terms or Terms(spec())))
    assert found is not None
    return found


def test_a_run_of_the_same_kind_is_a_complete_trial_with_its_curve(tmp_path: Path) -> None:
    trial = fit(read_folder(run_folder(tmp_path / "a", rising(0.4), lr0=0.002)), Terms(spec()))
    assert trial.state == TrialState.COMPLETE
    assert trial.params == {"lr0": 0.002, "momentum": 0.9}
    assert trial.distributions == distributions(SEARCH)
    assert trial.intermediate_values == dict(enumerate(rising(0.4), 1))
    assert trial.values == [max(rising(0.4))]
    found = kept(tmp_path / "a")
    assert found == Foreign(source=str(tmp_path / "a"), digest=found.digest, settings=found.settings)


def test_what_args_yaml_leaves_out_had_ultralytics_default(tmp_path: Path) -> None:
    trial = fit(read_folder(run_folder(tmp_path / "a", rising(0.4), momentum=None)), Terms(spec()))
    assert trial.params["momentum"] == 0.937


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"masks": False}, "no mask mAP"),
        ({"epochs": 100}, "a run of 100 epochs, and those of the study have 9"),
        ({"scores": rising(0.4, 12)}, "planned for 9 epochs and has 12"),
        ({"lr0": 0.5}, "`lr0` 0.5 is outside of its range"),
        ({"optimizer": "SGD"}, "its optimizer is sgd, the study's adamw"),
        ({"optimizer": "auto", "warmup_epochs": 100}, "type --assume optimizer=…"),
    ],
)
def test_a_run_that_cannot_be_compared_is_left_out_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(Unfit, match=why):
        kept(run_folder(tmp_path / "a", **{"scores": rising(0.4), **changes}))


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({"model": "yolov8n-seg.pt"}, "model yolov8n-seg.pt"),
        ({"data": "cats/data.yaml"}, "data cats/data.yaml"),
        ({"imgsz": 640}, "imgsz 640"),
        ({"mask_ratio": 1}, "mask_ratio 1"),
        ({"single_cls": True}, "single_cls True"),
        ({"classes": [0, 1]}, "classes [0, 1]"),
        ({"model": "/content/train7/weights/best.pt"}, "model train7/weights/best.pt"),
        ({"data": "/content/one/cats/data.yaml"}, "data cats/data.yaml"),
    ],
)
def test_runs_measured_otherwise_are_compared_among_each_other_alone(
    tmp_path: Path, changes: dict[str, Any], scale: str
) -> None:
    found = kept(run_folder(tmp_path / "a", rising(0.4), **changes))
    assert found.scale == f"mask mAP, {scale}"
    assert any(scale in note and "not how good they are" in note for note in found.notes)


def test_a_run_on_all_of_the_data_is_not_compared_with_trials_on_a_subset_unless_a_person_says_so(
    tmp_path: Path,
) -> None:
    of_subset = spec(subset=Subset(train=100))
    folder = run_folder(tmp_path / "a", rising(0.4))
    assert "no subset of it" in kept(folder, Terms(of_subset)).scale
    assert kept(folder, Terms(of_subset, same_data=True)).scale == ""


def test_other_arguments_that_differ_are_noted_and_the_run_is_compared(tmp_path: Path) -> None:
    found = kept(run_folder(tmp_path / "a", rising(0.4), batch=32, mosaic=0.5, fraction=0.1))
    assert found.scale == ""
    assert found.notes == ("it trained with batch 32, not 16; fraction 0.1, not 1; mosaic 0.5, not 1",)


def test_a_run_that_was_resumed_does_not_say_its_model_and_takes_a_persons_word_for_it(tmp_path: Path) -> None:
    """Ultralytics writes the checkpoint that it went on from over the model."""
    last = "/content/runs/train7/weights/last.pt"
    folder = run_folder(tmp_path / "a", rising(0.4), model=last, resume=last)
    assert kept(folder).scale == "mask mAP, unknown model"
    assert kept(folder, Terms(spec(), assumed={"model": spec().model})).scale == ""
    assert kept(folder, Terms(spec(), same_data=True)).scale == ""


def test_runs_on_two_other_data_sets_are_not_compared_with_each_other(tmp_path: Path) -> None:
    run = read_folder(run_folder(tmp_path / "a", rising(0.4)))
    terms = Terms(spec(), data="0" * 64)
    scales = {
        foreign.scale
        for digest in ("a" * 64, "b" * 64)
        if (foreign := foreign_of(fit(replace(run, data=digest), terms)))
    }
    assert scales == {"mask mAP, other data aaaaaaaa", "mask mAP, other data bbbbbbbb"}


def test_a_run_that_ended_early_teaches_what_it_has(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "a", rising(0.4, 5))
    trial = fit(read_folder(folder), Terms(spec()))
    assert trial.state == TrialState.PRUNED
    assert len(trial.intermediate_values) == 5
    assert kept(folder).notes == ("it ended after 5 of 9 epochs",)


def test_a_run_that_diverged_is_told_as_a_violated_constraint(tmp_path: Path) -> None:
    trial = fit(read_folder(run_folder(tmp_path / "a", [0.2, 0.1, *[float("nan")] * 7])), Terms(spec()))
    assert trial.state == TrialState.PRUNED
    assert trial.system_attrs[f"{PREFIX}diverged"] == 1.0
    assert kept(tmp_path / "a").diverged


def test_a_searched_optimizer_that_no_file_says_is_asked_for(tmp_path: Path) -> None:
    searched = spec(
        search={**SEARCH, "optimizer": Choices(choices=("SGD", "AdamW"))}, train={"imgsz": 480, "batch": 16}
    )
    long = run_folder(tmp_path / "a", rising(0.4), optimizer="auto", rates=[0.01] * 9, lrf=1.0)
    with pytest.raises(Unfit, match=r"SGD or MuSGD.*--assume optimizer="):
        fit(read_folder(long), Terms(searched))
    assumed = Terms(searched, assumed={"optimizer": "SGD"})
    assert fit(read_folder(long), assumed).params == {"lr0": 0.01, "momentum": 0.9, "optimizer": "SGD"}


def test_an_lr0_that_auto_has_set_and_nobody_knows_is_not_the_default(tmp_path: Path) -> None:
    run = read_folder(run_folder(tmp_path / "a", rising(0.4), optimizer="auto", warmup_epochs=100))
    with pytest.raises(Unfit, match="does not say its `lr0`"):
        fit(run, Terms(spec(), assumed={"optimizer": "AdamW"}))
    known = {"optimizer": "AdamW", "lr0": 0.003, "momentum": 0.9}
    assert fit(run, Terms(spec(), assumed=known)).params == {"lr0": 0.003, "momentum": 0.9}


def test_equal_runs_have_one_digest_wherever_they_lie(tmp_path: Path) -> None:
    first = read_folder(run_folder(tmp_path / "a", rising(0.4), name="train3"))
    moved = read_folder(run_folder(tmp_path / "b", rising(0.4), name="train4", data="/elsewhere/petskin/data.yaml"))
    other = read_folder(run_folder(tmp_path / "c", rising(0.4), lr0=0.002))
    assert first.digest == moved.digest != other.digest
