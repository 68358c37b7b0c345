"""From a study to a choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from petskin_tune.database.storage import open_storage
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Lease, SnapshotPointer, read_leases
from petskin_tune.leases.segments import Begin, Choice, Continue, Segments
from petskin_tune.protocol import Position
from petskin_tune.search import segments
from petskin_tune.search.freeze_thaw import state as searches
from petskin_tune.search.segments import _is_made, _last_run, choose
from petskin_tune.study.spec import Choices, SamplerSpec
from tests.support.leased_studies import LeasedStudy, new_study
from tests.support.searches import rising, state
from tests.support.studies import a_lease, a_spec, a_study, add


def test_a_last_run_is_the_recommended_trial_up_to_its_end_and_says_which_and_from_where() -> None:
    trials = [rising(number, 13) for number in range(12)]
    found = _last_run(state(*trials, rising(12, 27, "complete", lr0=1e-5)))
    assert isinstance(found.segment, Continue)
    assert found.segment.until == 27
    assert found.last_run == {"trial": found.segment.number, "epochs": 13}


@pytest.mark.parametrize(
    ("last_run", "made"),
    [
        (None, False),
        ({"trial": 0, "epochs": 13}, True),  # complete
        ({"trial": 1, "epochs": 13}, False),  # frozen: nobody went on with it
        ({"trial": 2, "epochs": 13}, False),  # its snapshot was gone
        ({"trial": 3, "epochs": 13}, True),  # diverged on the way
        ({"trial": 4, "epochs": 13}, False),  # still trained
        ({"trial": 9, "epochs": 13}, False),  # somebody deleted it
    ],
)
def test_a_last_run_is_made_once_its_trial_has_trained_and_ended(last_run: dict[str, int] | None, made: bool) -> None:
    running = replace(rising(4, 14, "running"), until=27)
    ended = rising(2, 13, "ended"), rising(3, 20, "diverged")
    assert _is_made(last_run, state(rising(0, 27, "complete"), rising(1, 13), *ended, running)) == made


def test_a_last_run_that_failed_is_made_again_by_another_trial_while_none_is_complete() -> None:
    assert not _is_made({"trial": 0, "epochs": 13}, state(rising(0, 20, "diverged"), rising(1, 13)))


def test_where_the_best_trial_is_left_to_others_no_other_one_is_trained_in_its_place() -> None:
    trials = [rising(number, 13) for number in range(12)]
    best = _last_run(state(*trials)).segment
    assert isinstance(best, Continue)
    found = _last_run(state(*trials), leave={best.number})
    assert (found.segment, found.left) == (None, (best.number,))
    others = set(range(12)) - {best.number}
    assert _last_run(state(*trials), leave=others).segment == best


def test_after_a_study_was_ended_for_its_outlook_a_trial_that_is_as_good_is_not_trained_to_its_end_too() -> None:
    """Else each of the frozen trials may come first by a hair once the one before is complete."""
    complete = rising(0, 27, "complete", lr0=1.0e-3, optimizer="AdamW")
    close = rising(1, 24, lr0=1.1e-3, optimizer="AdamW")
    others = [rising(number, 3, lr0=1e-5 * number, optimizer="SGD") for number in range(2, 12)]
    ended = _last_run(state(complete, close, *others), "no more", clear=0.02)
    assert ended.segment is None
    far = [replace(trial, curve=tuple(value / 3 for value in trial.curve)) for trial in (complete,)]
    assert _last_run(state(*far, close, *others), "no more", clear=0.02).segment == Continue(1, 27)


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


# ---- the end ----


def curve(end: float, epochs: int = 27) -> dict[int, float]:
    return {epoch: end * epoch / (epoch + 3) for epoch in range(1, epochs + 1)}


def held_study(study: optuna.Study, *trials: tuple[str, int, float]) -> list[Lease]:
    """Trials of ours in ``study``: (state of Optuna's or of the lease, epochs, where the whole curve would end)."""
    leases = []
    for number, (standing, epochs, end) in enumerate(trials):
        state = standing if standing.isupper() else "RUNNING"
        value = max(curve(end, epochs).values()) if state in ("COMPLETE", "PRUNED") else None
        trial = add(study, state, value, curve=curve(end, epochs), lr0=10.0 ** -(1 + number % 4))
        known = "done" if standing.isupper() else standing
        leases.append(a_lease(trial, Position(epochs, 0), state=known, until=epochs + 3))
    return leases


SEARCHED = {"sampler": SamplerSpec(name="freeze-thaw"), "target_trials": 100}
THREE_COMPLETE = (("COMPLETE", 27, 0.2), ("COMPLETE", 27, 0.25), ("COMPLETE", 27, 0.3))
PAUSED = (("frozen", 13, 0.9), ("frozen", 13, 0.4), ("frozen", 6, 0.3))


def test_a_lowered_budget_ends_with_the_best_trial_trained_to_its_end_however_much_was_used() -> None:
    study, spec = a_study(), a_spec(**SEARCHED, budget=27)
    leases = held_study(study, *THREE_COMPLETE, *PAUSED)
    found = choose(study.get_trials(), leases, spec)
    assert found.segment == Continue(3, 27)
    assert found.last_run == {"trial": 3, "epochs": 13}


def test_after_its_last_run_a_study_is_over_whatever_the_search_thinks_by_then() -> None:
    study, spec = a_study(), a_spec(**SEARCHED, budget=27)
    leases = held_study(study, *THREE_COMPLETE, *PAUSED)
    assert choose(study.get_trials(), leases, spec, last_run={"trial": 0, "epochs": 13}).segment is None


def test_a_study_that_has_reached_its_stop_at_trains_nothing_more_not_even_the_trial_that_asks() -> None:
    study = a_study()
    leases = held_study(study, *THREE_COMPLETE, ("running", 13, 0.9))
    for budget in (1000, 27):  # a last run would be due
        spec = a_spec(**SEARCHED, budget=budget, stop_at=0.25)
        found = choose(study.get_trials(), leases, spec, asking=3)
        assert (found.segment, found.drop) == (None, ())
        assert "stop_at" in found.reason
    assert choose(study.get_trials(), leases, a_spec(**SEARCHED, budget=27, stop_at=0.5), asking=3).segment


def test_the_first_trial_above_the_stop_at_is_trained_to_its_end_before_anything_else() -> None:
    """Its best epoch alone is no result yet: what counts as the study's best is a complete trial."""
    study, spec = a_study(), a_spec(**SEARCHED, budget=1000, stop_at=0.5)
    leases = held_study(study, *THREE_COMPLETE, *PAUSED, ("running", 13, 0.2))
    found = choose(study.get_trials(), leases, spec)
    assert (found.segment, found.drop) == (Continue(3, 27), ())
    assert found.last_run == {"trial": 3, "epochs": 13}
    assert choose(study.get_trials(), leases, spec, leave={3}).left == (3,)


def test_while_the_first_trial_above_the_stop_at_is_trained_nobody_begins_another_one() -> None:
    study, spec = a_study(), a_spec(**SEARCHED, budget=1000, stop_at=0.5)
    leases = held_study(study, *THREE_COMPLETE, ("frozen", 13, 0.4), ("running", 13, 0.9))
    found = choose(study.get_trials(), leases, spec)
    assert (found.segment, found.drop, found.left) == (None, (), ())
    assert choose(study.get_trials(), leases, spec, asking=4).segment == Continue(4, 27)


def test_a_space_all_of_whose_points_were_tried_ends_the_study_when_none_can_go_on() -> None:
    study = a_study()
    spec = a_spec(**SEARCHED, budget=1000, search={"lr0": Choices(choices=(0.1, 0.01, 0.001))})
    leases = held_study(study, ("COMPLETE", 27, 0.2), ("FAIL", 3, 0.1))
    assert isinstance(choose(study.get_trials(), leases, spec).segment, Begin)
    leases = held_study(study := a_study(), ("COMPLETE", 27, 0.2), ("FAIL", 3, 0.1), ("frozen", 6, 0.2))
    assert choose(study.get_trials(), leases, spec).segment == Continue(2, 9)
    leases = held_study(study := a_study(), ("COMPLETE", 27, 0.2), ("FAIL", 3, 0.1), ("PRUNED", 6, 0.2))
    found = choose(study.get_trials(), leases, spec)
    assert found.segment is None
    assert "every point" in found.reason
    study.enqueue_trial({"lr0": 0.1})
    assert isinstance(choose(study.get_trials(), leases, spec).segment, Begin), "a person wants it once more"


# ---- trials that whoever asks cannot go on with ----


def likes(*order: int) -> Callable[[searches.SearchState], searches.Decision]:
    """A search that goes on with the first of these that can, and keeps none of the others."""

    def decide(asked: searches.SearchState) -> searches.Decision:
        frozen = {trial.number for trial in asked.trials if trial.standing == "frozen"}
        first = next((number for number in order if number in frozen), None)
        action = searches.Begin({"lr0": 0.02}, 3) if first is None else searches.Continue(first, 16)
        return searches.Decision(action, searches.Why("model", "it is the best"), keep=())

    return decide


def test_a_trial_that_is_left_to_others_is_neither_chosen_nor_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    study, spec = a_study(), a_spec(**SEARCHED, budget=1000)
    leases = held_study(study, *THREE_COMPLETE, *PAUSED)
    monkeypatch.setattr(segments.choice, "choose", likes(3, 4, 5))
    assert choose(study.get_trials(), leases, spec).segment == Continue(3, 16)
    found = choose(study.get_trials(), leases, spec, leave={3})
    assert (found.segment, found.drop) == (Continue(4, 16), (5,))
    found = choose(study.get_trials(), leases, spec, leave={3, 4, 5})
    assert isinstance(found.segment, Begin)
    assert found.drop == ()


def test_a_study_with_all_its_configurations_waits_for_those_that_go_on_with_what_is_left_to_them() -> None:
    study, spec = a_study(), a_spec(**SEARCHED | {"target_trials": 6}, budget=1000)
    leases = held_study(study, *THREE_COMPLETE, *PAUSED)
    found = choose(study.get_trials(), leases, spec, leave={3, 4, 5})
    assert (found.segment, found.left) == (None, (3, 4, 5))
    assert choose(study.get_trials(), leases, spec, leave={3, 4}).segment == Continue(5, 9)
