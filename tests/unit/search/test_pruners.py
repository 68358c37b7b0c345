import math
import random

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from petskin_tune.search.pruners import Peer, bracket, decides_at, is_over, rungs, verdict
from petskin_tune.study.spec import PrunerSpec, Range, StudySpec


def study_spec(epochs: int = 27, **pruner) -> StudySpec:
    search = {"lr0": Range(low=1e-5, high=1e-2)}
    return StudySpec(study="s", model="m.pt", data="d", epochs=epochs, search=search, pruner=PrunerSpec(**pruner))


def peers_at(study: optuna.Study, epoch: int) -> dict[int, Peer]:
    """What one SQL statement would bring: every trial's value at this epoch."""
    return {
        trial.number: Peer(trial.intermediate_values[epoch], trial.state == TrialState.COMPLETE)
        for trial in study.get_trials(deepcopy=False)
        if epoch in trial.intermediate_values
    }


def both_pruners(
    spec: StudySpec, theirs: optuna.pruners.BasePruner, seed: int, at_once: int
) -> list[tuple[bool, bool]]:
    """(ours, Optuna's) for every verdict in a study of random curves, `at_once` trials running at a time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chance = random.Random(seed)
    study = optuna.create_study(study_name=spec.study, direction="maximize", pruner=theirs)
    running: list[tuple[optuna.Trial, float, list[float]]] = []
    answers = []
    for _ in range(1500):
        while len(running) < at_once:
            running.append((study.ask(), chance.uniform(0.05, 0.3), []))
        entry = chance.choice(running)
        trial, top, curve = entry
        curve.append(round(top * (1 - math.exp(-(len(curve) + 1) / 5)) + chance.gauss(0, 0.02), 3))
        epoch = len(curve)
        trial.report(curve[-1], epoch)
        if epoch == spec.epochs:
            study.tell(trial, max(curve))
            running.remove(entry)
            continue
        stock = trial.should_prune()
        own = dict(enumerate(curve, 1))
        mine = decides_at(spec, trial.number, epoch) and verdict(
            spec, trial.number, epoch, own, peers_at(study, epoch)
        ).prune  # fmt: skip
        answers.append((mine, stock))
        if stock:
            study.tell(trial, state=TrialState.PRUNED)
            running.remove(entry)
    return answers


STOCK = {
    "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=3, reduction_factor=3),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=2, max_resource=20, reduction_factor=3),
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3),
}
OURS = {
    "asha": study_spec(name="asha", rungs=(3, 9), reduction_factor=3),
    "hyperband": study_spec(epochs=20, name="hyperband", min_epochs=2, reduction_factor=3),
    "median": study_spec(name="median", min_epochs=2, startup_trials=5),
}


@pytest.mark.parametrize("at_once", [1, 5])
@pytest.mark.parametrize("name", STOCK)
def test_verdicts_are_those_of_optunas_own_pruner(name, at_once):
    answers = both_pruners(OURS[name], STOCK[name](), seed=at_once, at_once=at_once)
    assert all(mine == stock for mine, stock in answers)
    assert 10 < sum(stock for _, stock in answers) < len(answers) - 10


def test_a_bracket_is_the_one_that_optuna_chooses():
    spec = OURS["hyperband"]
    theirs = STOCK["hyperband"]()
    study = optuna.create_study(study_name=spec.study, direction="maximize", pruner=theirs)
    theirs._try_initialization(study)
    for number in range(200):
        trial = optuna.trial.create_trial(value=0.0)
        trial.number = number
        assert bracket(spec, number) == theirs._get_bracket_id(study, trial)
    assert {bracket(spec, number) for number in range(200)} == {0, 1, 2}


def test_brackets_are_counted_in_whole_numbers():
    spec = study_spec(epochs=243, name="hyperband", min_epochs=1, reduction_factor=3)
    assert math.floor(math.log(243, 3)) == 4  # what Optuna counts with, and the reason for this test
    assert {bracket(spec, number) for number in range(3000)} == {0, 1, 2, 3, 4, 5}


def test_a_bracket_begins_to_judge_later_than_the_one_before():
    spec = study_spec(name="hyperband", min_epochs=3, reduction_factor=3)
    assert {(bracket(spec, number), rungs(spec, number)) for number in range(100)} == {(0, (3, 9)), (1, (9,)), (2, ())}


def test_nothing_is_read_at_epochs_without_a_verdict():
    spec = OURS["asha"]
    assert [epoch for epoch in range(1, 28) if decides_at(spec, 0, epoch)] == [3, 9]
    assert [epoch for epoch in range(1, 28) if decides_at(study_spec(name="none"), 0, epoch)] == []
    median = study_spec(name="median", min_epochs=24)
    assert [epoch for epoch in range(1, 28) if decides_at(median, 0, epoch)] == [25, 26]


def test_the_first_trial_at_a_rung_goes_on_and_a_worse_one_after_it_does_not():
    spec = OURS["asha"]
    assert not verdict(spec, 0, 3, {3: 0.1}, {}).prune
    pruned = verdict(spec, 1, 3, {3: 0.09}, {0: Peer(0.1)})
    assert pruned.prune
    assert pruned.reason == "epoch 3: 0.0900, place 2 of 2, the best 1 go on (from 0.1000)"
    assert not verdict(spec, 2, 3, {3: 0.1}, {0: Peer(0.1)}).prune  # a draw with the best is as good as the best


@pytest.mark.parametrize("name", OURS)
def test_a_fitness_that_is_no_number_is_pruned_and_hurts_nobody_else(name):
    spec = OURS[name]
    epoch = 18 if name == "hyperband" else 3
    number = next(n for n in range(99) if decides_at(spec, n, epoch))
    good = {n: Peer(0.1, complete=True) for n in range(100, 400)}
    assert verdict(spec, number, epoch, {epoch: math.nan}, good).prune
    assert not verdict(spec, number, epoch, {epoch: 0.2}, {**good, 1000: Peer(math.nan, complete=True)}).prune


@given(
    st.dictionaries(st.integers(0, 30), st.floats(0, 1), min_size=1),
    st.integers(0, 30),
    st.floats(0, 1),
    st.randoms(),
)
def test_a_verdict_depends_on_nothing_but_the_curves(values, number, value, chance):
    spec = OURS["asha"]
    peers = {peer: Peer(said, complete=bool(peer % 2)) for peer, said in values.items()}
    shuffled = list(peers.items())
    chance.shuffle(shuffled)
    first = verdict(spec, number, 3, {1: 0.9, 2: 0.0, 3: value}, peers)
    # A second time after the worker died: its own report is among the values, later epochs of it do not matter.
    again = verdict(spec, number, 3, {3: value, 4: 1.0}, {**dict(shuffled), number: Peer(value)})
    assert first == again


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(2, 5))
def test_of_all_that_reached_a_rung_the_best_always_goes_on_and_about_one_in_eta_does(values, factor):
    spec = study_spec(name="asha", rungs=(3,), reduction_factor=factor)
    peers = {number: Peer(value) for number, value in enumerate(values)}
    going_on = [n for n, value in enumerate(values) if not verdict(spec, n, 3, {3: value}, peers).prune]
    assert values.index(max(values)) in going_on
    ties = sum(value == min(values[n] for n in going_on) for value in values) - 1
    assert len(going_on) <= max(1, len(values) // factor) + ties


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, math.nan]), min_size=1, max_size=27),
    st.one_of(st.none(), st.integers(1, 5)),
)
def test_training_is_over_when_ultralytics_says_so(curve: list[float], patience: int | None) -> None:
    from ultralytics.utils.torch_utils import EarlyStopping

    spec = study_spec().model_copy(update={"patience_epochs": patience})
    stock, own = EarlyStopping(patience or 0), dict(enumerate(curve, 1))
    for epoch, value in own.items():
        assert is_over(spec, epoch, own) == (stock(epoch, value) or epoch == 27)
