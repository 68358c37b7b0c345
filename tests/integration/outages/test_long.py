"""PostgreSQL away for longer than a lease: living owners keep their trials, dead ones lose them, training goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from petskin_tune.database.engine import CONNECT_SECONDS
from petskin_tune.database.outages import RETRY_MAX_SECONDS, Patience
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import UsageError
from petskin_tune.leases.expiry import grace
from tests.support.servers import Server, running_server
from tests.support.simulated import UNREACHABLE, workers_of

LEASE = 12.0  # so that the grace is long enough for an owner on a busy machine to come back
EPOCHS = 20  # that each trains during the outage, at least


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def study(server: Server) -> tuple[PetskinStorage, int]:
    storage = open_storage(server.new_database())
    return storage, optuna.create_study(storage=storage, study_name="s", direction="maximize")._study_id


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_an_outage_longer_than_the_lease_living_owners_keep_their_trials_and_a_dead_ones_is_taken(
    server: Server, study: tuple[PetskinStorage, int], tmp_path: Path
) -> None:
    storage, study_id = study
    enough = tmp_path / "enough"
    with workers_of(tmp_path, storage, study_id) as workers:
        # Each pretends to be on a machine of its own: nobody can see whether another lives.
        options = {"target": 4, "epochs": UNREACHABLE, "pace": 0.05, "elsewhere": True, "enough": str(enough)}
        options["lease"] = LEASE
        living = [workers.start("work", **options, outbox=str(tmp_path / f"disk {n}")) for n in range(3)]
        dying = workers.start("work", **options, outbox=str(tmp_path / "disk of the dead"))
        for worker in (*living, dying):
            worker.wait_for("heard", times=3)
        at_the_door = workers.start("work", **options, outbox=str(tmp_path / "disk at the door"))
        at_the_door.wait_for("looked")
        server.stop()
        dying.kill()
        heard = [worker.count("heard") for worker in living]
        time.sleep(2 * LEASE)  # the outage
        for worker, before in zip(living, heard, strict=True):
            worker.wait_for("heard", before + EPOCHS)
        assert at_the_door.events("claimed") == []
        server.start()
        at_the_door.wait_for("claimed")
        enough.touch()
        assert [worker.wait() for worker in (*living, at_the_door)] == [0, 0, 0, 0]
        assert [worker.events("lost") for worker in living] == [[], [], []]
        (of_the_dead,) = dying.events("claimed")
        epochs = {event["trial"]: event["epoch"] for worker in living for event in worker.events("heard")}
    trials = {trial._trial_id: trial for trial in storage.get_all_trials(study_id)}
    assert [trial.state.name for trial in trials.values()] == ["COMPLETE"] * 4
    with storage.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT trial_id, token FROM trial_leases").all()
    assert {row.trial_id: row.token for row in rows} == {
        trial_id: 2 if trial_id == of_the_dead["trial"] else 1 for trial_id in trials
    }
    del trials[of_the_dead["trial"]]
    assert epochs.keys() == trials.keys()
    for trial_id, trial in trials.items():
        assert trial.intermediate_values == {epoch: epoch + 1 / 1000 for epoch in range(1, epochs[trial_id] + 1)}


@pytest.mark.parametrize("lease", [30.0, 90.0, 300.0, 3600.0])
def test_the_graces_of_real_life_are_as_long_as_an_owner_needs_to_come_back(lease: float) -> None:
    assert grace(lease) >= lease / 3 + RETRY_MAX_SECONDS + CONNECT_SECONDS


def test_a_command_that_is_typed_while_the_server_starts_waits_for_it(server: Server) -> None:
    url = server.new_database()
    server.stop()
    waited: list[float] = []

    def start_at_last(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            server.start()

    storage = open_storage(url, Patience(seconds=60.0, on_wait=start_at_last))
    assert storage.get_all_studies() == []
    assert len(waited) >= 3


def test_a_server_that_stays_away_is_named_in_one_sentence(server: Server) -> None:
    url = server.new_database()
    server.stop()
    try:
        with pytest.raises(UsageError, match="cannot be reached"):
            open_storage(url, Patience(seconds=1.0))
    finally:
        server.start()


def test_a_database_that_does_not_exist_is_not_waited_for(server: Server) -> None:
    waited: list[float] = []
    nowhere = server.url.set(database="nowhere").render_as_string(hide_password=False)
    with pytest.raises(UsageError, match="does not exist"):
        open_storage(nowhere, Patience(seconds=60.0, on_wait=waited.append))
    assert waited == []
