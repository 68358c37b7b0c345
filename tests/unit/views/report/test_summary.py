from __future__ import annotations

import dataclasses

import optuna

from petskin_tune.study import attributes
from petskin_tune.study.best.gain import Gain
from petskin_tune.views.report import rows, summary
from petskin_tune.views.report.rows import Table
from petskin_tune.views.report.summary import costs, worth
from tests.support.made_studies import made
from tests.support.studies import a_spec, a_study, add

WAVES = (0.00, 0.01, -0.01, 0.01, 0.00, -0.01, 0.01, 0.00)


def a_search(*values: float, start: bool = True, recommended: int | None = None) -> Table:
    """Complete trials of these values, the first of them the defaults; their curves waver by 0.01."""
    study = a_study(a_spec(start=("defaults",) if start else ()))
    for number, value in enumerate(values):
        curve = {epoch: value - 0.01 + wave for epoch, wave in enumerate(WAVES, start=1)}
        origin = "start point" if start and not number else "search"
        add(study, "COMPLETE", value, curve=curve, **{attributes.ORIGIN: origin, attributes.SECONDS: 3600.0})
    if recommended is not None:
        named = {"trial": recommended, "ended": len(values), "reason": ""}
        study.set_user_attr(attributes.RECOMMENDED, named)
    return rows.read(study, (), {})


def said(table: Table) -> str:
    return " ".join(worth(table))


def test_the_noise_is_the_studys_own() -> None:
    table = a_search(0.3, 0.35, 0.4)
    assert 0.005 < table.noise < 0.02
    assert table.noise_curves == 3
    bare = a_study(a_spec())
    add(bare, "COMPLETE", 0.3, curve={1: 0.3})
    assert rows.read(bare, (), {}).noise_curves == 0


def test_a_clear_lead_is_more_than_noise_and_a_small_one_is_none() -> None:
    assert "0.200 above Ultralytics' defaults (trial 0, 0.300)" in said(a_search(0.3, 0.5))
    assert "more than noise" in said(a_search(0.3, 0.5))
    assert "within the noise" in said(a_search(0.3, 0.305))
    between = said(a_search(0.3, 0.3 + 4 * a_search(0.3).noise))
    assert "another seed may move it as far" in between


def test_a_best_that_is_recommended_for_its_curve_may_lie_far_below_the_defaults() -> None:
    below = said(a_search(0.4, 0.2, recommended=1))
    assert "It lies 0.200 below Ultralytics' defaults (trial 0, 0.400), " in below
    assert " times the noise (" in below
    assert "within the noise" not in below
    assert "0.005 below Ultralytics' defaults (trial 0, 0.305), within the noise" in said(
        a_search(0.305, 0.3, recommended=1)
    )


def test_defaults_that_are_the_best_are_called_so() -> None:
    assert said(a_search(0.5, 0.3)) == "That is Ultralytics' defaults: the search has found nothing better."


def test_a_study_whose_defaults_nobody_tried_claims_no_gain() -> None:
    assert "is not known: no trial tried them" in said(a_search(0.3, 0.5, start=False))


def test_defaults_that_were_pruned_are_no_measure() -> None:
    study = a_study(a_spec(start=("defaults",)))
    add(study, "PRUNED", 0.1, curve={1: 0.1}, **{attributes.ORIGIN: "start point"})
    add(study, "COMPLETE", 0.5, curve={1: 0.4, 2: 0.5}, **{attributes.ORIGIN: "search"})
    assert "ended early at 0.100 (pruned), so that the lead of +0.400 says little" in said(rows.read(study, (), {}))


def test_a_start_point_of_a_persons_own_is_not_called_the_defaults_that_were_pruned() -> None:
    study = a_study(a_spec(start=({"lr0": 0.003}, "defaults")))
    add(study, "COMPLETE", 0.3, curve={1: 0.3}, **{attributes.ORIGIN: "start point"})
    add(study, "PRUNED", 0.1, curve={1: 0.1}, **{attributes.ORIGIN: "start point"})
    add(study, "COMPLETE", 0.5, curve={1: 0.4, 2: 0.5}, **{attributes.ORIGIN: "search"})
    assert "Ultralytics' defaults (trial 1) ended early at 0.100" in said(rows.read(study, (), {}))


def test_what_repetitions_have_shown_is_said_instead_of_what_single_trials_show() -> None:
    study = a_study(a_spec(start=("defaults",)))
    add(study, "COMPLETE", 0.3, curve={1: 0.3}, **{attributes.ORIGIN: "start point"})
    add(study, "COMPLETE", 0.302, curve={1: 0.302}, **{attributes.ORIGIN: "search"})
    gain = Gain(trial=1, against="defaults", best=[0.34, 0.35, 0.345], defaults=[0.3, 0.31, 0.305])
    study.set_user_attr(attributes.GAIN, gain.model_dump())
    assert said(rows.read(study, (), {})) == f"T{gain.sentence()[1:]}."
    add(study, "COMPLETE", 0.4, curve={1: 0.4}, **{attributes.ORIGIN: "search"})
    both = said(rows.read(study, (), {}))
    assert "by now it is trial 2. It lies 0.100 above Ultralytics' defaults" in both


def test_hours_are_added_up_with_what_pruning_saved_and_disconnects_cost() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = made(40, 10, running=2)
    table = rows.read(study.study, study.leases, {39: "frozen"})
    (sentence,) = costs(table)
    trained = sum(trial.user_attrs[attributes.SECONDS] for trial in study.study.trials)
    assert trained == sum(len(row.curve) for row in table.rows) * 41.0
    assert sentence.startswith("3 workers trained ")
    assert "pruning saved " in sentence
    assert "freezing has spared " in sentence
    resumes = sum(lease.resumes for lease in study.leases)
    assert f"were interrupted {resumes} times" in sentence
    assert "had to be done twice" in sentence


def test_a_study_that_has_trained_nothing_has_no_costs() -> None:
    assert list(costs(rows.read(a_study(a_spec()), (), {}))) == []


def by_luck(*values: tuple[str, float]) -> str:
    study = a_study(a_spec())
    for state, value in values:
        curve = {epoch: value - 0.01 + wave for epoch, wave in enumerate(WAVES, start=1)}
        add(study, state, value, curve=curve, **{attributes.ORIGIN: "search"})
    return " ".join(summary._by_luck(rows.read(study, (), {})))


def test_a_trial_that_came_clearly_higher_than_the_best_is_named_and_not_called_noise() -> None:
    """The best is a complete trial, or the one that the model recommends."""
    assert by_luck(("COMPLETE", 0.2), ("PRUNED", 0.35)) == "Trial 1 reached 0.350 before it was pruned."
    assert by_luck(("COMPLETE", 0.2), ("PRUNED", 0.202)) == "1 other trial is within noise of it."
    assert by_luck(("COMPLETE", 0.2), ("COMPLETE", 0.1)) == ""


def test_the_best_is_not_compared_with_itself() -> None:
    assert "over Ultralytics" in summary._tiles(a_search(0.3, 0.35))
    assert "over Ultralytics" not in summary._tiles(a_search(0.4, 0.35))


def test_an_interruption_that_cost_no_second_cost_nothing() -> None:
    table = a_search(0.3)
    once = dataclasses.replace(table.rows[0], resumes=1, lost=0.2)
    (sentence,) = costs(dataclasses.replace(table, rows=[once]))
    assert sentence.endswith("Trials were interrupted 1 time and went on; nothing was done twice.")
