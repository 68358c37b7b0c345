"""Diagnosis of studies: what comparable trials did, and whether the search is searching."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from petskin_tune.diagnosis.advice import advice
from petskin_tune.diagnosis.explain import of_study
from petskin_tune.diagnosis.search import identical_failures, warnings
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import best
from petskin_tune.study.spec import StudySpec
from petskin_tune.views.status.collect import collect
from tests.support import curves as made
from tests.support.curves import MASK
from tests.support.studies import NOW, a_spec, a_study, add, failing, trained


def warned(study: optuna.Study, spec: StudySpec) -> list[str]:
    return warnings(study.trials, spec, best(study.trials))


def test_a_stuck_trial_beside_one_that_went_lower_is_told_that_its_loss_is_no_floor() -> None:
    study = a_study(a_spec())
    trained(study, made.seed_project(), lr0=7.3e-5)
    better = made.seed_project(1)
    better[MASK] = np.asarray(better[MASK]) * 1.6
    better["val/seg_loss"] = np.asarray(better["val/seg_loss"]) * 0.7
    trained(study, better, lr0=4.9e-4)
    text = of_study(study, 0)
    assert "Stuck since epoch" in text
    assert "it is the 2nd of 2 trials that got so far" in text
    assert "The nearest better trial is 1 (mask mAP 0.2" in text
    assert "lr0 0.00049 instead of 7.3e-05" in text
    assert "it is no floor of these images and labels" in text


def test_a_stuck_trial_beside_others_stuck_at_the_same_loss_is_told_that_it_may_be_the_floor() -> None:
    study = a_study(a_spec())
    for seed in range(4):
        trained(study, made.seed_project(seed), lr0=7.3e-5 * 10**seed)
    assert "None of 3 comparable trials went clearly below its validation loss" in of_study(study, 0)


def test_losses_that_are_scaled_by_other_gains_are_not_compared() -> None:
    study = a_study(a_spec())
    trained(study, made.seed_project())
    lower = made.seed_project(1)
    lower["val/seg_loss"] = np.asarray(lower["val/seg_loss"]) * 0.5
    trained(study, lower, **{attributes.ARGUMENTS: {"epochs": 47, "mosaic": 0.0, "box": 3.0}})
    text = of_study(study, 0)
    assert "validation loss" not in text


def test_a_trial_that_failed_before_its_first_epoch_is_told_with_its_reason() -> None:
    study = a_study(a_spec())
    failing(study, ["data"])
    text = of_study(study, 0)
    assert "It failed: data, data!." in text
    assert "no finished epoch" in text
    with pytest.raises(UsageError, match="has no trial 5"):
        of_study(study, 5)


def test_a_failure_is_told_with_the_end_of_its_traceback_and_the_file_that_has_all_of_it() -> None:
    study = a_study(a_spec())
    detail = "Traceback\n" + "  in between\n" * 900 + "RuntimeError: Error(s) in loading:\n\tsize mismatch for x\n"
    failure = {"kind": "crashed", "message": "RuntimeError: all.", "detail": detail, "log": "/runs/0/train.log"}
    add(study, "FAIL", worker="colab-1", failure=failure)
    add(study, "RUNNING", given_back=failure)
    text = of_study(study, 0)
    assert "It failed: crashed, RuntimeError: all.\n" in text
    assert "  | \tsize mismatch for x\nAll of it: /runs/0/train.log, on the machine of colab-1" in text
    assert text.count("in between") < 30
    assert "It was given back: crashed, RuntimeError: all." in of_study(study, 1)
    assert "failed, crashed: 1 trial (0)" in of_study(study)


def test_a_study_is_told_which_trials_suffer_from_what_and_how_its_best_one_does() -> None:
    study = a_study(a_spec())
    trained(study, made.healthy(0), lr0=0.01)
    trained(study, made.seed_project(), lr0=7.3e-5)
    trained(study, made.seed_project(1), lr0=7.4e-5)
    trained(study, made.diverging(), "PRUNED", lr0=0.09)
    text = of_study(study)
    assert "  stuck: 2 trials (1, 2)" in text
    assert "  diverged: 1 trial (3)" in text
    assert "  no sign of trouble: 1 trial (0)" in text
    assert "The best trial:\ntrial 0 (complete): lr0=0.01" in text


def test_a_study_whose_trials_mostly_still_improve_is_told_to_train_longer_and_mentions_pruned_ones() -> None:
    study = a_study(a_spec(epochs=40))
    for seed in range(5):
        trained(study, made.climbing(seed))
    for seed in range(3):
        trained(study, made.healthy(seed, epochs=40))
    for seed in range(4):
        trained(study, {name: values[:6] for name, values in made.healthy(seed, epochs=40).items()}, "PRUNED")
    text = of_study(study)
    first, second, third = text.splitlines()[:3]
    assert first == "study petskin: look at this first"
    assert second.startswith("  → 5 of 8 trials still improved when they ended: longer trials, 80 epochs or more")
    assert third == "  12 trials: 8 complete, 4 pruned"


def test_a_study_of_healthy_trials_is_told_that_nothing_is_wrong() -> None:
    study = a_study(a_spec())
    for seed in range(3):
        trained(study, made.healthy(seed))
    assert of_study(study).splitlines()[0] == "study petskin: nothing is wrong"
    assert of_study(a_study(a_spec())).splitlines()[0] == "study petskin: too early for a verdict"


def test_a_study_without_an_epoch_says_so() -> None:
    assert "No trial has finished an epoch yet." in of_study(a_study(a_spec()))


def test_trials_in_a_row_with_the_same_value_are_no_search() -> None:
    study = a_study(a_spec())
    for value in (0.1, 0.2, 0.2, 0.2, 0.2, 0.2):
        add(study, "COMPLETE", value)
    (said,) = warned(study, a_spec())
    assert "The last 5 complete trials have the same value, 0.2" in said
    add(study, "COMPLETE", 0.3)
    assert warned(study, a_spec()) == []


def test_trials_that_all_fail_in_the_same_way_are_counted_and_told() -> None:
    study = a_study(a_spec())
    failing(study, ["data", None, *["out-of-memory"] * 5])
    assert identical_failures(study.trials) == ("out-of-memory", 5)
    (said,) = warned(study, a_spec())
    assert said == "The last 5 trials all failed in the same way, out-of-memory: out-of-memory!"


@pytest.mark.parametrize("kinds", [[], [None], ["data", None], [None, None]])
def test_a_study_whose_newest_trial_did_not_fail_has_no_identical_failures(kinds: list[str | None]) -> None:
    study = a_study(a_spec())
    failing(study, kinds)
    assert identical_failures(study.trials) is None


def test_failures_of_two_kinds_in_turn_are_not_identical() -> None:
    study = a_study(a_spec())
    failing(study, ["data", "crashed", "data", "crashed", "data", "crashed"])
    assert identical_failures(study.trials) == ("crashed", 1)
    assert warned(study, a_spec()) == []


@pytest.mark.parametrize(("value", "told"), [(0.205, True), (0.25, False)])
def test_a_best_within_noise_of_the_defaults_is_told(value: float, told: bool) -> None:
    spec = a_spec(start=("defaults", {"lr0": 1e-4}))
    study = a_study(spec)
    add(study, "COMPLETE", 0.2, **{attributes.ORIGIN: "start point"})
    add(study, "COMPLETE", 0.1, **{attributes.ORIGIN: "start point"})
    for _ in range(7):
        add(study, "PRUNED")
    add(study, "COMPLETE", value)
    said = warned(study, spec)
    assert any("lies within noise of the defaults (trial 0)" in sentence for sentence in said) is told


def test_defaults_that_nobody_beat_are_told() -> None:
    spec = a_spec(start=("defaults",))
    study = a_study(spec)
    add(study, "COMPLETE", 0.2, **{attributes.ORIGIN: "start point"})
    for number in range(9):
        add(study, "COMPLETE", 0.1 + 0.001 * number)
    (said,) = warned(study, spec)
    assert said.startswith("The defaults themselves are the best trial after 10 trials")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.201, "The best trial (10) lies within noise of the defaults (trial 0): +0.0010"),
        (0.1, "The best trial (10) lies below the defaults (trial 0): -0.1000"),
    ],
)
def test_the_trial_that_the_search_recommends_is_the_best_in_every_sentence(value: float, said: str) -> None:
    study = a_study(a_spec(start=("defaults",)))
    add(study, "COMPLETE", 0.2, **{attributes.ORIGIN: "start point"})
    for _ in range(8):
        add(study, "PRUNED")
    add(study, "COMPLETE", 0.3)
    add(study, "COMPLETE", value)
    study.set_user_attr(attributes.RECOMMENDED, {"trial": 10, "ended": 11, "reason": ""})
    text = of_study(study)
    assert said in text
    assert "The best trial:\ntrial 10 (complete)" in text
    shown = collect(study, [], NOW)
    assert shown.best is not None
    assert shown.best.number == 10
    assert any(said in note for note in shown.notes)


@pytest.mark.parametrize(
    ("shown", "complete", "told"),
    [
        ({"still-improving": [0, 1, 2], "overfitting": [3, 4, 5]}, 6, []),
        ({"still-improving": [0, 1, 2, 3], "overfitting": [3, 4, 5]}, 6, ["still improved when they ended"]),
        ({"still-improving": [0, 1, 2], "overfitting": [2, 3, 4, 5]}, 6, ["overfitted"]),
        ({"still-improving": [0, 1], "overfitting": [4, 5]}, 2, ["still improved when they ended"]),
        ({"diverged": [0, 1, 2], "stuck": [3, 4, 5]}, 6, []),
        ({"diverged": [0, 1, 2, 3], "not-learning": [3, 4, 5]}, 6, ["diverged"]),
        ({"diverged": [0, 1, 2], "learning-rate-too-low": [2, 3, 4, 5]}, 6, ["learnt too slowly"]),
        ({"diverged": [0, 1, 2], "overfitting": [3, 4, 5]}, 6, ["diverged", "overfitted"]),
    ],
)
def test_a_study_is_not_advised_the_opposite_of_what_it_is_advised(
    shown: dict[str, list[int]], complete: int, told: list[str]
) -> None:
    said = advice(shown, range(6), range(complete), a_spec())
    assert [sentence.partition(" trials ")[2].partition(":")[0] for sentence in said] == told
