"""A run of one trial with a process that only says what it is told to: how it ends."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from optuna.trial import FrozenTrial, TrialState

from petskin_tune.checkpoints.base import Stored
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import LeaseLost, UsageError
from petskin_tune.files.durable import Full, measure
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.heartbeat import Heartbeat
from petskin_tune.leases.lease import Lease, SnapshotPointer, read_leases
from petskin_tune.leases.segments import SNAPSHOT_GONE, Choice, Continue
from petskin_tune.protocol import (
    BestWeights,
    Declined,
    Failed,
    Finished,
    Note,
    Position,
    SnapshotWritten,
    Stop,
    Suspend,
    Suspended,
)
from petskin_tune.search.pruners import Verdict
from petskin_tune.study import attributes
from petskin_tune.trial import ends
from petskin_tune.trial.ends import Outcome
from petskin_tune.trial.freezing import NOT_KEPT, Freezing
from petskin_tune.trial.process.runner import Died
from petskin_tune.trial.run import TrialRun
from petskin_tune.trial.run_state import RunState
from petskin_tune.trial.workplace import Workplace
from tests.support.workers import wait_until
from tests.support.workplace import STARTED, Script, a_workplace, epoch_done, new_run, shown


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('run') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


def outcome_of(place: Workplace) -> tuple[Outcome, FrozenTrial, Lease]:
    """How the run of a new trial ends, and what the study knows then."""
    outcome = new_run(place).run()
    (lease,) = read_leases(place.study.storage, place.study.id)
    return outcome, place.study.trials()[0], lease


def test_a_trial_that_trains_to_its_end_is_complete_with_its_best_epoch(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    script = Script([STARTED, epoch_done(1, 0.1), epoch_done(2, 0.3), epoch_done(3, 0.2), Finished(3, 2)])
    outcome, trial, lease = outcome_of(a_workplace(storage, tmp_path, script))
    assert (outcome.end, outcome.value, outcome.reason) == ("complete", 0.3, "")
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.3)
    assert trial.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.2}
    assert lease.state == "done"


def test_epochs_of_a_trial_that_a_restored_backup_knows_nothing_of_are_no_other_trials(tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    script = Script(
        [STARTED, epoch_done(1, 0.7), epoch_done(2, 0.8), Failed("machine", "no memory")],
        [STARTED, epoch_done(1, 0.1), Finished(1, 1)],
    )
    place = a_workplace(open_storage(f"sqlite:///{tmp_path / 'tune.db'}"), tmp_path, script)
    with contextlib.closing(sqlite3.connect(tmp_path / "tune.db")) as now, sqlite3.connect(backup) as copy:
        now.backup(copy)
    with pytest.raises(UsageError):
        new_run(place).run()
    assert place.study.trials()[0].intermediate_values == {1: 0.7, 2: 0.8}
    with contextlib.closing(sqlite3.connect(backup)) as copy, sqlite3.connect(tmp_path / "tune.db") as now:
        copy.backup(now)

    outcome, trial, lease = outcome_of(place)

    assert (trial.number, lease.token, outcome.end) == (0, 1, "complete")
    assert trial.intermediate_values == {1: 0.1}
    place.study.storage.engine.dispose()


def test_a_trial_whose_patience_ended_it_says_so(storage: PetskinStorage, tmp_path: Path) -> None:
    script = Script([STARTED, epoch_done(1), Finished(1, 1, early=True)])
    outcome, trial, _ = outcome_of(a_workplace(storage, tmp_path, script))
    assert (outcome.end, outcome.reason) == ("complete", "patience ended it early")
    assert trial.state == TrialState.COMPLETE


def test_a_trial_that_the_pruner_gives_up_is_pruned_in_mid_training(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petskin_tune.trial.run.judge", lambda *_: Verdict(True, "worse than most"))
    script = Script([STARTED, epoch_done(1), ...])
    outcome, trial, lease = outcome_of(a_workplace(storage, tmp_path, script))
    assert (outcome.end, outcome.value, outcome.reason) == ("pruned", 0.1, "worse than most")
    assert (trial.state, trial.value, lease.state) == (TrialState.PRUNED, 0.1, "done")
    assert script.processes[0].orders == [Stop()]


def test_the_best_weights_of_a_trial_that_the_pruner_gives_up_are_in_the_store_before_it_is_told(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petskin_tune.trial.run.judge", lambda *_: Verdict(True, "worse than most"))
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"what it has learnt")
    script = Script([STARTED, epoch_done(1), BestWeights(str(weights), 1, 0.1), ...])
    place = a_workplace(storage, tmp_path, script)
    put, told = place.store.put, []

    def slow_put(path: Path, key: str) -> Any:
        time.sleep(0.5)
        told.append(place.study.trials()[0].state)
        return put(path, key)

    monkeypatch.setattr(place.store, "put", slow_put)
    outcome, trial, _ = outcome_of(place)
    assert (outcome.end, told) == ("pruned", [TrialState.RUNNING])
    assert [entry.key for entry in place.store.entries()] == [trial.user_attrs[attributes.WEIGHTS]]


def written(folder: Path, epoch: int) -> SnapshotWritten:
    """A snapshot of the end of ``epoch`` (1-based)."""
    snapshot = folder / f"snapshot-{epoch}-0.pt"
    snapshot.write_text("all of it")
    return SnapshotWritten(str(snapshot), Position(epoch, 0), *measure(snapshot), seconds=0.0)


def freezing(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    def verdict(_trial: object, _place: object, epoch: int, _own: object) -> Verdict:
        return Verdict(False, "others are worth more", freeze=epoch == after)

    monkeypatch.setattr("petskin_tune.trial.run.judge", verdict)


def settled(place: Workplace) -> Lease:
    """The lease of its only trial, once all that was on its way is frozen."""
    for one in place.freezing:
        one.end("", time.monotonic() + 30.0)
    (lease,) = read_leases(place.study.storage, place.study.id)
    return lease


def test_a_trial_that_others_are_worth_more_than_is_frozen_once_its_snapshot_is_durable(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freezing(monkeypatch, after=2)
    says = [STARTED, epoch_done(1), epoch_done(2, 0.3), epoch_done(3, 0.9), written(tmp_path, 2), ...]
    script = Script(says)
    place = a_workplace(storage, tmp_path, script)
    outcome, trial, _ = outcome_of(place)
    assert (outcome.end, outcome.value, outcome.reason) == ("frozen", 0.3, "others are worth more")
    lease = settled(place)
    assert (trial.state, lease.state) == (TrialState.RUNNING, "frozen")
    assert lease.snapshot is not None
    assert lease.snapshot.position == Position(2, 0)
    assert trial.intermediate_values == {1: 0.1, 2: 0.3}, "what it trained while the choice was made is thrown away"
    assert script.processes[0].orders == [Stop()]


def test_a_trial_is_not_left_before_a_snapshot_of_its_last_epoch_is_written(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freezing(monkeypatch, after=2)
    script = Script([STARTED, epoch_done(1), written(tmp_path, 1), epoch_done(2), ...])
    place = a_workplace(storage, tmp_path, script)
    run = new_run(place)
    script.once_started = lambda: threading.Timer(1.5, lambda: script.processes[0].says(written(tmp_path, 2))).start()
    assert run.run().end == "frozen"
    lease = settled(place)
    assert lease.snapshot is not None
    assert (lease.state, lease.snapshot.position) == ("frozen", Position(2, 0))


class SlowStore(FolderStore):
    """A store that takes in nothing before it is opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_open = threading.Event()
        self.was_asked = threading.Event()

    def put(self, *asked: Any) -> Stored:
        self.was_asked.set()
        assert self.is_open.wait(60)
        return super().put(*asked)


def on_its_way(
    storage: PetskinStorage, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Workplace, SlowStore, Freezing]:
    """A trial that is to be frozen, whose snapshot the store has not taken in yet."""
    freezing(monkeypatch, after=1)
    place = a_workplace(storage, folder, Script([STARTED, epoch_done(1), written(folder, 1), ...]))
    place.store = store = SlowStore(folder / "slow")
    assert new_run(place).run().end == "frozen"
    assert store.was_asked.wait(30)
    (one,) = place.freezing
    return place, store, one


def test_the_worker_goes_on_while_the_snapshot_of_a_frozen_trial_is_uploaded(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, store, one = on_its_way(storage, tmp_path, monkeypatch)
    (lease,) = read_leases(storage, place.study.id)
    assert (lease.state, lease.snapshot, one.is_over) == ("running", None, False), "not frozen before it is durable"
    store.is_open.set()
    assert settled(place).state == "frozen"


def test_a_trial_whose_snapshot_comes_not_up_in_time_is_given_back_when_its_worker_ends(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, store, one = on_its_way(storage, tmp_path, monkeypatch)
    one.end("SIGTERM", time.monotonic() + 0.1)
    (lease,) = read_leases(storage, place.study.id)
    assert (lease.state, lease.reason) == ("released", "SIGTERM")
    store.is_open.set()


def test_what_a_frozen_trial_has_on_this_machine_goes_before_another_worker_can_thaw_it(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, store, one = on_its_way(storage, tmp_path, monkeypatch)
    snapshots, outbox = place.folder(one.trial.number) / "snapshots", place.outbox(one.trial).path
    snapshots.mkdir()
    assert outbox.exists()
    there = []
    monkeypatch.setattr(one.trial, "freeze", lambda: there.append((snapshots.exists(), outbox.exists())))
    store.is_open.set()
    settled(place)
    assert there == [(False, False)]


def test_a_trial_whose_last_snapshot_is_lost_on_its_way_is_given_back_and_not_frozen(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, store, one = on_its_way(storage, tmp_path, monkeypatch)
    (tmp_path / "snapshot-1-0.pt").unlink()
    store.is_open.set()
    lease = settled(place)
    assert (lease.state, lease.snapshot, lease.reason) == ("released", None, NOT_KEPT)
    assert not one.is_frozen


def test_a_trial_is_trained_on_while_another_ones_snapshot_is_uploaded(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, store, one = on_its_way(storage, tmp_path, monkeypatch)
    state = RunState(one.trial, place, Heartbeat(one.trial))
    state.uploader, state.recorder = one._uploader, one._recorder
    assert not state.can_freeze(), "one at a time: else snapshots pile up before a slow store"
    store.is_open.set()
    settled(place)
    assert state.can_freeze()


# ---- a disk that refuses the snapshot of a rung ----------------------------------------------------------------------

REFUSED = Note("snapshot-failed", "no snapshot of epoch 3, batch 0: [Errno 28] No space left on device")
UNTIL_THE_RUNG = (STARTED, epoch_done(1, 0.1), epoch_done(2, 0.3), REFUSED)


def refused(place: Workplace) -> tuple[str, FrozenTrial, Lease]:
    """What the worker of a trial says that it gives back, and what the study knows then."""
    with pytest.raises(UsageError) as ended:
        new_run(place).run()
    (lease,) = read_leases(place.study.storage, place.study.id)
    return str(ended.value), place.study.trials()[0], lease


@pytest.mark.parametrize(
    "last",
    [Finished(3, 2), Failed("diverged", "the loss is not finite")],
    ids=["trained to its end", "failed behind the rung"],
)
def test_a_trial_whose_snapshot_the_disk_refuses_is_given_back_and_not_told_with_half_a_curve(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: Any
) -> None:
    freezing(monkeypatch, after=2)
    script = Script([*UNTIL_THE_RUNG[:2], written(tmp_path, 1), *UNTIL_THE_RUNG[2:], epoch_done(3, 0.2), last])
    said, trial, lease = refused(a_workplace(storage, tmp_path, script))
    assert said.startswith("Training cannot go on on this machine: no snapshot of epoch 3, batch 0: [Errno 28]")
    assert (trial.state, trial.value, lease.state) == (TrialState.RUNNING, None, "released")
    assert trial.intermediate_values == {1: 0.1, 2: 0.3}
    assert lease.snapshot is not None
    assert lease.snapshot.position == Position(1, 0), "from which it goes on"


def test_another_snapshot_is_asked_for_and_the_trial_is_frozen_with_it(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freezing(monkeypatch, after=2)
    later = replace(written(tmp_path, 2), position=Position(2, 7))
    script = Script(
        [*UNTIL_THE_RUNG, ...], answers=lambda order: [later, Suspended(later), Died(0)] if order == Suspend() else []
    )
    place = a_workplace(storage, tmp_path, script)
    assert new_run(place).run().end == "frozen"
    assert script.processes[0].orders[0] == Suspend()
    lease = settled(place)
    assert lease.snapshot is not None
    assert (lease.state, lease.snapshot.position) == ("frozen", Position(2, 7))


def test_where_that_is_refused_too_the_trial_is_not_trained_to_its_end_for_nothing(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freezing(monkeypatch, after=2)
    script = Script(
        [*UNTIL_THE_RUNG, ...], answers=lambda order: [Suspended(None), Died(0)] if order == Suspend() else []
    )
    place = a_workplace(storage, tmp_path, script)
    said, trial, lease = refused(place)
    assert "No space left on device" in said
    assert (trial.state, lease.state) == (TrialState.RUNNING, "released")
    assert script.processes[0].orders.count(Suspend()) == 1


def test_given_back_for_its_disk_it_is_frozen_once_there_is_room(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freezing(monkeypatch, after=2)
    again = [STARTED, epoch_done(1, 0.1), epoch_done(2, 0.3), written(tmp_path, 2), epoch_done(3), ...]
    script = Script([*UNTIL_THE_RUNG, Finished(3, 2)], again)
    place = a_workplace(storage, tmp_path, script)
    refused(place)
    assert new_run(place).run().end == "frozen"
    lease = settled(place)
    assert (lease.state, lease.token) == ("frozen", 2)
    assert place.study.trials()[0].intermediate_values == {1: 0.1, 2: 0.3}


@dataclass
class Other:
    """Another trial of this worker that is not quite frozen."""

    is_over: bool = False


def test_a_trial_that_trains_to_its_end_while_it_waits_to_be_frozen_is_frozen_and_not_complete(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freezing(monkeypatch, after=1)
    script = Script([STARTED, epoch_done(1), written(tmp_path, 1), epoch_done(2), Finished(2, 2)])
    place = a_workplace(storage, tmp_path, script)
    other = Other()
    place.freezing = [cast(Any, other)]
    run = new_run(place)
    threading.Timer(1.5, lambda: setattr(other, "is_over", True)).start()
    assert run.run().end == "frozen"
    place.freezing.remove(cast(Any, other))
    assert settled(place).state == "frozen"
    assert place.study.trials()[0].intermediate_values == {1: 0.1}


def test_a_worker_that_is_stopped_gives_a_trial_back_that_waits_to_be_frozen(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    freezing(monkeypatch, after=1)
    says = [STARTED, epoch_done(1), written(tmp_path, 1), ...]
    script = Script(says, answers=lambda order: [Finished(1, 1), Died(0)] if order == Suspend() else [])
    place = a_workplace(storage, tmp_path, script)
    place.freezing = [cast(Any, Other())]
    run = new_run(place)
    script.once_started = lambda: run.suspend("SIGTERM", time.monotonic() + 30.0)
    assert run.run().end == "suspended"
    (lease,) = read_leases(storage, place.study.id)
    assert (lease.state, place.study.trials()[0].state) == ("released", TrialState.RUNNING)


def test_a_trial_whose_worker_died_before_it_was_frozen_is_frozen_by_the_next_without_training(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = a_workplace(storage, tmp_path, Script())
    run = new_run(place)
    trial = run._trial
    trial.report(1, 0.1, {})
    trial.point_to(SnapshotPointer("key", "0" * 64, Position(1, 0)))
    trial.release("its worker died")
    freezing(monkeypatch, after=1)
    script = Script()
    again = a_workplace(storage, tmp_path, script)
    again.study, again.claims = place.study, place.claims
    assert new_run(again).run().end == "frozen"
    assert script.jobs == []


def thawed_without_snapshot(place: Workplace) -> TrialRun:
    """A run of a thawed trial whose snapshot is not in the store."""
    first = new_run(place)._trial
    first.report(1, 0.1, {})
    first.point_to(SnapshotPointer("uid/trials/0/snapshot-1-1-0-abcd.pt", "0" * 64, Position(1, 0)))
    first.freeze()
    return new_run(place, place.segments.next(lambda: Choice(Continue(0, 2))))


def test_a_thawed_trial_whose_snapshot_is_gone_ends_instead_of_beginning_anew(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    script = Script()
    place = a_workplace(storage, tmp_path, script)
    place.home.local_checkpoints = False
    (tmp_path / "store" / "another study").mkdir(parents=True)
    outcome = thawed_without_snapshot(place).run()
    assert (outcome.end, outcome.value, outcome.reason) == ("pruned", 0.1, SNAPSHOT_GONE)
    assert script.jobs == []
    (trial,) = place.study.trials()
    assert (trial.state, trial.value) == (TrialState.PRUNED, 0.1)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("not mounted yet", "cannot be had now (the store"),
        ("a disk that shows files late", "is only minutes old: this disk may show it later"),
    ],
)
def test_a_thawed_trial_waits_for_a_store_that_says_nothing_of_its_snapshot(
    storage: PetskinStorage, tmp_path: Path, where: str, said: str
) -> None:
    """Told to stop meanwhile it is frozen again: released, it might be begun anew by who does not see the snapshot."""
    place = a_workplace(storage, tmp_path, Script())
    place.home.local_checkpoints = False
    if where == "a disk that shows files late":
        place.store = FolderStore(tmp_path / "store", network=True)
    if where != "not mounted yet":
        (tmp_path / "store" / "another study").mkdir(parents=True)
    run = thawed_without_snapshot(place)

    def suspend() -> None:
        wait_until(lambda: said in shown(place))
        run.suspend("SIGTERM", time.monotonic() + 5.0)

    thread = threading.Thread(target=suspend)
    thread.start()
    outcome = run.run()
    thread.join()
    assert outcome.end == "suspended"
    (trial,) = place.study.trials()
    assert trial.state == TrialState.RUNNING
    (lease,) = read_leases(storage, place.study.id)
    assert lease.state == "frozen"
    assert lease.snapshot is not None


def test_a_disk_too_full_for_the_snapshot_is_this_machines_fault_and_the_trial_is_given_back(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Full("fetching: No space left on device")

    place = a_workplace(storage, tmp_path, Script())
    monkeypatch.setattr(place.store, "fetch", refuse)
    with pytest.raises(UsageError, match="No space left on device"):
        thawed_without_snapshot(place).run()
    (lease,) = read_leases(place.study.storage, place.study.id)
    assert lease.state == "released"


def test_a_thawed_trial_whose_snapshot_only_another_machine_has_begins_anew_here(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    script = Script([STARTED, epoch_done(1), epoch_done(2), Finished(2, 2)])
    assert thawed_without_snapshot(a_workplace(storage, tmp_path, script)).run().end == "complete"
    assert script.jobs[0].snapshot is None


def test_a_process_that_dies_is_started_again_and_the_trial_goes_on(storage: PetskinStorage, tmp_path: Path) -> None:
    script = Script([STARTED, epoch_done(1), Died(-9)], [STARTED, epoch_done(2), Finished(2, 1)])
    outcome, trial, lease = outcome_of(a_workplace(storage, tmp_path, script))
    assert (outcome.end, len(script.jobs), lease.crashes) == ("complete", 2, 1)
    assert any("killed by SIGKILL" in note for note in trial.user_attrs[attributes.NOTES])


def test_only_processes_in_a_row_that_die_before_they_train_are_counted(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    script = Script([Died(1)], [STARTED, epoch_done(1), Died(-9)], [Died(1)], [STARTED, epoch_done(2), Finished(2, 1)])
    outcome, _, lease = outcome_of(a_workplace(storage, tmp_path, script))
    assert (outcome.end, len(script.jobs), lease.crashes) == ("complete", 4, 1)


def test_who_wants_a_finished_trial_back_does_not_wait_longer_than_was_said_for_a_store_that_is_away() -> None:
    def never(_seconds: float) -> bool:
        return False

    run = SimpleNamespace(
        until=time.monotonic() + 0.3,
        recorder=SimpleNamespace(drain=never, error=None),
        uploader=SimpleNamespace(drain=never),
        is_suspended=lambda: False,
        is_lost=lambda: False,
    )
    assert not ends._is_settled(cast(Any, run))
    assert time.monotonic() >= run.until


def test_a_trial_that_is_suspended_before_it_starts_is_given_back_with_the_first_reason(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    script = Script()
    place = a_workplace(storage, tmp_path, script)
    run = new_run(place)
    run.suspend("SIGINT", time.monotonic() + 30.0)
    run.suspend("--max-hours 2 reached", time.monotonic() + 60.0)
    outcome = run.run()
    (lease,) = read_leases(storage, place.study.id)
    assert (outcome.end, outcome.reason, script.jobs) == ("suspended", "SIGINT", [])
    assert (lease.state, lease.reason) == ("released", "SIGINT")


def test_a_trial_that_is_suspended_in_mid_training_is_given_back_with_its_snapshot(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    snapshot = tmp_path / "snapshot-1-0.pt"
    snapshot.write_text("all of it")
    written = SnapshotWritten(str(snapshot), Position(1, 0), *measure(snapshot), seconds=0.0)
    script = Script(
        [STARTED, epoch_done(1), ...],
        answers=lambda order: [written, Suspended(written), Died(0)] if order == Suspend() else [],
    )
    place = a_workplace(storage, tmp_path, script)
    run = new_run(place)
    script.once_started = lambda: run.suspend("SIGINT", time.monotonic() + 30.0)
    outcome = run.run()
    (lease,) = read_leases(storage, place.study.id)
    assert (outcome.end, outcome.value, lease.state) == ("suspended", 0.1, "released")
    assert lease.snapshot is not None
    assert lease.snapshot.position == Position(1, 0)


def test_a_trial_that_finishes_while_it_is_suspended_is_complete(storage: PetskinStorage, tmp_path: Path) -> None:
    script = Script(
        [STARTED, epoch_done(1), ...], answers=lambda order: [Finished(1, 1), Died(0)] if order == Suspend() else []
    )
    run = new_run(a_workplace(storage, tmp_path, script))
    script.once_started = lambda: run.suspend("SIGINT", time.monotonic() + 30.0)
    assert run.run().end == "complete"


def test_a_trial_that_somebody_else_takes_is_lost_and_written_no_more(storage: PetskinStorage, tmp_path: Path) -> None:
    place = a_workplace(storage, tmp_path, script := Script([...]))
    run = new_run(place)
    other = Claims(storage, place.study.fence, "other", 90.0, 300.0, identity=replace(Identity.mine(), host="there"))

    def take_it_before_it_trains() -> None:
        assert other.take_over(by_command=True) is not None
        for event in (STARTED, epoch_done(1)):
            script.processes[0].says(event)

    script.once_started = take_it_before_it_trains
    assert run.run().end == "lost"
    (lease,) = read_leases(storage, place.study.id)
    assert (lease.worker, lease.state) == ("other", "running")
    assert place.study.trials()[0].intermediate_values == {}


def test_a_trial_of_another_machine_is_declined_and_given_back(storage: PetskinStorage, tmp_path: Path) -> None:
    declined = Declined("different-machine", "this machine has ultralytics 8.4.1 instead of 8.4.190")
    outcome, trial, lease = outcome_of(a_workplace(storage, tmp_path, Script([declined])))
    assert (outcome.end, outcome.reason) == ("declined", declined.message)
    assert (trial.state, lease.state, lease.reason) == (TrialState.RUNNING, "released", "left to another machine")


@pytest.mark.parametrize(("reports", "state"), [((), "frozen"), ((epoch_done(2),), "released")])
def test_a_thawed_trial_that_is_declined_is_frozen_again_unless_it_was_trained_meanwhile(
    storage: PetskinStorage, tmp_path: Path, reports: tuple[Any, ...], state: str
) -> None:
    first = [[STARTED, *reports, Died(-9)]] if reports else []
    place = a_workplace(storage, tmp_path, Script(*first, [Declined("different-machine", "another torch here")]))
    assert thawed_without_snapshot(place).run().end == "declined"
    (lease,) = read_leases(storage, place.study.id)
    (trial,) = place.study.trials()
    assert (lease.state, trial.state, len(trial.intermediate_values)) == (state, TrialState.RUNNING, 1 + len(reports))


def _taken_over() -> None:
    raise LeaseLost("another worker has taken this home over")


@pytest.mark.parametrize("ends", [True, False], ids=["with its last upload", "in mid training"])
def test_a_trial_whose_home_is_taken_over_during_an_upload_ends_as_lost(
    storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    (tmp_path / "best.pt").write_bytes(b"best")
    says = [
        STARTED,
        epoch_done(1),
        BestWeights(str(tmp_path / "best.pt"), 1, 0.1),
        *([Finished(1, 1)] if ends else [...]),
    ]
    place = a_workplace(storage, tmp_path, Script(says))
    monkeypatch.setattr(place.home, "save", _taken_over)
    assert new_run(place).run().end == "lost"
