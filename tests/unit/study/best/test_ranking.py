"""What is called the best trial is one thing, whoever says it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import optuna
import pytest
import torch

from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.checkpoints.retention import Retention
from petskin_tune.commands import train as final
from petskin_tune.diagnosis import explain as diagnose
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import best, has_reached, highest, ranked
from petskin_tune.study.spec import SPEC_VERSION
from petskin_tune.study.study import Study
from petskin_tune.views import export, report
from petskin_tune.views.status import collect as status
from petskin_tune.views.status import text as status_text
from tests.support.studies import NOW, a_spec, a_study, add

Trials = list[tuple[str, float | None]]

STUDIES: dict[str, tuple[Trials, list[int]]] = {
    "complete ones by value": ([("COMPLETE", 0.1), ("COMPLETE", 0.3), ("COMPLETE", 0.2)], [1, 2, 0]),
    "the older one of equals": ([("COMPLETE", 0.1), ("COMPLETE", 0.1)], [0, 1]),
    "complete before pruned": ([("PRUNED", 0.9), ("COMPLETE", 0.1)], [1, 0]),
    "all pruned": ([("PRUNED", 0.1), ("PRUNED", 0.2), ("PRUNED", None)], [1, 0]),
    "values below and at nothing": ([("PRUNED", -0.1), ("PRUNED", 0.0), ("COMPLETE", 0.0)], [2, 1, 0]),
    "what is not finite": ([("COMPLETE", float("inf")), ("COMPLETE", 0.1)], [1]),
    "nothing ended": ([("RUNNING", None), ("WAITING", None), ("FAIL", None)], []),
    "a running one is never": ([("RUNNING", None), ("PRUNED", 0.1)], [1]),
}


def made(trials: Trials, **changes: Any) -> optuna.Study:
    study = a_study(a_spec(**changes))
    for number, (state, value) in enumerate(trials):
        curve = {1: 0.95} if state == "RUNNING" else {}
        add(study, state, value, curve=curve, **{attributes.WEIGHTS: f"uid/trial-{number:06d}/best-1-{'ab' * 8}.pt"})
    return study


def ours(study: optuna.Study) -> Study:
    return Study(cast(Any, study._storage), study, a_spec(), "uid")


@pytest.mark.parametrize("name", STUDIES)
def test_trials_are_ranked(name: str) -> None:
    trials, expected = STUDIES[name]
    assert [trial.number for trial in ranked(made(trials).trials)] == expected


def test_a_persons_own_trial_counts_like_any_other_as_for_optuna() -> None:
    study = made([("COMPLETE", 0.3)])
    wider = {"lr0": optuna.distributions.FloatDistribution(1e-5, 10.0)}  # than the study's space
    study.add_trial(optuna.create_trial(value=0.9, params={"lr0": 5.0}, distributions=wider))
    assert [trial.number for trial in ranked(study.trials)] == [1, 0]
    assert study.best_trial.number == 1


def told(study: optuna.Study, tmp_path: Path) -> dict[str, int | None]:
    """Who everybody calls the best."""
    mine = ours(study)
    shown = status.collect(study, [], NOW)
    keeper = Retention(mine, FolderStore(tmp_path / "store", network=False))
    first = mine.best()
    return {
        "worker": first.number if first else None,
        "status": shown.best.number if shown.best else None,
        "best": export.pick(study).number,
        "weights": export.write_weights(study, tmp_path / "best.pt", lambda _, dest: torch.save({}, dest)).number,
        "kept": keeper.best_trials()[0].number,
        "train": final._chosen(mine, None, None)[0].number,
        "diagnose": int(re.findall(r"The best trial:\ntrial (\d+)", diagnose.of_study(study))[0]),
        "report": int(re.findall(r"<tr><td>(\d+)</td>", report.render(study, NOW))[0]),
    }


@pytest.mark.parametrize("name", [name for name, (_, expected) in STUDIES.items() if expected])
def test_everybody_calls_the_same_trial_the_best(name: str, tmp_path: Path) -> None:
    trials, expected = STUDIES[name]
    assert set(told(made(trials), tmp_path).values()) == {expected[0]}


def test_a_study_of_pruned_trials_has_a_best_that_is_told_as_pruned() -> None:
    study = made([("PRUNED", 0.1), ("PRUNED", 0.2)], target_trials=2)
    text = status_text.render(status.collect(study, [], NOW))
    assert "best: mask mAP 0.200 in trial 1 (pruned): lr0=" in text
    assert text.splitlines()[-1].endswith("type: petskin-tune best --study petskin --yaml best.yaml")
    assert "trial 1" in export.render(study)


def test_weights_that_the_store_need_not_keep_are_not_offered(tmp_path: Path) -> None:
    study = made([("COMPLETE", 0.1), ("COMPLETE", 0.3), ("COMPLETE", 0.2)], keep_weights=1)
    add(study, "COMPLETE", 0.05)
    with pytest.raises(UsageError, match=r"kept are those of trial 1\)"):
        export.write_weights(study, tmp_path / "best.pt", lambda key, dest: None, number=3)


def test_a_study_of_a_newer_version_is_refused_by_every_view() -> None:
    study = made([("COMPLETE", 0.1)])
    newer = {**study.user_attrs[attributes.SPEC], "version": SPEC_VERSION + 1, "unheard_of": 1}
    study.set_user_attr(attributes.SPEC, newer)
    for look in (
        lambda: status.collect(study, [], NOW),
        lambda: diagnose.of_study(study),
        lambda: report.render(study, NOW),
        lambda: export.training_arguments(study, study.trials[0]),
    ):
        with pytest.raises(UsageError, match="made by a newer petskin-tune"):
            look()


def test_a_study_without_an_ended_trial_has_no_best() -> None:
    assert best(made(STUDIES["nothing ended"][0]).trials) is None


def test_a_recommended_trial_comes_first_until_the_study_goes_on() -> None:
    study = a_study(a_spec())
    for value in (0.1, 0.3, 0.2):
        add(study, "COMPLETE", value)
    stored = {attributes.RECOMMENDED: {"trial": 2, "ended": 3, "reason": "the largest expected fitness"}}
    assert [trial.number for trial in ranked(study.trials, stored)] == [2, 1, 0]
    assert best(study.trials, stored).number == 2
    assert highest(study.trials).number == 1
    add(study, "RUNNING")
    assert best(study.trials, stored).number == 2
    add(study, "COMPLETE", 0.05)
    assert best(study.trials, stored).number == 1


def test_an_unfinished_trial_above_the_best_is_named_beside_it() -> None:
    study = made([("PRUNED", 0.1)])
    add(study, "RUNNING", curve={1: 0.0, 2: 0.3, 3: 0.2})
    add(study, "RUNNING", curve={1: 0.2})
    shown = status.collect(study, [], NOW)
    assert shown.best is not None
    assert (shown.best.number, shown.ahead) == (0, 1)
    assert "ahead of it: mask mAP 0.300 in trial 1 after 3 of 27 epochs" in status_text.render(shown)
    assert "trial 1, which has not ended, has mask mAP 0.300 after 3 epochs" in export.render(study)
    assert "which has not ended" not in export.render(study, 0)
    add(study, "COMPLETE", 0.4)
    shown = status.collect(study, [], NOW)
    assert shown.ahead is None
    assert "ahead" not in status_text.render(shown)
    assert "which has not ended" not in export.render(study)


def test_before_any_trial_has_ended_the_one_that_is_ahead_is_named() -> None:
    study = made([])
    add(study, "RUNNING", curve={1: 0.2, 2: float("nan")})
    assert "\nahead: mask mAP 0.200 in trial 0 after 2 of 27 epochs" in status_text.render(
        status.collect(study, [], NOW)
    )
    with pytest.raises(UsageError, match=r"no finished trial yet \(trial 0, which .* 0\.200 after 2 epochs\);"):
        export.pick(study)


def test_a_study_is_as_good_as_it_is_to_become_whichever_trial_is_recommended_in_the_end() -> None:
    study = made([("COMPLETE", 0.1956), ("COMPLETE", 0.201)], stop_at=0.2)
    study.set_user_attr(attributes.RECOMMENDED, {"trial": 0, "ended": 2, "reason": "the model says so"})
    assert best(study.trials, study.user_attrs) is not None
    assert best(study.trials, study.user_attrs).number == 0  # type: ignore[union-attr]
    assert has_reached(0.2, study.trials)
    assert not has_reached(0.21, study.trials)
    assert not has_reached(None, study.trials)
    assert not has_reached(0.2, [])
    assert status.collect(study, [], NOW).is_done
