"""When a study of the sampler freeze-thaw has more to train, and when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.segments import Begin, Choice, Continue, Segments
from petskin_tune.study.spec import SamplerSpec
from petskin_tune.trial.workplace import Workplace
from petskin_tune.worker.supply import SegmentedTrials
from tests.support.studies import a_spec
from tests.support.workplace import Script, a_workplace

NOTHING = Choice(None, reason="others train what is left")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('supply') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def place(storage: PetskinStorage, tmp_path: Path) -> Workplace:
    return a_workplace(storage, tmp_path, Script(), a_spec(sampler=SamplerSpec(name="freeze-thaw"), budget=30))


def of_another(place: Workplace) -> HeldTrial:
    """A trial that another worker trains."""
    identity = replace(Identity.mine(), host="elsewhere")
    claims = Claims(place.study.storage, place.study.fence, "other", 90.0, 300.0, identity=identity)
    held = Segments(claims).next(lambda: Choice(Begin({}, 3)))
    assert held is not None
    trial = HeldTrial(claims, held)
    trial.report(1, 0.1, {})
    return trial


def test_a_study_is_not_over_when_a_trial_was_frozen_while_a_worker_saw_nothing_to_train(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = of_another(place)
    supply = SegmentedTrials(place)

    def choose() -> Choice:
        trial.freeze()
        return NOTHING

    monkeypatch.setattr(place, "choose", choose)
    assert not supply.may_have_more()
    assert not place.claims.read(), "nobody has a trial"
    assert not supply.end(), "it may be the one to train to its end"
    assert trial.read().state == TrialState.RUNNING
    monkeypatch.setattr(place, "choose", lambda: NOTHING)
    assert not supply.may_have_more()
    assert supply.end()
    assert trial.read().state == TrialState.PRUNED


def test_a_study_that_is_good_enough_ends_whatever_else_could_be_trained(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = of_another(place)
    supply = SegmentedTrials(place)
    monkeypatch.setattr(place, "choose", lambda: NOTHING)
    assert not supply.may_have_more()
    trial.freeze()
    assert supply.end(anyway=True)
    assert trial.read().state == TrialState.PRUNED


def test_a_worker_that_waits_for_others_looks_again_when_a_person_has_raised_the_budget(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another(place)
    supply = SegmentedTrials(place)
    monkeypatch.setattr(place, "choose", lambda: NOTHING)
    assert not supply.may_have_more()
    place.study.spec = place.study.spec.model_copy(update={"budget": 60})
    monkeypatch.setattr(place, "choose", lambda: Choice(Begin({}, 3)))
    assert supply.may_have_more()


def test_the_search_is_asked_once_for_a_segment_and_again_when_something_has_changed(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def choose() -> Choice:
        asked.append(len(asked))
        return Choice(Begin({}, 3))

    monkeypatch.setattr(place, "choose", choose)
    supply = SegmentedTrials(place)
    assert supply.may_have_more()
    assert supply.may_have_more()
    first = supply.next()
    assert first is not None
    assert asked == [0]
    assert supply.may_have_more()
    of_another(place)
    second = supply.next()
    assert second is not None
    assert second.number == first.number + 2
    assert asked == [0, 1, 2]


def test_reports_of_others_are_learnt_from_after_a_while(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("petskin_tune.worker.supply.ASKED_AGAIN_SECONDS", 0.0)
    asked: list[int] = []

    def choose() -> Choice:
        asked.append(1)
        return Choice(Begin({}, 3))

    monkeypatch.setattr(place, "choose", choose)
    supply = SegmentedTrials(place)
    assert supply.may_have_more()
    assert supply.may_have_more()
    assert len(asked) == 2


def test_a_choice_that_a_person_has_made_void_is_not_taken_again(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = of_another(place)
    trial.freeze()
    answers = [Choice(Continue(0, 9)), Choice(Begin({}, 3))]
    monkeypatch.setattr(place, "choose", lambda: answers.pop(0))
    supply = SegmentedTrials(place)
    assert supply.may_have_more()
    place.study.optuna.tell(0, state=TrialState.FAIL)
    held = supply.next()
    assert held is not None
    assert held.number == 1
    assert answers == []
