"""The sampler `freeze-thaw`, its rungs and its budget."""

from __future__ import annotations

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.study_file.file import dump, parse
from tests.support.study_files import study


def spec_of(**changes: str) -> StudySpec:
    return parse(study(**changes), where="study.yaml").spec


def test_a_study_that_names_neither_sampler_nor_pruner_freezes_and_thaws_for_twenty_runs() -> None:
    spec = spec_of()
    assert (spec.sampler.name, spec.sampler.rungs) == ("freeze-thaw", (3, 4, 5, 6, 7, 8, 9))
    assert (spec.pruner.name, spec.budget, spec.target_trials) == ("none", 180, 60)


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_a_study_shorter_than_its_warm_up_never_pauses_and_is_read_again_as_it_was_written(epochs: int) -> None:
    spec = spec_of(epochs=str(epochs), train="{warmup_epochs: 5}", search="{degrees: [0, 90]}")
    assert spec.sampler.rungs == (epochs,)
    assert parse(dump(spec), where="dump").spec == spec


def test_a_study_that_names_a_pruner_or_another_sampler_ends_after_its_trials() -> None:
    for named in ({"pruner": "asha"}, {"sampler": "random"}):
        spec = spec_of(**named)
        assert spec.sampler.name != "freeze-thaw"
        assert (spec.budget, spec.target_trials) == (None, 60)


@pytest.mark.parametrize(
    ("rungs", "expected"), [("3", (3, 6, 9)), ("4", (4, 8, 9)), ("[2, 5]", (2, 5, 9)), ("[5, 9]", (5, 9))]
)
def test_rungs_are_a_list_or_a_step_and_end_with_the_last_epoch(rungs: str, expected: tuple[int, ...]) -> None:
    spec = spec_of(sampler=f"{{name: freeze-thaw, rungs: {rungs}}}")
    assert spec.sampler.rungs == expected
    assert parse(dump(spec), where="dump").spec == spec


@pytest.mark.parametrize(
    ("budget", "epochs"), [("20", 180), ("1.5", 14), ("540 epochs", 540), ("540epochs", 540), ("9 epochs", 9)]
)
def test_a_budget_is_in_full_runs_or_in_epochs(budget: str, epochs: int) -> None:
    spec = spec_of(budget=budget)
    assert spec.budget == epochs
    assert spec.target_trials == -(-epochs // 3)
    assert parse(dump(spec), where="dump").spec == spec


@pytest.mark.parametrize(("stop_when", "share"), [("5%", 0.05), ("0.05", 0.05), ("12.5 %", 0.125)])
def test_the_chance_below_which_a_study_ends_is_a_share(stop_when: str, share: float) -> None:
    spec = spec_of(stop_when=stop_when, keep_frozen="3")
    assert (spec.stop_when, spec.keep_frozen) == (share, 3)
    assert parse(dump(spec), where="dump").spec == spec


def test_what_a_file_leaves_out_is_as_its_version_has_it() -> None:
    assert (spec_of().version, spec_of().sampler.name, spec_of().pruner.name) == (3, "freeze-thaw", "none")
    before = spec_of(version="1")
    assert (before.version, before.sampler.name, before.pruner.name, before.budget) == (1, "tpe", "asha", None)
    assert parse(study(), where="x", version=1).spec == before
    of_two = spec_of().model_copy(update={"version": 2})
    assert parse(study(version="2"), where="x", version=1).spec == of_two
    assert not of_two.images_by_name
    assert parse(study(version="3"), where="x", version=1).spec == spec_of()
    assert spec_of().images_by_name


def test_a_target_that_is_named_stands_beside_a_budget() -> None:
    assert spec_of(budget="10", target_trials="5").target_trials == 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": "0.5"}, "`budget` must be from one full run (9 epochs)"),
        ({"budget": "8 epochs"}, "`budget` must be from one full run (9 epochs)"),
        ({"budget": "ten"}, "`budget` must be a number of full runs, such as 20, or of epochs, such as `180 epochs`"),
        ({"budget": "2 days"}, "`budget` must be a number of full runs"),
        ({"budget": "20", "sampler": "tpe"}, "`budget` is for the sampler `freeze-thaw`"),
        ({"keep_frozen": "8", "sampler": "tpe"}, "`keep_frozen` is for the sampler `freeze-thaw`"),
        ({"stop_when": "5%", "sampler": "gp"}, "`stop_when` is for the sampler `freeze-thaw`"),
        ({"keep_frozen": "0"}, "`keep_frozen` must be at least 1"),
        ({"stop_when": "5"}, "`stop_when` must be a share such as 5% or 0.05"),
        ({"stop_when": "never"}, "`stop_when` must be a share such as 5% or 0.05"),
        ({"budget": "20", "pruner": "asha"}, "`budget` is for the sampler `freeze-thaw`"),
        ({"sampler": "freeze-thaw", "pruner": "asha"}, "`pruner` does not go with the sampler `freeze-thaw`"),
        ({"sampler": "{name: freeze-thaw, rungs: []}"}, "names no epoch"),
        ({"sampler": "{name: freeze-thaw, rungs: [5, 4]}"}, "must be increasing epochs"),
        ({"sampler": "{name: freeze-thaw, rungs: 10}"}, "must be from 1 to 9"),
        ({"sampler": "{name: freeze-thaw, rungs: [1]}", "search": "{warmup_epochs: [0, 3]}", "train": "{}"}, "warm-up"),
        ({"sampler": "{name: freeze-thaw, startup_trials: 3}"}, "is no option of the sampler `freeze-thaw`"),
    ],
)
def test_what_makes_no_sense_of_freeze_thaw_is_refused_where_it_stands(changes: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as refusal:
        spec_of(**changes)
    assert said in str(refusal.value)
    assert "line " in str(refusal.value)
