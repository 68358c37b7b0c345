"""From a study to a choice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from petskin_tune.database.storage import open_storage
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import SnapshotPointer, read_leases
from petskin_tune.leases.segments import Begin, Choice, Continue, Segments
from petskin_tune.protocol import Position
from petskin_tune.search import segments
from petskin_tune.search.freeze_thaw import state as searches
from petskin_tune.search.segments import _last_run, choose
from petskin_tune.study.spec import SamplerSpec
from tests.support.leased_studies import LeasedStudy, new_study
from tests.support.searches import rising, state
from tests.support.studies import a_spec


@pytest.mark.parametrize(
    ("rungs", "beyond", "trains"),
    [
        ((), 2, True),  # the usual ones, every three epochs
        ((), 3, False),
        ((3, 6, 13, 27), 6, True),  # of the segment from 6 to 13, begun with the last epoch of the budget
        ((3, 6, 13, 27), 14, False),
    ],
)
def test_the_best_trial_is_trained_to_its_end_unless_more_than_a_segment_was_spent_beyond_the_budget(
    rungs: tuple[int, ...], beyond: int, trains: bool
) -> None:
    trials = [rising(number, 13) for number in range(12)]
    trials.append(rising(12, 27, "complete", lr0=1e-5))  # the last run, or an earlier one
    choice = _last_run(state(*trials, pauses=rungs), -beyond)
    assert isinstance(choice, Choice)
    assert (choice.segment is not None) == trains
    if isinstance(choice.segment, Continue):
        assert choice.segment.until == 27


def test_a_budget_that_was_lowered_ends_with_the_best_trial_trained_to_its_end_all_the_same() -> None:
    choice = _last_run(state(*(rising(number, 6) for number in range(10))), -6)
    assert isinstance(choice.segment, Continue)
    assert choice.segment.until == 27


def test_after_a_study_was_ended_for_its_outlook_a_trial_that_is_as_good_is_not_trained_to_its_end_too() -> None:
    """Else each of the frozen trials may come first by a hair once the one before is complete."""
    complete = rising(0, 27, "complete", lr0=1.0e-3, optimizer="AdamW")
    close = rising(1, 24, lr0=1.1e-3, optimizer="AdamW")
    others = [rising(number, 3, lr0=1e-5 * number, optimizer="SGD") for number in range(2, 12)]
    ended = _last_run(state(complete, close, *others), 0, "no more", clear=0.02)
    assert ended.segment is None
    far = [replace(trial, curve=tuple(value / 3 for value in trial.curve)) for trial in (complete,)]
    assert _last_run(state(*far, close, *others), 0, "no more", clear=0.02).segment == Continue(1, 27)


@pytest.fixture
def study(tmp_path: Path) -> LeasedStudy:
    """With one frozen trial."""
    study = new_study(open_storage(f"sqlite:///{tmp_path / 'tune.db'}"))
    claims = study.worker("a")
    held = Segments(claims).next(lambda: Choice(Begin({"lr0": 0.01}, 3)))
    assert held is not None
    trial = HeldTrial(claims, held)
    trial.report(1, 0.1, {})
    trial.point_to(SnapshotPointer("key", "0" * 64, Position(1, 0)))
    trial.freeze()
    return study


def goes_on_if_it_can(asked: searches.SearchState) -> searches.Decision:
    """A search that likes nothing better than what it has begun."""
    frozen = [trial for trial in asked.trials if trial.standing == "frozen"]
    action = searches.Continue(frozen[0].number, 6) if frozen else searches.Begin({"lr0": 0.02}, 3)
    return searches.Decision(action, searches.Why("model", "it is the best"))


@pytest.mark.parametrize(("target", "begins"), [(10, True), (1, False)])
def test_a_trial_that_waits_comes_before_one_to_go_on_with_while_more_may_begin(
    study: LeasedStudy, monkeypatch: pytest.MonkeyPatch, target: int, begins: bool
) -> None:
    monkeypatch.setattr(segments.choice, "choose", goes_on_if_it_can)
    spec = a_spec(sampler=SamplerSpec(name="freeze-thaw"), budget=100, target_trials=target)

    def chosen() -> Choice:
        return choose(study.optuna.get_trials(), read_leases(study.storage, study.id), spec)

    assert chosen().segment == Continue(0, 6)
    study.optuna.enqueue_trial({"lr0": 0.5})
    first = chosen().segment
    if not begins:
        assert first == Continue(0, 6)
        return
    assert isinstance(first, Begin)
    assert (first.until, set(first.point)) == (6, set(spec.search))


def test_a_trial_that_waits_is_no_matter_of_the_model_and_comes_before_the_end_by_an_outlook(
    study: LeasedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_more(asked: searches.SearchState) -> searches.Decision:
        decision = goes_on_if_it_can(asked)
        return replace(decision, outlook=searches.Outlook(0.0, 0.01, 100))

    def choose_with(keep_frozen: int) -> Choice:
        more = {"stop_when": 0.05, "budget": 100, "target_trials": 10, "keep_frozen": keep_frozen}
        spec = a_spec(sampler=SamplerSpec(name="freeze-thaw"), **more)
        return choose(study.optuna.get_trials(), read_leases(study.storage, study.id), spec)

    monkeypatch.setattr(segments.choice, "choose", nothing_more)
    assert "within a day" in choose_with(1).reason
    study.optuna.enqueue_trial({"lr0": 0.5})
    assert isinstance(choose_with(0).segment, Begin)  # too many are frozen: the model says which are kept
    monkeypatch.setattr(segments.choice, "choose", lambda _: pytest.fail("the model was asked"))
    assert isinstance(choose_with(1).segment, Begin)


def test_a_trial_that_a_person_ends_is_a_change_of_the_study(study: LeasedStudy) -> None:
    """Who found nothing to train looks again."""
    known = Segments(study.worker("b"))
    before = known.version()
    study.optuna.tell(0, state=TrialState.FAIL)
    assert known.version() != before
