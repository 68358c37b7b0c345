"""A worker that was stopped, in whatever instant, and comes back from the dead: its lease is gone, it harms nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from petskin_tune.database.storage import PetskinStorage, open_storage
from tests.support.simulated import LONG, WRITES, Process, Workers, let_the_lease_run_out, until, workers_of
from tests.support.soak import first

IDLE = 1  # seconds after which PostgreSQL ends an idle transaction, here
EPOCHS = 60


def _study(url: str) -> tuple[PetskinStorage, int]:
    storage = open_storage(url)
    return storage, optuna.create_study(storage=storage, study_name="s", direction="maximize")._study_id


def test_a_worker_stopped_past_its_lease_reports_nothing_more_and_each_epoch_is_there_once(
    database_url: str, tmp_path: Path
) -> None:
    storage, study_id = _study(database_url)
    with workers_of(tmp_path, storage, study_id) as workers:
        options = {"target": 1, "epochs": EPOCHS, "lease": LONG, "hold_until": str(tmp_path / "lost")}
        first = workers.start("work", **options, outbox=str(tmp_path / "a"), faults="report-sent=stop@5")
        first.wait_until_stopped()
        assert first.fired("report-sent")
        # Its lease was a long one: with a short one it may be stopped while it renews, and hold SQLite's only lock.
        let_the_lease_run_out(storage, first.events("claimed")[0]["trial"])
        second = workers.start("work", **options, outbox=str(tmp_path / "b"))
        (claim,) = second.wait_for("claimed")
        assert claim["token"] == 2
        second.wait_for("heard", times=5)
        first.go_on()
        first.wait_for("lost")  # while the second still trains
        (tmp_path / "lost").touch()
        assert [first.wait(), second.wait()] == [0, 0]
        assert [event["token"] for event in first.events("lost")] == [1]
    (trial,) = storage.get_all_trials(study_id)
    assert trial.state.name == "COMPLETE"
    assert sorted(trial.intermediate_values) == list(range(1, EPOCHS + 1))
    owners = [round((trial.intermediate_values[epoch] - epoch) * 1000) for epoch in range(1, EPOCHS + 1)]
    assert owners == sorted(owners)
    assert set(owners) == {1, 2}


@pytest.mark.parametrize("point", first(1, ["before-commit", "renewed", "before-renewal"]))
def test_whatever_a_worker_was_writing_when_it_was_stopped_is_not_written_after_a_take_over(
    postgres_url: str, tmp_path: Path, point: str
) -> None:
    storage, study_id = _study(postgres_url)
    with workers_of(tmp_path, storage, study_id) as workers:
        stopped = _stop_at(point, workers, lease=1.5, idle=IDLE)
        trials = {doing: process.events("born")[0]["trial"] for doing, process in stopped.items()}
        before = {trial: _content(storage, trial) for trial in trials.values()}
        claimer = workers.start("wait_at_the_door", lease=LONG, elsewhere=True)
        claims = claimer.wait_for("claimed", times=len(trials))
        assert {claim["trial"]: claim["token"] for claim in claims} == dict.fromkeys(trials.values(), 2)
        for process in stopped.values():
            process.go_on()
        assert [process.wait() for process in stopped.values()] == [0] * len(stopped)
        for doing, process in stopped.items():
            assert process.events("lost"), doing
            assert not process.events("written"), doing
        assert {trial: _content(storage, trial) for trial in trials.values()} == before


def _stop_at(point: str, workers: Workers, **options: Any) -> dict[str, Process]:
    """For each kind of write a worker that stopped itself in the midst of it."""
    stopped = {
        doing: workers.start("do_one_thing", doing=doing, faults=f"{point}=stop@1", **options) for doing in WRITES
    }
    for process in stopped.values():
        process.wait_for("born")
        process.wait_until_stopped()
        assert process.fired(point)
    return stopped


def _content(storage: PetskinStorage, trial: int) -> dict[str, list[dict[str, Any]]]:
    """Everything that Optuna's tables hold of a trial, and the snapshots of its lease."""
    tables = ("params", "values", "intermediate_values", "user_attributes", "system_attributes")
    with storage.engine.connect() as connection:
        content = {
            table: connection.exec_driver_sql(f"SELECT * FROM trial_{table} WHERE trial_id = {trial}").all()
            for table in tables
        }
        row = connection.exec_driver_sql(f"SELECT state FROM trials WHERE trial_id = {trial}").one()
        lease = connection.exec_driver_sql(f"SELECT snapshot_key FROM trial_leases WHERE trial_id = {trial}").one()
    return {"trial": [dict(row._mapping)], "lease": [dict(lease._mapping)]} | {
        table: [dict(row._mapping) for row in rows] for table, rows in content.items()
    }


def test_on_sqlite_a_worker_stopped_before_it_began_to_write_is_refused_after_a_take_over(tmp_path: Path) -> None:
    storage, study_id = _study(f"sqlite:///{tmp_path / 'tune.db'}")
    with workers_of(tmp_path, storage, study_id) as workers:
        stopped = _stop_at("before-renewal", workers, lease=1.5)
        claimer = workers.start("wait_at_the_door", lease=LONG, elsewhere=True)
        claimer.wait_for("claimed", times=len(stopped))
        for doing, process in stopped.items():
            before = _content(storage, process.events("born")[0]["trial"])
            process.go_on()
            assert process.wait() == 0
            assert process.events("lost"), doing
            assert _content(storage, process.events("born")[0]["trial"]) == before


def test_on_sqlite_a_worker_stopped_in_mid_write_keeps_its_trial_because_nobody_else_can_write(tmp_path: Path) -> None:
    storage, study_id = _study(f"sqlite:///{tmp_path / 'tune.db'}")
    with workers_of(tmp_path, storage, study_id) as workers:
        begin = tmp_path / "begin"
        claimer = workers.start("wait_at_the_door", lease=LONG, elsewhere=True, wait_for=str(begin))
        claimer.wait_for("ready")
        process = workers.start("do_one_thing", doing="report", faults="renewed=stop@1", lease=1.0)
        process.wait_for("born")
        process.wait_until_stopped()
        assert process.fired("renewed")
        begin.touch()
        until(lambda: process.events("born")[0]["at"] + 3.0 < time.time(), "the end of the lease")
        assert claimer.count("looked") <= 1  # it waits for the lock
        assert claimer.events("claimed") == []
        process.go_on()
        assert process.wait() == 0
        assert process.events("written")


def test_a_worker_that_vanished_in_the_midst_of_a_birth_does_not_keep_the_others_from_theirs(
    postgres_url: str, tmp_path: Path
) -> None:
    storage, study_id = _study(postgres_url)
    with workers_of(tmp_path, storage, study_id) as workers:
        stopped = workers.start("give_birth", count=1, faults="before-birth=stop@1", idle=IDLE)
        stopped.wait_until_stopped()
        assert stopped.fired("before-birth")
        other = workers.start("work", target=2, epochs=1)
        assert other.wait() == 0
    trials = storage.get_all_trials(study_id)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
