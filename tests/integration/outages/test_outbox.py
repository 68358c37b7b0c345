"""A worker killed while PostgreSQL was away: what it had trained is sent once, by the next worker on its disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from petskin_tune.database.storage import PetskinStorage, open_storage
from tests.support.servers import Server, running_server
from tests.support.simulated import Workers, workers_of

UNSENT = 5


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture
def storage(server: Server) -> PetskinStorage:
    return open_storage(server.new_database())


def _killed_in_an_outage(server: Server, workers: Workers, storage: PetskinStorage, study_id: int, disk: Path) -> int:
    """A worker that was killed with 5 unsent epochs on ``disk``; the last epoch that the database has."""
    # The instant after a report is the last in which the server is there: it is stopped while the worker is.
    worker = workers.start(
        "work", target=1, epochs=100, pace=0.1, lease=2.0, elsewhere=True, outbox=str(disk), faults="report-sent=stop@3"
    )
    worker.wait_until_stopped()
    assert worker.fired("report-sent")
    (trial,) = storage.get_all_trials(study_id)
    reported = len(trial.intermediate_values)
    server.stop()
    worker.go_on()
    worker.wait_for("heard", times=reported + UNSENT)
    worker.kill()
    server.start()
    (trial,) = storage.get_all_trials(study_id)
    assert (trial.state.name, len(trial.intermediate_values)) == ("RUNNING", reported)
    lines = (disk / "0.jsonl").read_text().split()
    assert len(lines) >= reported + UNSENT
    return reported


def test_the_next_worker_on_that_disk_sends_them_once_and_only_up_to_the_verdict(
    server: Server, storage: PetskinStorage, tmp_path: Path
) -> None:
    study_id = optuna.create_study(storage=storage, study_name="s", direction="maximize")._study_id
    with workers_of(tmp_path, storage, study_id) as workers:
        reported = _killed_in_an_outage(server, workers, storage, study_id, tmp_path / "disk")
        pruned_at = reported + 3
        options = {"target": 1, "epochs": 100, "lease": 2.0, "elsewhere": True, "prune_at": pruned_at}
        second = workers.start("work", **options, outbox=str(tmp_path / "disk"))
        assert second.wait() == 0
        assert [claim["token"] for claim in second.events("claimed")] == [2]
        assert second.events("heard") == []  # the verdict was found before anything was trained
    (trial,) = storage.get_all_trials(study_id)
    assert trial.state.name == "PRUNED"
    # all under the first owner's token: it was the one who trained them
    assert trial.intermediate_values == {epoch: epoch + 1 / 1000 for epoch in range(1, pruned_at + 1)}
    assert trial.user_attrs["petskin-tune:history"]["epoch"] == list(range(1, pruned_at + 1))


@pytest.mark.slow
def test_on_another_machine_the_trial_goes_on_without_them_and_the_late_outbox_is_dropped(
    server: Server, storage: PetskinStorage, tmp_path: Path
) -> None:
    study_id = optuna.create_study(storage=storage, study_name="s", direction="maximize")._study_id
    with workers_of(tmp_path, storage, study_id) as workers:
        reported = _killed_in_an_outage(server, workers, storage, study_id, tmp_path / "disk 1")
        options = {"target": 1, "epochs": reported + UNSENT, "lease": 2.0, "elsewhere": True}
        second = workers.start("work", **options, outbox=str(tmp_path / "disk 2"), faults="report-sent=kill@2")
        assert second.wait() == -9
        assert second.fired("report-sent")
        third = workers.start("work", **options, outbox=str(tmp_path / "disk 1"))
        assert third.wait() == 0
        assert [claim["token"] for claim in third.events("claimed")] == [3]
    (trial,) = storage.get_all_trials(study_id)
    assert trial.state.name == "COMPLETE"
    tokens = [round((value - epoch) * 1000) for epoch, value in sorted(trial.intermediate_values.items())]
    assert tokens == [1] * reported + [2] * 2 + [3] * (UNSENT - 2)
