"""Trials read by their columns are the trials that Optuna's own storage gives."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event

from petskin_tune.database import trial_rows, unreadable
from petskin_tune.database.engine import optunas_url
from petskin_tune.database.storage import PetskinStorage, open_storage

DISTRIBUTIONS: dict[str, tuple[BaseDistribution, Sequence[Any]]] = {
    "lr0": (FloatDistribution(1e-5, 0.1, log=True), (1e-5, 0.01, 0.1)),
    "mosaic": (FloatDistribution(0.0, 1.0, step=0.25), (0.0, 0.25, 1.0)),
    "degrees": (IntDistribution(0, 45), (0, 7, 45)),
    "batch": (IntDistribution(1, 64, log=True), (1, 33, 64)),
    "optimizer": (CategoricalDistribution(("SGD", "AdamW", None)), ("SGD", "AdamW", None)),
    "nbs": (CategoricalDistribution((64, 0.5, True, "64")), (64, 0.5, True, "64")),
}
FITNESS = (0.0, -0.0, 0.1, 1e-300, 1e300, 1, math.nan, math.inf, -math.inf)
ATTRIBUTES = (None, True, 1, 0.5, math.nan, math.inf, "", "é\u2028", "x" * 99, [], [1, [2]], {}, {"b": 1, "a": [0.1]})
STATES = tuple(TrialState)


def any_trial(rng: random.Random, state: TrialState, objectives: int) -> FrozenTrial:
    names = rng.sample(sorted(DISTRIBUTIONS), rng.randint(0, len(DISTRIBUTIONS)))
    has_values = state == TrialState.COMPLETE or (state == TrialState.PRUNED and rng.random() < 0.5)
    steps = rng.sample(range(60), rng.randint(0, 9))

    def attributes() -> dict[str, Any]:
        keys = rng.sample(("b", "a", "petskin-tune:history", "Ä", "z"), rng.randint(0, 5))
        return {key: rng.choice(ATTRIBUTES) for key in keys}

    trial = create_trial(
        state=state,
        values=[rng.choice((0.5, 0, math.inf, -math.inf)) for _ in range(objectives)] if has_values else None,
        params={name: rng.choice(DISTRIBUTIONS[name][1]) for name in names},
        distributions={name: DISTRIBUTIONS[name][0] for name in names},
        user_attrs=attributes(),
        system_attrs=attributes(),
        intermediate_values={step: rng.choice(FITNESS) for step in steps},
    )
    if rng.random() < 0.2:
        trial.datetime_start = None if state == TrialState.WAITING else trial.datetime_start
    return trial


@pytest.fixture(params=[1, 2], ids=["one objective", "two"])
def storage(request: pytest.FixtureRequest, database_url: str) -> PetskinStorage:
    """Two studies of every kind of trial, whose rows lie between one another."""
    opened = open_storage(database_url)
    rng = random.Random(request.param)
    studies = [
        optuna.create_study(storage=opened, study_name=name, directions=["maximize"] * request.param)
        for name in ("one", "other")
    ]
    for place in range(40):
        studies[place % 2].add_trial(any_trial(rng, STATES[place // 2 % len(STATES)], request.param))
    return opened


def optunas(storage: PetskinStorage) -> RDBStorage:
    return RDBStorage(optunas_url(storage.engine.url), skip_table_creation=True)


def said(trials: list[FrozenTrial], storage: PetskinStorage) -> list[str]:
    """Every field and every type; `repr`, since a fitness that is no number is not equal to itself.

    Every order, too, but that of attributes and epochs on PostgreSQL: Optuna asks for none, and each plan has its own.
    """
    if storage.engine.name == "postgresql":
        for trial in trials:
            for name in ("_user_attrs", "_system_attrs", "intermediate_values"):
                setattr(trial, name, dict(sorted(getattr(trial, name).items())))
    return [repr(trial) for trial in trials]


def assert_same(ours: list[FrozenTrial], theirs: list[FrozenTrial], storage: PetskinStorage) -> None:
    assert said(ours, storage) == said(theirs, storage)
    assert [list(vars(trial)) for trial in ours] == [list(vars(trial)) for trial in theirs]
    assert all(one == other for one, other in zip(ours, theirs, strict=True) if "nan" not in repr(other))


@pytest.mark.parametrize("at_once", [500, 7])
def test_all_trials_are_those_of_optunas_storage(
    storage: PetskinStorage, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_rows, "AT_ONCE", at_once)
    ids = [storage.get_study_id_from_name(name) for name in ("one", "other")]
    with monkeypatch.context() as patched:
        patched.setattr(PetskinStorage, "_build_frozen_trial_from_trial_model", lambda *_: pytest.fail("Optuna's way"))
        found = [storage.get_all_trials(study_id, deepcopy=False) for study_id in ids]
    for study_id, trials in zip(ids, found, strict=True):
        assert_same(trials, optunas(storage).get_all_trials(study_id, deepcopy=False), storage)


@pytest.mark.parametrize("at_once", [500, 2])
@pytest.mark.parametrize("states", [None, (TrialState.COMPLETE, TrialState.RUNNING), ()])
def test_some_trials_are_those_of_optunas_storage(
    storage: PetskinStorage, states: Any, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_rows, "AT_ONCE", at_once)
    study_id = storage.get_study_id_from_name("other")
    ids = [trial._trial_id for trial in storage.get_all_trials(study_id, deepcopy=False)]
    for included, after in (({*ids[:6], *ids[-2:]}, ids[9]), (set(), ids[9]), (set(ids), ids[-1]), (set(ids), -1)):
        asked = (study_id, states, included, after)
        assert_same(storage._get_trials(*asked), optunas(storage)._get_trials(*asked), storage)


def test_what_can_be_changed_is_no_other_trials(storage: PetskinStorage) -> None:
    study = optuna.create_study(storage=storage, study_name="third")
    for _ in range(2):
        study.add_trial(create_trial(value=0.1, user_attrs={"list": [1], "text": "x"}))
    one, other = storage.get_all_trials(study._study_id, deepcopy=False)
    one.user_attrs["list"].append(2)
    one.user_attrs["text"] = "y"
    assert other.user_attrs == {"list": [1], "text": "x"}


def test_a_study_without_trials_and_one_that_is_not_there(storage: PetskinStorage) -> None:
    empty = optuna.create_study(storage=storage, study_name="empty")
    assert storage.get_all_trials(empty._study_id) == []
    with pytest.raises(KeyError):
        storage.get_all_trials(10_000)


def test_no_more_statements_than_optunas(storage: PetskinStorage) -> None:
    study_id = storage.get_study_id_from_name("one")

    def statements(of: RDBStorage) -> int:
        seen: list[str] = []
        event.listen(of.engine, "before_cursor_execute", lambda *given: seen.append(given[2]))
        of.get_all_trials(study_id, deepcopy=False)
        return len([statement for statement in seen if statement.startswith("SELECT")])

    assert not unreadable.is_looking()
    assert statements(storage) <= statements(optunas(storage))
