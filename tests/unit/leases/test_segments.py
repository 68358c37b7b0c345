"""Begin, freeze, thaw, go on, end: each once, whoever else chooses at the same time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from optuna.trial import TrialState

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import LeaseLost
from petskin_tune.leases import segments
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held, Lease, SnapshotPointer, read_leases
from petskin_tune.leases.segments import NO_ROOM, NO_SNAPSHOT, STUDY_OVER, Begin, Choice, Continue, Segments
from petskin_tune.protocol import Position
from petskin_tune.study import attributes
from tests.support.leased_studies import LeasedStudy, new_study

POINT = {"lr0": 0.01}
FIRST, SECOND, LAST = 3, 6, 9  # rungs


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('segments') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def study(storage: PetskinStorage) -> LeasedStudy:
    return new_study(storage)


def begin(claims: Claims) -> HeldTrial:
    held = Segments(claims).next(lambda: Choice(Begin(POINT, FIRST)))
    assert held is not None
    return HeldTrial(claims, held)


def trained(claims: Claims, *values: float) -> HeldTrial:
    """A held trial that has reported ``values``."""
    trial = begin(claims)
    report(trial, *values)
    return trial


def report(trial: HeldTrial, *values: float) -> None:
    known = len(trial.read().intermediate_values)
    for epoch, value in enumerate(values, known + 1):
        trial.report(epoch, value, {})
    trial.point_to(SnapshotPointer(f"key-{known}", "0" * 64, Position(known + len(values), 0)))


def frozen(claims: Claims, *values: float) -> Held:
    trial = trained(claims, *values)
    trial.freeze()
    return trial.held


def thaw(claims: Claims, number: int, until: int = SECOND) -> Held | None:
    return Segments(claims).next(lambda: Choice(Continue(number, until)))


def lease_of(study: LeasedStudy, held: Held) -> Lease:
    return next(lease for lease in read_leases(study.storage, study.id) if lease.trial_id == held.trial_id)


def test_a_new_trial_is_born_with_its_point_and_the_epochs_of_its_segment(study: LeasedStudy) -> None:
    trial = begin(study.worker("a"))
    assert lease_of(study, trial.held).until == FIRST
    assert trial.read().system_attrs["fixed_params"] == POINT


def test_a_trial_that_waits_goes_before_the_new_one_that_was_chosen(study: LeasedStudy) -> None:
    study.optuna.enqueue_trial({"lr0": 0.5})
    trial = begin(study.worker("a"))
    assert trial.read().system_attrs["fixed_params"] == {"lr0": 0.5}


def test_nothing_chosen_is_nothing_claimed(study: LeasedStudy) -> None:
    assert Segments(study.worker("a")).next(lambda: Choice(None)) is None
    assert read_leases(study.storage, study.id) == []


def test_a_frozen_trial_is_running_for_optuna_and_nobody_takes_it_over(study: LeasedStudy) -> None:
    held = frozen(study.worker("a"), 0.1, 0.2, 0.3)
    assert lease_of(study, held).state == "frozen"
    assert study.storage.get_trial(held.trial_id).state == TrialState.RUNNING
    other = study.worker("b", host="there")
    study.clock.now += 10_000
    assert other.take_over(by_command=True) is None
    assert other.read() == []


def test_a_frozen_trial_takes_no_writes_of_its_last_owner(study: LeasedStudy) -> None:
    trial = trained(study.worker("a"), 0.1)
    trial.freeze()
    with pytest.raises(LeaseLost):
        trial.report(2, 0.2, {})


def test_freezing_again_after_a_lost_acknowledgement_changes_nothing(study: LeasedStudy) -> None:
    trial = trained(study.worker("a"), 0.1)
    trial.freeze()
    trial.freeze()
    assert lease_of(study, trial.held).state == "frozen"


def test_thawing_claims_the_trial_and_counts_no_disconnect(study: LeasedStudy) -> None:
    held = frozen(study.worker("a"), 0.1, 0.2, 0.3)
    thawed = thaw(study.worker("b"), held.number)
    assert thawed is not None
    assert thawed.token == held.token + 1
    assert thawed.lease is not None
    assert thawed.lease.snapshot is not None
    assert thawed.lease.snapshot.position == Position(3, 0)
    now = lease_of(study, held)
    assert (now.state, now.until, now.worker, now.resumes, now.seconds_lost) == ("running", SECOND, "b", 0, 0.0)


def test_of_two_that_choose_the_same_frozen_trial_one_gets_it_and_the_other_chooses_again(study: LeasedStudy) -> None:
    held = frozen(study.worker("a"), 0.1, 0.2, 0.3)
    other = study.worker("b")
    choices = []

    def choose() -> Choice:
        choices.append(len(choices))
        if len(choices) == 1:  # while this worker thinks, the other one is faster
            assert thaw(other, held.number) is not None
            return Choice(Continue(held.number, SECOND))
        return Choice(Begin(POINT, FIRST))

    born = Segments(study.worker("a")).next(choose)
    assert born is not None
    assert len(choices) == 2
    assert born.number != held.number
    assert lease_of(study, held).worker == "b"


@pytest.mark.parametrize("event", ["birth", "freeze", "end"])
def test_whatever_changes_the_study_while_a_worker_chooses_makes_it_choose_again(
    study: LeasedStudy, event: str
) -> None:
    running = trained(study.worker("b"), 0.1)
    choices = 0

    def choose() -> Choice:
        nonlocal choices
        choices += 1
        if choices == 1:
            if event == "birth":
                begin(study.worker("c"))
            elif event == "freeze":
                running.freeze()
            else:
                running.tell(TrialState.PRUNED, 0.1, {}, {})
        return Choice(Begin(POINT, FIRST))

    assert Segments(study.worker("a")).next(choose) is not None
    assert choices == 2


def test_one_that_goes_on_and_one_that_is_to_be_frozen_do_not_look_like_no_change(study: LeasedStudy) -> None:
    other = study.worker("b")
    first, second = trained(other, 0.1, 0.2, 0.3), trained(other, 0.1, 0.2, 0.3)
    before = Segments(other).version()
    assert Segments(other).may_go_on(first, 3, lambda: Choice(Continue(first.number, SECOND))) == "goes on"
    assert Segments(other).may_go_on(second, 3, lambda: Choice(None)) == "freezes"
    assert Segments(other).version() != before


def test_a_frozen_trial_that_a_person_ends_while_a_worker_chooses_it_makes_the_worker_choose_again(
    study: LeasedStudy,
) -> None:
    held = frozen(study.worker("b"), 0.1)
    choices = []

    def choose() -> Choice:
        choices.append(len(choices))
        if len(choices) > 1:
            return Choice(Begin(POINT, FIRST))
        study.optuna.tell(held.number, state=TrialState.FAIL)
        return Choice(Continue(held.number, SECOND))

    born = Segments(study.worker("a")).next(choose)
    assert born is not None
    assert born.number != held.number
    assert len(choices) == 2


def test_reports_of_others_do_not_make_a_worker_choose_again(study: LeasedStudy) -> None:
    running = trained(study.worker("b"), 0.1)
    choices = 0

    def choose() -> Choice:
        nonlocal choices
        choices += 1
        report(running, 0.2)
        running.renew()
        return Choice(Begin(POINT, FIRST))

    Segments(study.worker("a")).next(choose)
    assert choices == 1


def test_a_trial_that_may_go_on_says_until_when(study: LeasedStudy) -> None:
    claims = study.worker("a")
    trial = trained(claims, 0.1, 0.2, 0.3)
    assert Segments(claims).may_go_on(trial, 3, lambda: Choice(Continue(trial.number, SECOND))) == "goes on"
    assert lease_of(study, trial.held).until == SECOND


def test_a_trial_that_is_to_be_frozen_is_not_asked_about_again_whoever_takes_it_over(study: LeasedStudy) -> None:
    trial = trained(study.worker("a"), 0.1, 0.2, 0.3)
    assert Segments(study.worker("a")).may_go_on(trial, 3, lambda: Choice(Begin(POINT, FIRST))) == "freezes"
    assert lease_of(study, trial.held).until == 0
    other = study.worker("b", host="there")
    held = other.take_over(by_command=True)
    assert held is not None
    again = HeldTrial(other, held)
    assert Segments(other).may_go_on(again, 3, lambda: Choice(Continue(trial.number, SECOND))) == "freezes"


def test_a_trial_that_is_not_worth_a_snapshot_ends_at_its_rung(study: LeasedStudy) -> None:
    claims = study.worker("a")
    trial = trained(claims, 0.1, 0.2, 0.3)
    choice = Choice(Begin(POINT, FIRST), drop=(trial.number,))
    assert Segments(claims).may_go_on(trial, 3, lambda: choice) == "ends"


def test_a_decision_to_go_on_whose_acknowledgement_was_lost_stays_in_force(study: LeasedStudy) -> None:
    claims = study.worker("a")
    trial = trained(claims, 0.1, 0.2, 0.3)
    worker = Segments(claims)
    assert worker.may_go_on(trial, 3, lambda: Choice(Continue(trial.number, SECOND))) == "goes on"
    assert worker.may_go_on(trial, 3, lambda: Choice(Begin(POINT, FIRST))) == "goes on"


def test_an_owner_that_comes_back_from_the_dead_decides_nothing(study: LeasedStudy) -> None:
    trial = trained(study.worker("a"), 0.1, 0.2, 0.3)
    assert study.worker("b", host="there").take_over(by_command=True) is not None
    with pytest.raises(LeaseLost):
        Segments(study.worker("a")).may_go_on(trial, 3, lambda: Choice(Continue(trial.number, SECOND)))


def test_a_taken_over_trial_keeps_the_epochs_of_its_segment(study: LeasedStudy) -> None:
    trial = trained(study.worker("a"), 0.1, 0.2)
    taken = study.worker("b", host="there").take_over(by_command=True)
    assert taken is not None
    now = lease_of(study, trial.held)
    assert (now.until, now.resumes) == (FIRST, 1)


def test_frozen_trials_without_a_place_in_the_store_end_in_the_step_that_chooses(study: LeasedStudy) -> None:
    claims = study.worker("a")
    first, second = frozen(claims, 0.1, 0.3, 0.2), frozen(claims, float("nan"))
    Segments(claims).next(lambda: Choice(Begin(POINT, FIRST), drop=(first.number, second.number)))
    ended = study.storage.get_trial(first.trial_id)
    assert (ended.state, ended.value) == (TrialState.PRUNED, 0.3)
    assert ended.datetime_complete is not None
    assert study.storage.get_trial(second.trial_id).state == TrialState.PRUNED
    assert (lease_of(study, first).state, lease_of(study, first).reason) == ("done", NO_SNAPSHOT)


def test_the_study_ends_with_its_frozen_trials_told_and_not_while_one_has_an_owner(study: LeasedStudy) -> None:
    claims = study.worker("a")
    held, running = frozen(claims, 0.1, 0.2, 0.3), trained(claims, 0.1)
    assert not Segments(claims).end()
    assert lease_of(study, held).state == "frozen"
    running.tell(TrialState.COMPLETE, 0.1, {}, {})
    assert Segments(claims).end()
    assert (lease_of(study, held).state, lease_of(study, held).reason) == ("done", STUDY_OVER)
    ended = study.storage.get_trial(held.trial_id)
    assert (ended.state, ended.value) == (TrialState.PRUNED, 0.3)
    assert Segments(claims).end()


def test_a_frozen_trial_that_a_person_ended_is_left_as_it_is(study: LeasedStudy) -> None:
    claims = study.worker("a")
    held = frozen(claims, 0.1)
    study.optuna.tell(held.number, state=TrialState.FAIL)
    assert Segments(claims).end()
    assert study.storage.get_trial(held.trial_id).state == TrialState.FAIL


# ---- room for other snapshots ----


def test_a_frozen_trial_that_makes_room_ends_with_its_best_value_and_is_over_whoever_asks_again(
    study: LeasedStudy,
) -> None:
    claims = study.worker("a")
    held = frozen(claims, 0.1, 0.3, 0.2)
    seen = lease_of(study, held)
    for _ in range(2):  # the acknowledgement of the first was lost
        assert Segments(claims).give_up(seen)
        ended = study.storage.get_trial(held.trial_id)
        assert (ended.state, ended.value) == (TrialState.PRUNED, 0.3)
        assert (lease_of(study, held).state, lease_of(study, held).reason) == ("done", NO_ROOM)


@pytest.mark.parametrize("since", ["thawed", "frozen again"])
def test_a_frozen_trial_that_somebody_thawed_meanwhile_makes_no_room(study: LeasedStudy, since: str) -> None:
    held = frozen(study.worker("a"), 0.1, 0.2, 0.3)
    seen, other = lease_of(study, held), study.worker("b")
    thawed = thaw(other, held.number)
    assert thawed is not None
    if since == "frozen again":
        HeldTrial(other, thawed).freeze()
    before = Segments(other).version()
    assert not Segments(study.worker("a")).give_up(seen)
    assert lease_of(study, held).state == ("running" if since == "thawed" else "frozen")
    assert study.storage.get_trial(held.trial_id).state == TrialState.RUNNING
    assert Segments(other).version() == before


# ---- the last run ----

LAST_RUN = {"trial": 0, "epochs": 3}


def last_run(study: LeasedStudy) -> object:
    return study.optuna.user_attrs.get(attributes.LAST_RUN)


def test_a_last_run_is_known_as_such_until_the_search_goes_on(study: LeasedStudy) -> None:
    claims = study.worker("a")
    held = frozen(claims, 0.1, 0.2, 0.3)
    assert Segments(claims).next(lambda: Choice(Continue(held.number, LAST), last_run=LAST_RUN)) is not None
    assert last_run(study) == LAST_RUN
    assert Segments(claims).next(lambda: Choice(None)) is None
    assert last_run(study) == LAST_RUN, "nothing has begun"
    begin(claims)  # a person has raised the budget
    assert last_run(study) is None


def test_the_trial_that_asks_may_be_the_last_run_and_one_that_freezes_is_none(study: LeasedStudy) -> None:
    claims = study.worker("a")
    trial, other = trained(claims, 0.1, 0.2, 0.3), trained(claims, 0.1, 0.2, 0.3)
    choice = Choice(Continue(trial.number, LAST), last_run=LAST_RUN)
    assert Segments(claims).may_go_on(other, 3, lambda: choice) == "freezes"
    assert last_run(study) is None
    assert Segments(claims).may_go_on(trial, 3, lambda: choice) == "goes on"
    assert last_run(study) == LAST_RUN
    assert Segments(claims).may_go_on(trial, 3, lambda: Choice(Begin(POINT, FIRST))) == "goes on", "it is decided"
    assert last_run(study) == LAST_RUN
    report(trial, 0.4, 0.5, 0.6)
    assert Segments(claims).may_go_on(trial, 9, lambda: Choice(Continue(trial.number, 12))) == "goes on"
    assert last_run(study) is None


def test_of_two_workers_that_choose_a_last_run_one_makes_it(study: LeasedStudy) -> None:
    first, second = frozen(study.worker("a"), 0.1, 0.2, 0.3), frozen(study.worker("a"), 0.1, 0.2, 0.3)
    answers = [Choice(Continue(second.number, LAST), last_run={"trial": second.number, "epochs": 3}), Choice(None)]

    def choose() -> Choice:
        if len(answers) == 2:
            chosen = Choice(Continue(first.number, LAST), last_run={"trial": first.number, "epochs": 3})
            assert Segments(study.worker("b")).next(lambda: chosen) is not None
        return answers.pop(0)

    assert Segments(study.worker("a")).next(choose) is None
    assert last_run(study) == {"trial": first.number, "epochs": 3}


def test_a_last_run_is_claimed_and_remembered_in_one_step(study: LeasedStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    held = frozen(study.worker("a"), 0.1, 0.2, 0.3)

    def dies(*_: object) -> None:
        raise RuntimeError("here it dies")

    monkeypatch.setattr(segments, "keep_attribute", dies)
    with pytest.raises(RuntimeError):
        thaw(study.worker("a"), held.number)
    assert lease_of(study, held).state == "frozen"
