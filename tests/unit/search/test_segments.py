"""From a study to a choice."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    choice = _last_run(state(*(rising(number, 13) for number in range(12)), pauses=rungs), -beyond)
    assert isinstance(choice, Choice)
    assert (choice.segment is not None) == trains
    if isinstance(choice.segment, Continue):
        assert choice.segment.until == 27


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
    assert chosen().segment == (Begin({"lr0": 0.02}, 3) if begins else Continue(0, 6))
