"""What each section says and draws of studies that lack one thing or another."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import optuna
import pytest
from optuna.trial import create_trial

from petskin_tune.study import attributes
from petskin_tune.views import report
from petskin_tune.views.report import history, parameters, relations, results, rows, timeline, trials
from petskin_tune.views.report.rows import Table
from tests.support.made_studies import Made, made
from tests.support.studies import NOW, a_spec, a_study, add


@pytest.fixture(scope="module")
def searched() -> Made:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return made(60, 10, running=4)


@pytest.fixture
def table(searched: Made) -> Table:
    return rows.read(searched.study, searched.leases, {57: "frozen", 59: "frozen"})


def test_the_parameter_that_decides_is_the_most_important() -> None:
    searched = made(200, 10)  # of 60, six are the best tenth: too few to tell
    table = rows.read(searched.study, searched.leases, {})
    shares = parameters.importances(table)
    assert next(iter(shares)) == "lr0"
    assert sum(shares.values()) == pytest.approx(1)
    assert shares.keys() == table.space.keys()


def test_a_frozen_trial_and_a_failed_one_are_drawn_as_such(table: Table) -> None:
    groups = {row.number: row.group for row in table.rows}
    assert {groups[57], groups[59]} == {"frozen"}
    assert {groups[56], groups[58]} == {"running"}
    assert all(row.group == "failed" for row in table.rows if row.kind)
    assert any(row.kind and row.state == "pruned" for row in table.rows)


def test_of_more_trials_than_can_be_drawn_the_best_and_some_of_all_are(table: Table) -> None:
    drawn = parameters.thinned(table.valued, table, 10)
    numbers = [row.number for row in drawn]
    assert len(numbers) == 10
    assert set(table.order[:5]) <= set(numbers)
    assert numbers == sorted(numbers)


def test_a_report_of_more_trials_than_are_drawn_says_so(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_CURVES", 20)
    assert "20 of 60 trials, the best ones among them" in history.learning_curves(table)


def test_a_trial_that_was_told_its_end_with_the_studys_stands_where_it_was_trained() -> None:
    study = a_study(a_spec())
    begin = datetime(2026, 1, 1)
    for number, (end, value) in enumerate(((200, 0.1), (30, 0.2), (200, 0.3))):  # minutes; the first and last: frozen
        trial = create_trial(
            value=value, user_attrs={attributes.SECONDS: 600.0}, system_attrs={attributes.MARK: "made"}
        )
        trial.datetime_start = begin + timedelta(minutes=10 * number)
        trial.datetime_complete = begin + timedelta(minutes=end)
        study.add_trial(trial)
    table = rows.read(study, (), {})
    assert history._hours(table.rows) == pytest.approx({0: 1 / 6, 1: 2 / 6, 2: 3 / 6})


def test_the_line_that_rises_above_the_best_trial_says_whose_epoch_that_was(table: Table) -> None:
    assert "single epochs" not in history.best_so_far(table)
    second = table.row(table.order[1])
    named = replace(table, order=(second.number, *(n for n in table.order if n != second.number)))
    assert f"is trial {table.order[0]}&#x27;s" in history.best_so_far(named)


def test_a_search_that_completes_few_of_its_trials_has_importances_all_the_same(table: Table) -> None:
    kept = [
        row if row.number == table.order[0] or row.state != "complete" else replace(row, state="pruned")
        for row in table.rows
    ]
    few = replace(table, rows=tuple(kept))
    shares = parameters.importances(few)
    assert shares
    assert "A pruned trial counts with what it had reached." in parameters.importance_section(few, shares)


def test_the_map_is_high_where_values_are_and_empty_where_nobody_was() -> None:
    points = np.array([[0.2, 0.2], [0.8, 0.2]])
    surface = relations.smoothed(points, np.array([0.1, 0.5]))
    low, right = surface[6, 6], surface[6, 26]
    assert low == pytest.approx(0.1, abs=0.01)
    assert right == pytest.approx(0.5, abs=0.01)
    assert np.isnan(surface[30, 16])


def test_trials_of_a_worker_that_overlap_stand_in_lanes(table: Table) -> None:
    two = [row for row in table.rows if row.worker == "colab-1"][:2]
    begin = datetime(2026, 1, 1)
    for row, hours in zip(two, ((0, 2), (1, 3)), strict=True):
        row.trial.datetime_start = begin + timedelta(hours=hours[0])
        row.trial.datetime_complete = begin + timedelta(hours=hours[1])
    spans = {row.number: timeline._span(row, NOW) for row in two}
    lanes, ticks = timeline._lanes(two, spans)
    assert sorted(lanes.values()) == [0, 1]
    assert ticks == {"colab-1": 0}


def test_the_bar_of_a_trial_that_waits_is_said_to_be_as_long_as_its_training(table: Table) -> None:
    said = "its bar is as long as it was trained"
    assert said in timeline.timeline(table, NOW)
    ended = replace(table, rows=tuple(row for row in table.rows if row.end is not None or row.group == "running"))
    assert said not in timeline.timeline(ended, NOW)


def test_trials_without_a_final_value_stand_by_their_best_epoch_and_are_said_to(table: Table) -> None:
    listed = [table.row(int(number)) for number in re.findall(r"<tr><td>(\d+)</td>", trials.all_trials(table))]
    ended = len(table.order)
    assert tuple(row.number for row in listed[:ended]) == table.order
    values = [row.value for row in listed[ended:] if row.value is not None]
    assert len(values) > 1
    assert values == sorted(values, reverse=True)
    assert "trials without a final value follow" in trials.all_trials(table)
    early = replace(table, rows=tuple(row for row in table.rows if row.number not in table.order), order=())
    assert "The best first" not in trials.all_trials(early)


def test_the_epochs_of_short_trials_are_whole_numbers_on_their_axis(table: Table) -> None:
    short = replace(table, rows=tuple(replace(row, curve=row.curve[:4]) for row in table.rows))
    assert '"dtick":1' in history.learning_curves(short).replace(" ", "")
    assert '"dtick"' not in history.learning_curves(table)


def signs_of(html: str) -> dict[str, str]:
    return {name: sign for sign, name in re.findall(r'<i class="([^"]+)"></i>([^<]+)', html)}


def test_a_sign_in_the_legend_looks_like_what_is_drawn(table: Table) -> None:
    signs = signs_of(history.best_so_far(table))
    assert (signs["frozen"], signs["complete"], signs["ended by a failure"]) == ("dot ring", "dot", "dot cross")
    curves = signs_of(history.learning_curves(table))
    assert (curves["frozen"], curves["complete"]) == ("line dotted", "line")
    assert curves["interrupted, went on"] == "dot ring"


def test_the_settings_of_the_best_stand_beside_those_of_the_defaults(table: Table) -> None:
    html = results.best_beside_defaults(table)
    best = table.best
    assert best is not None
    assert f"Trial {best.number} beside trial 0, which began with Ultralytics&#x27; defaults" in html
    assert '<td class="differs">' in html
    assert "1e-5 to 0.1, logarithmic" in html


def test_a_start_point_that_is_no_default_is_called_so_throughout(searched: Made, table: Table) -> None:
    assert table.spec is not None
    assert table.defaults is not None
    assert "the defaults a diamond" in parameters.each_parameter(table, {})
    assert "defaults: trial 0" in results.classes(table)
    own = replace(table, spec=table.spec.model_copy(update={"start": ({"lr0": 0.01},)}))
    html = parameters.each_parameter(own, {}) + results.classes(own) + results.best_beside_defaults(own)
    assert "the start point a diamond" in html
    assert "start point: trial 0" in html
    assert "which began with the start point" in html
    assert "the defaults" not in html


def test_the_weakest_class_is_named(table: Table) -> None:
    assert "The weakest is nodule with" in results.classes(table)
    best = table.best
    assert best is not None
    assert results.by_class(best).keys() == {"papule", "scale", "pigmentation", "pustule", "erosion", "nodule"}


def test_a_class_without_a_number_is_left_out(table: Table) -> None:
    best = table.best
    assert best is not None
    metrics = {"metrics/mAP50-95(M)/papule": 0.5, "metrics/mAP50-95(M)/scale": float("nan")}
    attrs = {**best.trial.user_attrs, attributes.METRICS: metrics}
    trial = optuna.trial.create_trial(value=0.5, user_attrs=attrs, system_attrs=best.trial.system_attrs)
    assert results.by_class(replace(best, trial=trial)) == {"papule": 0.5}


def test_a_study_of_somebody_elses_makes_a_report_without_claims() -> None:
    study = optuna.create_study(study_name="theirs", direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        trial.report(x / 2, 1)
        if x < 0.2:
            raise optuna.TrialPruned
        return x + (0.1 if trial.suggest_categorical("kind", ["a", None]) else 0)

    study.optimize(objective, n_trials=12)
    html = report.render(study, NOW)
    assert "no trial tried them" in html
    assert "The best trial has no mask mAP by class." in html
    assert "worker not known" in html


def test_a_persons_own_trials_beside_ours_make_a_report() -> None:
    study = a_study(a_spec())
    for number in range(5):
        add(study, "COMPLETE", 0.1 * number, curve={1: 0.1}, lr0=0.001 * (number + 1), ours=number > 2)
    add(study, "COMPLETE", float("inf"), ours=False)
    add(study, "WAITING")
    html = report.render(study, NOW)
    assert "Trials (7)" in html
    assert "Infinity" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)


def test_the_importances_count_trials_that_a_person_pruned_without_a_value(searched: Made) -> None:
    table = rows.read(searched.study, searched.leases, {})
    bare = next(row for row in table.valued if row.state == "pruned")
    bare.trial.values = None
    assert parameters.importances(table)
