"""A worker's judgement: what an ended trial's curves show, and what is wrong with the search, said once."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from petskin_tune.diagnosis.verdict import findings
from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.study import attributes
from petskin_tune.worker.search_health import SearchWatch, stopped_by_failures
from tests.support import curves as made
from tests.support.studies import a_spec, a_study, add, failing, plain


def test_an_ended_trial_is_told_by_the_names_that_diagnose_gives() -> None:
    assert list(findings(plain(made.seed_project()), {"epochs": 47, "mosaic": 0.0})) == ["stuck"]
    found = findings(plain(made.diverging()), {"epochs": 30})
    assert list(found) == ["diverged"]
    assert found["diverged"].startswith("Diverged: ")


def test_a_trial_pruned_at_a_rung_is_not_told_that_it_still_climbed() -> None:
    """AdamW at 9.8e-5 is where a study of pet skin starts: at its rung of 9 epochs it climbs, as every trial does."""
    history = {name: values[:9] for name, values in plain(made.climbing(lr0=9.8e-5)).items()}
    recipe = {"epochs": 27, "optimizer": "AdamW", "lr0": 9.8e-5, "warmup_epochs": 5.0}
    assert findings(history, recipe) == {}
    assert list(findings(history, recipe | {"epochs": 9})) == ["learning-rate-too-low"]


def test_a_healthy_trial_and_one_without_an_epoch_are_told_nothing() -> None:
    assert findings(plain(made.healthy(0)), {"epochs": 50}) == {}
    assert findings({}, {"epochs": 50}) == {}


@settings(max_examples=150)
@given(st.lists(st.tuples(*[st.floats()] * 4), max_size=40))
def test_whatever_the_curves_are_they_end_no_worker(rows: list[tuple[float, ...]]) -> None:
    names = ("metrics/mAP50-95(M)", "train/seg_loss", "val/seg_loss", "lr/pg0")
    found = findings({name: [row[column] for row in rows] for column, name in enumerate(names)}, {"epochs": 40})
    assert all(isinstance(sentence, str) for sentence in found.values())


def test_trials_with_the_same_value_are_told_once_and_again_when_they_come_back() -> None:
    study, spec, watch = a_study(), a_spec(), SearchWatch()
    said = []
    for value in [0.2] * 7 + [0.3] + [0.2] * 5:
        add(study, "COMPLETE", value)
        said.append(len(watch.news(study.trials, spec)))
    assert said == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_a_best_within_noise_of_the_defaults_is_told_once() -> None:
    spec, watch = a_spec(start=("defaults",)), SearchWatch()
    study = a_study(spec)
    add(study, "COMPLETE", 0.2, **{attributes.ORIGIN: "start point"})
    said = []
    for number in range(12):
        add(study, "COMPLETE", 0.19 + 0.001 * number)
        said += watch.news(study.trials, spec)
    assert len(said) == 1
    assert "widen the ranges, or accept the defaults" in said[0]


def test_as_many_identical_failures_as_the_study_allows_are_enough() -> None:
    study, spec = a_study(), a_spec(max_identical_failures=3)
    failing(study, [None, "refused", "refused"])
    assert stopped_by_failures(study.trials, spec) is None
    failing(study, ["refused"])
    assert stopped_by_failures(study.trials, spec) == (
        "The last 3 trials all failed in the same way, refused: refused!"
    )


@pytest.mark.parametrize("kind", ["out-of-memory", "diverged"])
def test_failures_that_the_sampler_learns_to_avoid_are_a_warning_once_a_trial_is_complete(kind: str) -> None:
    assert any(constraint_attrs(kind).values())  # type: ignore[arg-type]
    study, spec, watch = a_study(), a_spec(max_identical_failures=3), SearchWatch()
    failing(study, [kind] * 3)
    assert stopped_by_failures(study.trials, spec) is not None
    failing(study, [None, *[kind] * 4])
    assert stopped_by_failures(study.trials, spec) is None
    (said,) = watch.news(study.trials, spec)
    assert said.startswith(f"The last 4 trials all failed in the same way, {kind}")
    assert watch.news(study.trials, spec) == []


def test_failures_that_teach_the_sampler_nothing_end_the_search_whatever_was_complete() -> None:
    study, spec = a_study(), a_spec(max_identical_failures=3)
    failing(study, [None, *["data"] * 3])
    assert stopped_by_failures(study.trials, spec) is not None


def test_failures_between_trials_that_freeze_are_not_in_a_row() -> None:
    """A trial that is frozen has not ended: only the failures have."""
    study, spec = a_study(), a_spec(max_identical_failures=3)
    begun = datetime(2026, 1, 1)
    for number in range(9):
        failed = number in (1, 4, 7)
        failure = {attributes.FAILURE: {"kind": "crashed", "message": "crashed!", "detail": ""}} if failed else {}
        trial = create_trial(
            state=TrialState.FAIL if failed else TrialState.RUNNING,
            intermediate_values={} if failed else {1: 0.2},
            user_attrs=failure,
        )
        trial.datetime_start = begun + timedelta(hours=number)
        trial.datetime_complete = begun + timedelta(hours=number, minutes=50) if failed else None
        study.add_trial(trial)
    assert stopped_by_failures(study.trials, spec) is None
    failing(study, ["crashed"] * 3)
    assert stopped_by_failures(study.trials, spec) is not None


@pytest.mark.parametrize("kind", ["out-of-memory", "diverged"])
def test_failures_that_the_sampler_learns_to_avoid_end_no_search_that_has_frozen_trials(kind: str) -> None:
    study, spec = a_study(), a_spec(max_identical_failures=3)
    add(study, "RUNNING", curve={1: 0.2})
    failing(study, [kind] * 4)
    assert stopped_by_failures(study.trials, spec) is None
