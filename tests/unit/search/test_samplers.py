import copy
import random

import optuna
import pytest
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from petskin_tune.errors import UsageError
from petskin_tune.search import gaussian
from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.search.samplers import draw, sample, seed_of
from petskin_tune.study.space.parameters import check_point, distributions
from petskin_tune.study.spec import Choices, Range, SamplerSpec, StudySpec

SEARCH = {
    "optimizer": Choices(choices=("SGD", "Adam", "AdamW")),
    "lr0": Range(low=1e-5, high=2e-2, log=True),
    "momentum": Range(low=0.8, high=0.999),
    "degrees": Range(low=0, high=180, step=15),
    "batch": Range(low=4, high=64, integer=True),
    "cos_lr": Choices(choices=(True, False)),
}
optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_spec(name: str = "tpe", seed: int = 0, **search) -> StudySpec:
    space = search or SEARCH
    return StudySpec(
        study="s", model="m.pt", data="d", epochs=27, search=space, sampler=SamplerSpec(name=name), seed=seed
    )


def past(count: int, spec: StudySpec | None = None, pruned: bool = True) -> list[FrozenTrial]:
    """`count` finished trials with random parameters; a third of them pruned at epoch 3 with only a curve."""
    spec = study_spec("random") if spec is None else spec.model_copy(update={"sampler": SamplerSpec(name="random")})
    chance = random.Random(1)
    trials = []
    for number in range(count):
        drawn = draw([], number, spec)
        value = chance.random()
        told = {"params": dict(drawn.params), "distributions": dict(drawn.distributions)}
        if pruned and number % 3 == 2:
            curve = {1: 0.0, 2: value / 2, 3: value / 3}
            trial = create_trial(state=TrialState.PRUNED, intermediate_values=curve, **told)
        else:
            trial = create_trial(value=value, **told)
        trial.number = number
        trials.append(trial)
    return trials


def told_as(trial: FrozenTrial, state: TrialState, failure=None) -> FrozenTrial:
    other = copy.copy(trial)
    other.state = state
    other.values = None
    other.system_attrs = constraint_attrs(failure)
    return other


@pytest.mark.parametrize("name", ["random", "tpe"])
@pytest.mark.parametrize("count", [0, 9, 10, 40])
def test_a_draw_is_what_optunas_own_sampler_suggests(name, count):
    spec = study_spec(name)
    trials = past(count)
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    seed = seed_of(spec.seed, count)
    study.sampler = RandomSampler(seed=seed) if name == "random" else TPESampler(seed=seed)
    stock = study.ask(distributions(SEARCH))
    drawn = draw(trials, count, spec)
    assert drawn.params == stock.params
    assert drawn.distributions == stock.distributions
    stored = study._storage.get_trial_system_attrs(stock._trial_id)
    assert drawn.system_attrs == {key: value for key, value in stored.items() if "relative_params" in key}
    assert bool(drawn.system_attrs) == (name == "tpe" and count >= 10)


@pytest.mark.slow
def test_a_gaussian_process_is_asked_as_optuna_would_ask_it():
    trials = past(12, pruned=False)
    study = optuna.create_study(direction="maximize", sampler=GPSampler(seed=seed_of(0, 12)))
    study.add_trials(trials)
    stock = study.ask(distributions(SEARCH))
    assert draw(trials, 12, study_spec("gp")).params == stock.params


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_a_draw_depends_on_the_trials_and_the_number_and_on_nothing_else(name):
    spec = study_spec(name)
    trials = past(30)
    before = copy.deepcopy(trials)
    first = draw(trials, 30, spec)
    draw(trials[:12], 12, spec)
    assert draw(list(reversed(trials)), 30, spec) == first
    assert trials == before
    assert draw(trials, 31, spec) != first
    assert draw(trials, 30, study_spec(name, seed=1)) != first


def test_a_trial_never_learns_from_itself():
    trials = past(30)
    myself = told_as(past(31)[-1], TrialState.RUNNING)
    assert draw([*trials, myself], 30, study_spec()) == draw(trials, 30, study_spec())


def test_what_others_are_trying_just_now_is_avoided():
    trials = past(40, pruned=False)
    alone = draw(trials, 40, study_spec())
    busy = [told_as(past(i + 1)[-1], TrialState.RUNNING) for i in range(40, 60)]
    assert draw([*trials, *busy], 70, study_spec()) != draw(trials, 70, study_spec())
    newborn = create_trial(state=TrialState.RUNNING)
    newborn.number = 41
    assert draw([*trials, newborn], 40, study_spec()) == alone


def test_trials_of_another_space_failed_ones_and_waiting_ones_teach_nothing():
    trials = past(30)
    wider = study_spec(**{**SEARCH, "lr0": Range(low=1e-6, high=2e-2, log=True)})
    fewer = study_spec(lr0=SEARCH["lr0"])
    strangers = [
        *past(5, wider),
        *past(5, fewer),
        told_as(trials[0], TrialState.FAIL),
        create_trial(state=TrialState.WAITING),
    ]
    for number, stranger in enumerate(strangers, 100):
        stranger.number = number
    assert draw([*trials, *strangers], 200, study_spec()) == draw(trials, 200, study_spec())


@pytest.mark.parametrize("name", ["random", "tpe", "gp"])
def test_a_chosen_point_is_kept_to_the_letter_and_the_rest_is_drawn(name):
    fixed = {"lr0": 9.8e-5, "optimizer": "adamw"}
    drawn = draw(past(5), 5, study_spec(name), fixed)
    assert drawn.params["lr0"] == 9.8e-5
    assert drawn.params["optimizer"] == "AdamW"
    assert drawn.params.keys() == SEARCH.keys()
    free = draw(past(5), 5, study_spec(name))
    assert all(drawn.params[key] == free.params[key] for key in SEARCH.keys() - fixed.keys())


def test_a_whole_point_needs_no_sampler(monkeypatch):
    point = dict(draw([], 0, study_spec("random")).params)
    trials = past(40)
    monkeypatch.setattr("petskin_tune.search.samplers.sample", None)
    monkeypatch.setattr(gaussian, "in_helper_process", None)
    assert draw(trials, 40, study_spec("gp"), point).params == point


def test_a_point_outside_of_the_space_is_refused():
    with pytest.raises(UsageError, match="outside of its range"):
        draw([], 0, study_spec(), {"lr0": 1.0})


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_drawn_values_are_plain_and_inside_of_their_ranges(name):
    trials = past(30)
    for number in range(30, 130):
        params = draw(trials, number, study_spec(name)).params
        assert check_point(params, SEARCH) == params
        assert {key: type(params[key]) for key in ("batch", "lr0", "optimizer", "cos_lr")} == {
            "batch": int, "lr0": float, "optimizer": str, "cos_lr": bool
        }  # fmt: skip


@pytest.mark.parametrize("failure", [None, "out-of-memory", "diverged", "crashed"])
def test_constraints_are_stored_as_optuna_itself_stores_them(failure):
    trial = optuna.create_study().ask()
    trial.set_constraint("oom", failure == "out-of-memory")
    trial.set_constraint("diverged", failure == "diverged")
    assert trial.study._storage.get_trial_system_attrs(trial._trial_id) == constraint_attrs(failure)


def test_a_pruned_trial_counts_with_its_best_epoch_for_the_gaussian_process():
    trials = past(6)
    seen = gaussian.as_complete(trials)
    assert [trial.state for trial in seen] == [TrialState.COMPLETE] * 6
    assert [trial.value for trial in seen] == [
        max(trial.intermediate_values.values()) if trial.state == TrialState.PRUNED else trial.value for trial in trials
    ]
    assert all(trial.constraints == {} for trial in seen)


def test_the_gaussian_process_sees_an_infeasible_trial_and_the_same_constraint_on_all():
    trials = [
        *past(4),
        told_as(past(5)[-1], TrialState.PRUNED, "out-of-memory"),
        told_as(past(6)[-1], TrialState.RUNNING),
    ]
    seen = gaussian.as_complete(trials)
    assert [dict(trial.constraints) for trial in seen] == [{"oom": 0.0}] * 4 + [{"oom": 1.0}, {}]
    assert seen[4].state == TrialState.COMPLETE
    assert min(trial.value for trial in seen[:4]) <= seen[4].value <= max(trial.value for trial in seen[:4])
    assert seen[5].state == TrialState.RUNNING
    assert trials[4].state == TrialState.PRUNED


def test_a_trial_pruned_before_its_first_epoch_says_nothing_to_the_gaussian_process():
    trials = [*past(4), told_as(past(5)[-1], TrialState.PRUNED)]
    trials[-1].intermediate_values = {}
    assert len(gaussian.as_complete(trials)) == 4


def test_a_constraint_keeps_the_sampler_away():
    spec = study_spec()
    trials = past(60, pruned=False)
    half = [told_as(t, TrialState.PRUNED, "out-of-memory") if t.params["batch"] > 34 else t for t in trials]
    draws = [draw(half, number, spec).params["batch"] for number in range(60, 160)]
    assert sum(batch > 34 for batch in draws) < 25


def test_the_random_numbers_of_neighbouring_trials_and_studies_differ():
    assert len({seed_of(study, number) for study in range(50) for number in range(50)}) == 2500
    assert 0 <= seed_of(0, 0) < 2**32


def test_sample_leaves_a_callers_space_alone():
    space = distributions(SEARCH)
    sample(TPESampler(seed=0), past(20), 20, space)
    assert space == distributions(SEARCH)


@pytest.mark.parametrize("odd", ["x", ["x"], {"a": 1}, [None]])
def test_constraints_that_no_sampler_can_read_end_no_draw(odd):
    trials = past(12, pruned=False)
    trials[3].system_attrs = {"constraints": odd}
    assert draw(trials, 12, study_spec()).params
