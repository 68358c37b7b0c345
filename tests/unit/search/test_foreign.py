"""Runs of elsewhere beside a study's own trials: what the search takes from them, and what it does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from petskin_tune.search import samplers
from petskin_tune.search.foreign import comparable, scales
from petskin_tune.search.freeze_thaw import choice, recommend
from petskin_tune.search.freeze_thaw.state import Begin, SearchState, TrialRecord
from petskin_tune.search.segments import first_choice, recommendation
from petskin_tune.study import attributes
from petskin_tune.study.foreign import Foreign, foreign_of
from petskin_tune.study.space.parameters import distributions
from petskin_tune.study.spec import Choices, PrunerSpec, SamplerSpec
from tests.support.foreign_runs import EPOCHS, SEARCH, rising, spec
from tests.support.searches import rising as record
from tests.support.searches import state


def a_trial(number: int, lr0: float, curve: dict[int, float], scale: str | None = "", **more: object) -> FrozenTrial:
    """A foreign trial, or with ``scale`` None one of the study."""
    kept = {} if scale is None else {attributes.FOREIGN: a_foreign(number, scale, **more).model_dump(mode="json")}
    trial = create_trial(
        state=TrialState.COMPLETE,
        value=max(curve.values()),
        params={"lr0": lr0, "momentum": 0.9},
        distributions=distributions(SEARCH),
        intermediate_values=curve,
        user_attrs=kept,
        system_attrs={attributes.MARK: "n"} if scale is None else {},
    )
    trial.number = number
    return trial


def a_foreign(number: int, scale: str, **more: object) -> Foreign:
    return Foreign.model_validate({"source": f"run {number}", "digest": f"{number:064x}", "scale": scale, **more})


def end(lr0: float) -> float:
    """Best at 1e-3, and steep."""
    return 0.5 - 0.06 * (math.log10(lr0) + 3) ** 2


def elsewhere(count: int, scale: str = "", offset: float = 0.0, *, curves: bool = True) -> list[FrozenTrial]:
    """Runs all over the range of lr0."""
    found = []
    for number, exponent in enumerate(np.linspace(-4.8, -1.2, count)):
        value = end(10**exponent)
        curve = dict(enumerate(rising(value), 1)) if curves else {EPOCHS: value}
        found.append(
            a_trial(number, float(10**exponent), {epoch: known + offset for epoch, known in curve.items()}, scale)
        )
    return found


def chosen(trials: Sequence[FrozenTrial]) -> float:
    """log10 of lr0 of the first choice after an import, which must be the model's."""
    decision = first_choice(trials, [], spec())
    assert isinstance(decision.action, Begin)
    assert decision.why.rule == "model"
    lr0 = decision.action.point["lr0"]
    assert isinstance(lr0, float)
    return math.log10(lr0)


def test_with_three_runs_of_elsewhere_the_first_choice_is_the_models() -> None:
    assert first_choice(elsewhere(2), [], spec()).why.rule == "first"
    assert first_choice(elsewhere(3), [], spec()).why.rule == "model"


@pytest.mark.parametrize("curves", [True, False])
def test_the_first_choice_lies_near_the_best_runs(curves: bool) -> None:
    assert abs(chosen(elsewhere(9, curves=curves)) + 3) < 0.8


def test_how_high_the_fitness_of_another_scale_lies_changes_no_choice() -> None:
    assert chosen(elsewhere(9, "log", 0.0)) == pytest.approx(chosen(elsewhere(9, "log", 0.4)), abs=1e-6)
    assert abs(chosen(elsewhere(9, "log")) + 3) < 0.8


def test_fitness_of_another_scale_is_moved_to_the_studys_median_and_nothing_given_is_changed() -> None:
    foreign = [a_trial(n, 0.001, {EPOCHS: 0.7 + 0.1 * n}, "log") for n in range(3)]
    own = [a_trial(3 + n, 0.001, {EPOCHS: 0.2 + 0.1 * n}, None) for n in range(3)]
    moved = comparable([*foreign, *own])
    assert [round(trial.values[0], 6) for trial in moved] == [0.2, 0.3, 0.4, 0.2, 0.3, 0.4]
    assert [round(trial.values[0], 6) for trial in foreign] == [0.7, 0.8, 0.9]
    assert scales(moved) == {0: 1, 1: 1, 2: 1}


def test_of_a_scale_with_fewer_than_three_runs_nothing_is_taken() -> None:
    alone = [a_trial(n, 0.001, {EPOCHS: 0.7 + 0.1 * n}, "log") for n in range(2)]
    same = a_trial(2, 0.001, {EPOCHS: 0.4})
    assert comparable([*alone, same]) == [same]


def test_a_damaged_note_of_a_foreign_trial_makes_it_teach_nothing() -> None:
    damaged = a_trial(0, 0.001, {EPOCHS: 0.9})
    damaged.user_attrs[attributes.FOREIGN] = {"digest": 7}
    assert foreign_of(damaged) == Foreign(source="unknown", digest="0" * 64, scale="unknown")
    assert comparable([damaged]) == []


def test_tpe_draws_by_runs_of_elsewhere() -> None:
    tpe = spec(sampler=SamplerSpec(name="tpe", startup_trials=8), pruner=PrunerSpec(name="none"), budget=None)
    near = [samplers.draw(elsewhere(12, "log", 0.4), number, tpe).params["lr0"] for number in range(12, 24)]
    random = [samplers.draw([], number, tpe).params["lr0"] for number in range(12, 24)]
    assert near != random
    assert np.median([abs(math.log10(value) + 3) for value in near if isinstance(value, float)]) < np.median(
        [abs(math.log10(value) + 3) for value in random if isinstance(value, float)]
    )


def as_foreign(trial: TrialRecord) -> TrialRecord:
    return replace(trial, foreign=True)


def test_a_foreign_trial_is_never_recommended() -> None:
    better = as_foreign(record(0, 27, "complete", lr0=1e-3, optimizer="AdamW"))
    mine = [record(n, 27, "complete", lr0=1e-5 * n, optimizer="SGD") for n in (1, 2, 3)]
    found = recommend.recommend(state(better, *mine))
    assert found is not None
    assert found.number in (1, 2, 3)
    assert 0 not in {forecast.number for forecast in found.forecasts}
    assert recommend.recommend(state(better)) is None
    assert recommendation(elsewhere(5), [], spec()) is None


def test_a_foreign_trial_is_never_gone_on_with_and_fills_no_study() -> None:
    foreign = [as_foreign(record(n, 3, "ended")) for n in range(4)]
    assert isinstance(choice.choose(state(*foreign)).action, Begin)


def test_the_best_point_of_elsewhere_can_be_begun_in_a_space_of_a_few_points() -> None:
    space = {"batch": Choices(choices=tuple(range(8)))}
    ends = [0.1, 0.12, 0.14, 0.45, 0.16, 0.18, 0.44, 0.2]
    known = [TrialRecord(n, {"batch": n}, (0.05, end, end), "ended", foreign=True) for n, end in enumerate(ends)]
    decision = choice.choose(SearchState(space, 27, tuple(known)))
    assert isinstance(decision.action, Begin)
    assert decision.why.rule == "model"
    assert decision.action.point["batch"] in (3, 6)
