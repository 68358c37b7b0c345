"""Births, take-overs and grace, told as stories: the clock is told what time it is, no process is needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from sqlalchemy import event, exc

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import LeaseLost
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.expiry import grace
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held, SnapshotPointer
from petskin_tune.protocol import Position
from petskin_tune.study import attributes
from tests.support.leased_studies import LEASE, SNAPSHOTS, LeasedStudy, new_study

GRACE = grace(LEASE)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('leases') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def study(storage: PetskinStorage) -> LeasedStudy:
    return new_study(storage)


def _born(leases: Claims) -> Held:
    held = leases.next_trial(100)
    assert held is not None
    return held


def _snapshot(leases: Claims, held: Held, epoch: int) -> None:
    HeldTrial(leases, held).point_to(SnapshotPointer(f"key-{epoch}", "0" * 64, Position(epoch, 0)))


def _watch(leases: Claims, study: LeasedStudy, seconds: float) -> Held | None:
    """Look each second, for so long, or until something was taken over."""
    for _ in range(round(seconds)):
        if held := leases.take_over():
            return held
        study.clock.now += 1.0
    return leases.take_over()


# ---- births ----


def test_a_newborn_trial_has_its_lease_and_its_mark(study: LeasedStudy) -> None:
    leases = study.worker("a")
    held = _born(leases)
    (lease,) = (seen.lease for seen in leases.read())
    assert (lease.trial_id, lease.token, lease.state, lease.worker) == (held.trial_id, 1, "running", "a")
    assert LEASE / 2 < lease.expires_in <= LEASE
    trial = study.storage.get_trial(held.trial_id)
    assert trial.state == TrialState.RUNNING
    assert attributes.MARK in trial.system_attrs


def test_no_trial_is_born_beyond_the_target(study: LeasedStudy) -> None:
    leases = study.worker("a")
    assert [leases.next_trial(2) is not None for _ in range(4)] == [True, True, False, False]
    assert leases.count() == 2


def test_trials_of_others_in_the_same_study_do_not_count_against_the_target(study: LeasedStudy) -> None:
    study.optuna.add_trial(create_trial(value=1.0))
    study.optuna.ask()
    assert study.worker("a").next_trial(1) is not None


def test_the_oldest_waiting_trial_comes_before_a_new_one_and_gets_mark_and_lease(study: LeasedStudy) -> None:
    study.optuna.enqueue_trial({"x": 1.0}, user_attrs={"origin": "person"})
    study.optuna.enqueue_trial({"x": 2.0})
    leases = study.worker("a")
    first, second, third = (_born(leases) for _ in range(3))
    trials = study.optuna.get_trials()
    assert [first.number, second.number, third.number] == [0, 1, 2]
    assert [trial.system_attrs.get("fixed_params") for trial in trials] == [{"x": 1.0}, {"x": 2.0}, None]
    assert trials[0].user_attrs == {"origin": "person"}
    assert all(attributes.MARK in trial.system_attrs for trial in trials)
    assert abs(trials[0].datetime_start - datetime.now()) < timedelta(minutes=5)


def test_a_waiting_trial_beyond_the_target_keeps_waiting(study: LeasedStudy) -> None:
    leases = study.worker("a")
    _born(leases)
    study.optuna.enqueue_trial({"x": 1.0})
    assert leases.next_trial(1) is None
    assert study.optuna.trials[1].state == TrialState.WAITING


# ---- trials without a lease ----


def _running(study: LeasedStudy, age: float, **system_attrs: str) -> int:
    trial = create_trial(state=TrialState.RUNNING, system_attrs=system_attrs)
    started = datetime.now(timezone.utc) - timedelta(seconds=age)
    trial.datetime_start = started.astimezone().replace(tzinfo=None)  # as Optuna has it; an hour may come twice
    study.optuna.add_trial(trial)
    return study.optuna.trials[-1]._trial_id


@pytest.mark.parametrize("zone", ["UTC", "Asia/Seoul", "America/Los_Angeles"])
def test_how_old_a_trial_without_a_lease_is_does_not_depend_on_the_time_zone(
    study: LeasedStudy, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        leases = study.worker("a")
        _running(study, age=LEASE / 2, **{attributes.MARK: "n1"})
        orphan = _running(study, age=2 * LEASE, **{attributes.MARK: "n2"})
        leases.adopt_unleased()
        assert {seen.lease.trial_id for seen in leases.read()} == {orphan}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_only_an_old_running_trial_with_our_mark_and_no_lease_is_adopted(study: LeasedStudy) -> None:
    leases = study.worker("a")
    living = _born(leases)
    young = _running(study, age=LEASE / 2, **{attributes.MARK: "n1"})
    foreign = _running(study, age=10 * LEASE, **{"fixed_params": "a person's own"})
    orphan = _running(study, age=2 * LEASE, **{attributes.MARK: "n2"})
    leases.adopt_unleased()
    assert {seen.lease.trial_id for seen in leases.read()} == {living.trial_id, orphan}
    held = study.worker("b").take_over()
    assert held is not None
    assert (held.trial_id, held.token) == (orphan, 2)
    assert study.storage.get_trial(young).state == study.storage.get_trial(foreign).state == TrialState.RUNNING


# ---- take-over ----


def test_a_released_trial_is_taken_over_at_once_under_its_own_number(study: LeasedStudy) -> None:
    first, second = study.worker("a"), study.worker("b", host="there")
    held = _born(first)
    HeldTrial(first, held).release("--max-hours 2 reached")
    (lease,) = (seen.lease for seen in second.read())
    assert (lease.state, lease.reason) == ("released", "--max-hours 2 reached")
    taken = second.take_over()
    assert taken is not None
    assert (taken.trial_id, taken.number, taken.token) == (held.trial_id, held.number, 2)
    (lease,) = (seen.lease for seen in second.read())
    assert (lease.worker, lease.state, lease.resumes, lease.reason) == ("b", "running", 1, None)


def test_a_living_lease_is_nobodys_to_take(study: LeasedStudy) -> None:
    _born(study.worker("a"))
    other = study.worker("b", host="there")
    assert _watch(other, study, 200) is None


def test_an_expired_lease_is_taken_only_after_the_claimers_own_grace(study: LeasedStudy) -> None:
    _born(study.worker("a"))
    study.let_expire()
    other = study.worker("b", host="there")
    assert _watch(other, study, GRACE - 1) is None
    assert _watch(other, study, 2) is not None


def test_the_grace_is_the_lease_where_that_is_shorter(study: LeasedStudy) -> None:
    _born(study.worker("a", lease=10.0))
    study.let_expire()
    other = study.worker("b", host="there")
    assert _watch(other, study, 9) is None
    assert _watch(other, study, 2) is not None


def test_a_sign_of_life_starts_the_grace_again(study: LeasedStudy) -> None:
    owner, other = study.worker("a"), study.worker("b", host="there")
    held = _born(owner)
    study.let_expire()
    assert _watch(other, study, GRACE - 5) is None
    assert HeldTrial(owner, held).renew()
    study.let_expire()
    assert _watch(other, study, GRACE - 1) is None
    assert _watch(other, study, 2) is not None


def test_a_database_that_was_away_for_whatever_the_claimer_asked_starts_the_grace_again(study: LeasedStudy) -> None:
    _born(study.worker("a"))
    study.let_expire()
    other = study.worker("b", host="there")
    assert _watch(other, study, GRACE - 5) is None
    assert _fail_once(study.storage, other.count) == 1  # whatever it asked for
    assert _watch(other, study, GRACE - 1) is None
    assert _watch(other, study, 2) is not None


def test_a_read_that_succeeded_only_when_it_was_tried_again_starts_the_grace_again(study: LeasedStudy) -> None:
    _born(study.worker("a"))
    study.let_expire()
    other = study.worker("b", host="there")
    assert _watch(other, study, GRACE - 5) is None
    assert _fail_once(study.storage, other.take_over) is None
    assert _watch(other, study, GRACE - 1) is None
    assert _watch(other, study, 2) is not None


def test_a_claim_that_met_an_outage_is_given_up_because_the_owner_may_have_met_it_too(study: LeasedStudy) -> None:
    owner, other = study.worker("a"), study.worker("b", host="there")
    held = _born(owner)
    study.let_expire()
    assert _watch(other, study, GRACE - 1) is None
    study.clock.now += 1.0
    assert _fail_once(study.storage, other.take_over, statement="UPDATE trial_leases") is None
    assert HeldTrial(owner, held).lease().token == 1
    assert _watch(other, study, GRACE - 2) is None


def test_a_database_whose_clock_jumped_takes_no_trial_from_an_owner_whose_next_renewal_is_not_due(
    study: LeasedStudy,
) -> None:
    owner, other = study.worker("a", lease=300.0), study.worker("b", host="there", lease=300.0)
    held = _born(owner)
    assert _watch(other, study, 40) is None
    study.let_expire(seconds_ago=310.0)  # the clock was set forward by 400 s
    assert _watch(other, study, 60) is None
    assert HeldTrial(owner, held).renew()  # after a third of its lease, as always
    study.let_expire(seconds_ago=310.0)
    assert _watch(other, study, 119) is None
    assert _watch(other, study, 2) is not None


HOURS = 3 * 3600.0


def test_a_dead_owners_lease_by_a_clock_that_was_hours_ahead_is_waited_for_and_taken_after_a_lease_and_a_grace(
    study: LeasedStudy,
) -> None:
    held = _born(study.worker("a", host="vanished"))
    study.shift(-HOURS)  # the disk goes on in a machine whose clock is behind
    other = study.worker("b", host="there")
    assert other.should_wait()
    assert _watch(other, study, LEASE + GRACE - 1) is None
    taken = _watch(other, study, 2)
    assert taken is not None
    assert (taken.trial_id, taken.token) == (held.trial_id, 2)
    assert LEASE / 2 < HeldTrial(other, taken).lease().expires_in <= LEASE


def test_a_living_owner_whose_clock_is_set_back_again_and_again_keeps_its_trial(study: LeasedStudy) -> None:
    owner, other = study.worker("a"), study.worker("b", host="there")
    held = _born(owner)
    for _ in range(20):
        study.shift(-HOURS)
        assert _watch(other, study, LEASE / 3) is None
        assert HeldTrial(owner, held).renew()
    assert HeldTrial(owner, held).lease().token == 1


def test_a_lease_of_before_a_person_made_leases_shorter_lasts_as_long_as_it_says(study: LeasedStudy) -> None:
    _born(study.worker("a", host="vanished", lease=600.0))
    other = study.worker("b", host="there")
    assert not other.should_wait()
    assert _watch(other, study, 2 * (LEASE + GRACE)) is None


def _fail_once(storage: PetskinStorage, call: Callable[[], Any], statement: str = "") -> Any:
    """The result of ``call``; the database is away for the first of its statements that begins like ``statement``."""
    fails = iter([True])

    def fail(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if text.strip().startswith(statement) and next(fails, False):
            raise exc.TimeoutError("the pool has no connection to give")

    event.listen(storage.engine, "before_cursor_execute", fail)
    try:
        result = call()
    finally:
        event.remove(storage.engine, "before_cursor_execute", fail)
    assert next(fails, "it fired") == "it fired"
    return result


def test_reads_far_apart_prove_nothing_about_what_lay_between(study: LeasedStudy) -> None:
    _born(study.worker("a"))
    study.let_expire()
    other = study.worker("b", host="there")
    assert other.take_over() is None
    study.clock.now += 3600.0  # it trained a trial of its own meanwhile
    assert _watch(other, study, GRACE - 1) is None
    assert _watch(other, study, 2) is not None


def test_an_owner_that_renews_between_a_claimers_read_and_its_claim_keeps_its_trial(study: LeasedStudy) -> None:
    owner, other = study.worker("a"), study.worker("b", host="there")
    held = _born(owner)
    (seen,) = other.read()
    assert HeldTrial(owner, held).renew()
    assert other._claim(seen.lease) is None
    assert HeldTrial(owner, held).lease().token == 1


def test_a_trial_that_its_owner_finished_cannot_be_claimed_on_an_old_row(study: LeasedStudy) -> None:
    owner, other = study.worker("a"), study.worker("b", host="there")
    held = _born(owner)
    (seen,) = other.read()
    HeldTrial(owner, held).tell(TrialState.COMPLETE, 0.5, {}, {})
    assert other._claim(seen.lease) is None


def test_a_trial_that_a_person_finished_cannot_be_claimed_on_an_old_row(study: LeasedStudy) -> None:
    held = _born(study.worker("a"))
    other = study.worker("b", host="there")
    (seen,) = other.read()
    study.optuna.tell(held.number, state=TrialState.FAIL)
    assert other._claim(seen.lease) is None


def test_by_command_the_owners_found_first_are_gone_and_nobody_elses(study: LeasedStudy) -> None:
    dead, living = study.worker("a", host="vanished"), study.worker("c", host="elsewhere")
    first, second = _born(dead), _born(dead)
    other = study.worker("b", host="there")
    taken = other.take_over(by_command=True)
    assert taken is not None
    assert taken.trial_id == first.trial_id
    born_later = _born(living)
    stolen_meanwhile = living.take_over(by_command=True)
    assert stolen_meanwhile is not None  # of what it found first; here: the first of all
    assert stolen_meanwhile.trial_id == first.trial_id
    taken = other.take_over(by_command=True)
    assert taken is not None
    assert taken.trial_id == second.trial_id
    assert other.take_over(by_command=True) is None
    assert HeldTrial(living, born_later).lease().token == 1


def test_by_command_a_worker_that_the_same_command_has_started_keeps_its_trial(
    study: LeasedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, sibling = study.worker("a", host="vanished"), study.worker("c")
    of_the_dead, of_the_sibling = _born(dead), _born(sibling)
    monkeypatch.setattr(Identity, "is_living_sibling", lambda identity: identity == sibling.identity)
    other = study.worker("b")
    taken = other.take_over(by_command=True)
    assert taken is not None
    assert taken.trial_id == of_the_dead.trial_id
    assert other.take_over(by_command=True) is None
    assert HeldTrial(sibling, of_the_sibling).lease().token == 1


def test_a_trial_that_a_worker_declined_is_left_to_others(study: LeasedStudy) -> None:
    first, other = study.worker("a"), study.worker("b", host="there")
    held = _born(first)
    HeldTrial(first, held).release("another machine")
    assert first.take_over(leave={held.trial_id}) is None
    assert other.take_over() is not None


def test_on_a_home_with_one_owner_whoever_cannot_be_seen_is_gone(study: LeasedStudy) -> None:
    _born(study.worker("a", host="vanished"))
    other = study.worker("b", host="there")
    assert other.take_over() is None
    other.alone = True
    assert other.take_over() is not None


# ---- a lone worker ----


def test_a_lone_worker_waits_out_a_lease_that_may_be_a_dead_ones(study: LeasedStudy) -> None:
    _born(study.worker("a", host="vanished"))
    assert study.worker("b", host="there").should_wait()


def test_a_long_lease_is_not_waited_for(study: LeasedStudy) -> None:
    _born(study.worker("a", host="vanished", lease=600.0))
    assert not study.worker("b", host="there").should_wait()


def test_a_worker_that_sees_another_renew_does_not_wait(study: LeasedStudy) -> None:
    owner, other = study.worker("a"), study.worker("b", host="there")
    held = _born(owner)
    assert other.should_wait()
    assert HeldTrial(owner, held).renew()
    assert not other.should_wait()


def test_a_trial_that_is_left_to_others_is_not_waited_for(study: LeasedStudy) -> None:
    held = _born(study.worker("a", host="vanished"))
    study.let_expire()
    other = study.worker("b", host="there")
    assert other.should_wait()
    assert not other.should_wait(leave={held.trial_id})


def test_a_worker_waits_again_when_the_other_that_it_saw_renew_has_run_out(study: LeasedStudy) -> None:
    owner, other = study.worker("a"), study.worker("b", host="there")
    held = _born(owner)
    other.read()
    assert HeldTrial(owner, held).renew()
    assert not other.should_wait()
    study.let_expire()
    assert other.should_wait()


# ---- deaths ----


def test_a_machine_that_vanished_before_a_snapshot_was_due_is_no_crash(study: LeasedStudy) -> None:
    _born(study.worker("a", host="vanished"))
    study.shift(SNAPSHOTS + LEASE)
    taken = study.worker("b", host="there").take_over(by_command=True)
    assert taken is not None
    assert taken.lease is not None
    assert (taken.lease.crashes, taken.lease.vanishes) == (0, 1)
    assert taken.hopeless is None


def _die_after(study: LeasedStudy, worker: Claims, seconds: float) -> Held:
    """The owner lives for so long, and its trial is taken over."""
    study.shift(seconds)
    with study.storage.engine.begin() as connection:  # it renewed to the last
        connection.exec_driver_sql(f"UPDATE trial_leases SET expires_at = expires_at + {seconds}")
    study.let_expire()
    taken = worker.take_over(by_command=True)
    assert taken is not None
    return taken


def test_three_lives_in_a_row_long_enough_for_a_snapshot_and_without_one_make_a_trial_hopeless(
    study: LeasedStudy,
) -> None:
    _born(study.worker("a", host="vanished"))
    lives = [_die_after(study, study.worker(str(n), host=f"h{n}"), 3 * SNAPSHOTS + LEASE) for n in range(3)]
    assert [life.lease.crashes for life in lives if life.lease] == [1, 2, 3]
    assert [life.hopeless for life in lives[:2]] == [None, None]
    assert "3 times in a row without progress" in (lives[2].hopeless or "")


def test_where_snapshots_wait_for_the_end_of_an_epoch_a_long_life_without_one_is_no_crash(study: LeasedStudy) -> None:
    _born(study.worker("a", host="vanished", snapshots=0.0))
    taken = _die_after(study, study.worker("b", host="there", snapshots=0.0), 100 * LEASE)
    assert taken.lease is not None
    assert (taken.lease.crashes, taken.lease.vanishes) == (0, 1)


def test_a_newer_snapshot_wipes_the_deaths_out(study: LeasedStudy) -> None:
    _born(study.worker("a", host="vanished"))
    second = study.worker("b", host="h1")
    held = _die_after(study, second, 3 * SNAPSHOTS + LEASE)
    _snapshot(second, held, 1)
    held = _die_after(study, study.worker("c", host="h2"), 3 * SNAPSHOTS + LEASE)
    assert held.lease is not None
    assert (held.lease.crashes, held.lease.vanishes) == (0, 0)
    held = _die_after(study, study.worker("d", host="h3"), 3 * SNAPSHOTS + LEASE)
    assert held.lease is not None
    assert held.lease.crashes == 1  # the snapshot is as old as at the last death


def test_a_process_that_crashed_under_its_worker_is_counted_until_it_gets_further(study: LeasedStudy) -> None:
    leases = study.worker("a")
    held = _born(leases)
    assert [HeldTrial(leases, held).count_crash(), HeldTrial(leases, held).count_crash()] == [1, 2]
    _snapshot(leases, held, 1)
    assert [HeldTrial(leases, held).count_crash(), HeldTrial(leases, held).count_crash()] == [1, 2]


def test_what_was_lost_is_the_time_from_the_newest_snapshot_to_the_last_sign_of_life(study: LeasedStudy) -> None:
    first = study.worker("a", host="vanished")
    held = _born(first)
    study.shift(500)  # 500 s of training,
    _snapshot(first, held, 1)
    study.shift(1000)  # 1000 s more,
    assert HeldTrial(first, held).renew()
    study.shift(LEASE + 1000)  # and nothing more was heard
    taken = study.worker("b", host="there").take_over(by_command=True)
    assert taken is not None
    assert taken.lease is not None
    assert taken.lease.seconds_lost == pytest.approx(1000, abs=60)


def test_a_clean_suspension_loses_nothing(study: LeasedStudy) -> None:
    first = study.worker("a")
    held = _born(first)
    study.shift(500)
    _snapshot(first, held, 1)
    HeldTrial(first, held).release("SIGTERM")
    study.shift(3600)
    taken = study.worker("b", host="there").take_over()
    assert taken is not None
    assert taken.lease is not None
    assert taken.lease.seconds_lost == pytest.approx(0, abs=60)


# ---- writes ----


def test_after_a_take_over_every_write_of_the_first_owner_is_refused_and_leaves_nothing(study: LeasedStudy) -> None:
    first = study.worker("a")
    held = _born(first)
    trial = HeldTrial(first, held)
    study.let_expire()
    assert study.worker("b", host="there").take_over(by_command=True) is not None
    before = _content(study)
    for write in _writes(trial):
        with pytest.raises(LeaseLost):
            write()
    assert not HeldTrial(first, held).renew()
    assert _content(study) == before


def test_when_a_person_finished_the_trial_every_write_is_refused_and_leaves_nothing(study: LeasedStudy) -> None:
    leases = study.worker("a")
    held = _born(leases)
    study.optuna.tell(held.number, state=TrialState.FAIL)
    before = _content(study)
    for write in _writes(HeldTrial(leases, held)):
        with pytest.raises(LeaseLost):
            write()
    assert not HeldTrial(leases, held).renew()
    assert _content(study) == before


def test_nothing_is_written_after_a_release(study: LeasedStudy) -> None:
    leases = study.worker("a")
    trial = HeldTrial(leases, _born(leases))
    trial.release("suspended")
    before = _content(study)
    for write in _writes(trial):
        if write.__name__ != "release":  # once more is the same as once
            with pytest.raises(LeaseLost):
                write()
    assert _content(study) == before


def test_when_a_person_deleted_the_study_its_leases_are_gone_and_writes_are_refused(study: LeasedStudy) -> None:
    leases = study.worker("a")
    trial = HeldTrial(leases, _born(leases))
    optuna.delete_study(study_name=study.optuna.study_name, storage=str(study.storage.engine.url))
    assert leases.read() == []
    for write in _writes(trial):
        with pytest.raises(LeaseLost):
            write()
    with pytest.raises(LeaseLost):
        trial.read()


def test_a_value_that_no_table_can_hold_is_refused_before_it_is_written(study: LeasedStudy) -> None:
    leases = study.worker("a")
    trial = HeldTrial(leases, _born(leases))
    with pytest.raises(ValueError, match="nan"):
        trial.tell(TrialState.COMPLETE, float("nan"), {}, {})
    assert trial.read().state == TrialState.RUNNING


def test_a_persons_own_trial_with_another_range_for_the_same_name_keeps_no_trial_from_its_draw(
    study: LeasedStudy,
) -> None:
    study.optuna.optimize(lambda trial: trial.suggest_float("x", 0.0, 1.0), n_trials=1)
    leases = study.worker("a")
    trial = HeldTrial(leases, _born(leases))
    logarithmic = optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)
    trial.store_draw({"x": 1e-3}, {"x": logarithmic}, {}, {})
    assert trial.read().params == {"x": 1e-3}
    assert trial.read().distributions == {"x": logarithmic}


def test_a_report_is_never_overwritten_and_brings_news_from_other_processes(study: LeasedStudy) -> None:
    leases = study.worker("a")
    trial = HeldTrial(leases, _born(leases))
    assert trial.report(1, 0.1, {}) == {}
    study.optuna.set_user_attr(attributes.STOP_REQUESTED, 2)
    assert trial.report(1, 0.9, {}) == {attributes.STOP_REQUESTED: 2}
    assert trial.report(2, float("nan"), {}) == {attributes.STOP_REQUESTED: 2}
    values = trial.read().intermediate_values
    assert values[1] == 0.1
    assert values[2] != values[2]


def test_the_newest_two_snapshots_are_pointed_to_and_pointing_twice_changes_nothing(study: LeasedStudy) -> None:
    leases = study.worker("a")
    held = _born(leases)
    for epoch in (1, 2, 2):
        _snapshot(leases, held, epoch)
    lease = HeldTrial(leases, held).lease()
    assert lease.snapshot is not None
    assert lease.previous is not None
    assert (lease.snapshot.position, lease.previous.position) == (Position(2, 0), Position(1, 0))


def _writes(trial: HeldTrial) -> list:
    def report() -> None:
        trial.report(1, 0.5, {"a": 1})

    def parameters() -> None:
        trial.store_draw({"x": 0.5}, {"x": optuna.distributions.FloatDistribution(0, 1)}, {"s": 1}, {"u": 1})

    def attribute() -> None:
        trial.describe({"a": 1})

    def snapshot() -> None:
        trial.point_to(SnapshotPointer("key", "0" * 64, Position(1, 0)))

    def tell() -> None:
        trial.tell(TrialState.COMPLETE, 0.5, {"a": 1}, {"s": 1})

    def release() -> None:
        trial.release("suspended")

    return [report, parameters, attribute, snapshot, tell, release]


def _content(study: LeasedStudy) -> dict[str, list[dict]]:
    tables = ("trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes")
    return {table: study.rows(table) for table in (*tables, "trial_system_attributes", "trial_leases")}
