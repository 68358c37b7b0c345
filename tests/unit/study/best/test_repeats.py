"""Repetitions are pairs under further seeds, in a study of their own that knows what it repeats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.leases.claims import Claims
from petskin_tune.study import attributes
from petskin_tune.study.best.gain import Gain, Repeats
from petskin_tune.study.best.repeats import begin, gain_of, measured, name_of, pairs_of, repeats_of, studies_about
from petskin_tune.study.spec import PrunerSpec, SamplerSpec
from petskin_tune.study.stored import enqueued_params, recorded
from petskin_tune.study.study import Study
from tests.support.made_up import MadeUp, a_spec
from tests.support.studies import a_spec as another_spec
from tests.support.studies import a_study, add

SETTINGS: dict[str, dict[str, Any]] = {
    "best": {"lr0": 0.001, "optimizer": "AdamW"},
    "defaults": {"lr0": 0.01, "optimizer": "SGD", "warmup_bias_lr": 0.0},
}
GAIN = {"trial": 3, "against": "defaults", "best": [0.3, 0.31], "defaults": [0.2, 0.21], "left_out": 0}


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeUp]:
    sampler = SamplerSpec(name="freeze-thaw", rungs=(9, 18, 27))
    pruner = PrunerSpec(name="none")
    found = MadeUp(tmp_path, a_spec(seed=7, sampler=sampler, pruner=pruner, budget=540, stop_at=0.2))
    yield found
    found.storage.engine.dispose()


def about(study: Study) -> Repeats:
    return Repeats(study=study.name, uid=study.uid, trial=3, against="defaults")


def pairs(study: Study) -> list[tuple[Any, ...]]:
    """(role, seed) of each trial, in order."""
    return [(recorded(t)[attributes.ROLE], recorded(t)[attributes.SEED]) for t in study.trials()]


def test_pair_after_pair_has_a_seed_of_its_own_and_the_settings_of_its_role(made: MadeUp) -> None:
    study = begin(made.study, about(made.study), SETTINGS, 2)
    assert (study.name, name_of("petskin", 3)) == ("petskin-repeat-3", "petskin-repeat-3")
    assert pairs(study) == [("best", 8), ("defaults", 8), ("best", 9), ("defaults", 9)]
    for trial in study.trials():
        known = recorded(trial)
        own = {**enqueued_params(trial), **known.get(attributes.FIXED, {})}
        assert own == SETTINGS[known[attributes.ROLE]]
        assert known[attributes.ORIGIN] == "repeat"


def test_the_study_trains_as_the_one_that_it_repeats_and_nothing_is_searched_or_ended_early(made: MadeUp) -> None:
    made.study.set_attribute(attributes.MODEL, "yolov8l-seg.pt (SHA-256 0123)")
    study = begin(made.study, about(made.study), SETTINGS, 3)
    spec, first = study.spec, made.study.spec
    assert (spec.epochs, spec.train, spec.search, spec.seed) == (first.epochs, first.train, first.search, first.seed)
    assert (spec.sampler.name, spec.pruner.name, spec.target_trials, pairs_of(spec)) == ("random", "none", 6, 3)
    assert (spec.budget, spec.stop_at, spec.start, spec.keep_weights) == (None, None, (), 0)
    assert (study.store, study.attributes[attributes.MODEL]) == ("home:checkpoints", "yolov8l-seg.pt (SHA-256 0123)")
    assert repeats_of(study.attributes) == about(made.study)
    assert studies_about(made.study) == [study.name]
    assert made.study.trials() == []


def test_begun_again_it_is_the_same_study_and_more_seeds_are_added(made: MadeUp) -> None:
    first = begin(made.study, about(made.study), SETTINGS, 2)
    again = begin(made.study, about(made.study), SETTINGS, 2)
    assert (again.id, len(again.trials())) == (first.id, 4)
    more = begin(made.study, about(made.study), SETTINGS, 3)
    assert (more.id, more.spec.target_trials) == (first.id, 6)
    assert pairs(more)[4:] == [("best", 10), ("defaults", 10)]
    fewer = begin(made.study, about(made.study), SETTINGS, 2)
    assert (fewer.spec.target_trials, len(fewer.trials())) == (4, 6)


def test_what_has_begun_is_trained_although_fewer_are_asked_for(made: MadeUp) -> None:
    study = begin(made.study, about(made.study), SETTINGS, 3)
    claims = Claims(study.storage, study.fence, "me", 90.0, 300.0)
    for _ in range(5):
        assert claims.next_trial(study.spec.target_trials)
    assert begin(made.study, about(made.study), SETTINGS, 2).spec.target_trials == 5


def test_another_study_of_the_name_is_left_alone(made: MadeUp) -> None:
    other = MadeUp(made.home, a_spec("petskin-repeat-3"))
    with pytest.raises(UsageError, match="petskin-tune delete petskin-repeat-3"):
        begin(made.study, about(made.study), SETTINGS, 2)
    assert other.study.trials() == []


def test_what_no_study_file_could_ask_for_is_refused(made: MadeUp) -> None:
    broken = made.study.spec.model_copy(update={"train": {"imgsz": 31}})
    study = Study(made.storage, made.study.optuna, broken, made.study.uid, made.study.attributes)
    with pytest.raises(UsageError, match="The study of repetitions: `imgsz`"):
        begin(study, about(study), SETTINGS, 2)


# ---- what they show --------------------------------------------------------------------------------------------------


def repeated(state: str, value: float | None, role: str, seed: int, **changes: Any) -> Any:
    known = {attributes.ROLE: role, attributes.SEED: seed, attributes.ARGUMENTS: {"seed": seed}, **changes}
    return add(a_study(another_spec()), state, value, **known)


def test_trainings_count_that_ended_at_their_last_epoch_under_their_own_seed() -> None:
    trials = [
        repeated("COMPLETE", 0.31, "best", 1),
        repeated("COMPLETE", 0.21, "defaults", 1),
        repeated("PRUNED", 0.02, "best", 2, failure={"kind": "diverged", "message": ""}),
        repeated("COMPLETE", 0.22, "defaults", 2),
        repeated("COMPLETE", 0.33, "best", 3, **{attributes.ARGUMENTS: {"seed": 0}}),
        repeated("FAIL", None, "defaults", 3),
        repeated("RUNNING", None, "best", 4),
        add(a_study(another_spec()), "COMPLETE", 0.9),
    ]
    found = measured(trials, Repeats(study="petskin", uid="0" * 12, trial=3, against="defaults"))
    assert (found.best, found.defaults, found.left_out) == ([0.31], [0.21, 0.22], 3)


def test_what_is_kept_is_read_back(made: MadeUp) -> None:
    assert gain_of(made.study.attributes) is None
    assert repeats_of(made.study.attributes) is None
    made.study.set_attribute(attributes.GAIN, Gain(**GAIN).model_dump())
    made.study.refresh()
    assert gain_of(made.study.attributes) == Gain(**GAIN)


@pytest.mark.parametrize(
    "changes",
    [{"trial": -1}, {"trial": "3"}, {"best": [2.0]}, {"best": [float("nan")]}, {"best": 0.3}, {"against": "mine"}],
    ids=str,
)
def test_a_gain_that_nobody_of_us_wrote_is_refused_in_one_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="`petskin-tune:gain` in the database is not as petskin-tune writes it"):
        gain_of({attributes.GAIN: {**GAIN, **changes}})


@pytest.mark.parametrize("changes", [{"uid": "../x"}, {"study": ""}, {"trial": None}, {"against": 3}], ids=str)
def test_repetitions_of_nothing_are_refused_in_one_sentence(changes: dict[str, Any]) -> None:
    known = {"study": "petskin", "uid": "0" * 12, "trial": 3, "against": "defaults"}
    assert repeats_of({attributes.REPEATS: known}) is not None
    with pytest.raises(UsageError, match="`petskin-tune:repeats` in the database is not as petskin-tune writes it"):
        repeats_of({attributes.REPEATS: {**known, **changes}})
