"""PostgreSQL restarted like a power cut under workers that report every 50 ms: nothing is lost, nothing comes twice."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from servers import Server, running_server
from simulated import workers_of

from petskin_tune.storage import PetskinStorage, open_storage

PACE = 0.05  # seconds between the reports of a worker


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.mark.parametrize(
    ("workers", "restarts", "epochs"),
    [(4, 4, 110), pytest.param(8, 30, 400, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
def test_immediate_restarts_kill_no_worker_and_lose_or_double_no_report(
    server: Server, tmp_path: Path, workers: int, restarts: int, epochs: int
) -> None:
    url = server.new_database()
    storage = open_storage(url)
    study_id = optuna.create_study(storage=storage, study_name="s", direction="maximize")._study_id
    with workers_of(tmp_path, storage, study_id) as simulated:
        # Each has a trial to train whenever the server goes; the target is out of reach until they are told.
        options = {"target": 2 * workers, "epochs": epochs, "pace": PACE, "lease": 30.0}
        all_workers = [simulated.start("work", **options) for _ in range(workers)]
        for worker in all_workers:
            worker.wait_for("heard")
        for _ in range(restarts):
            time.sleep(random.uniform(0.2, 2.0))
            assert any(worker.is_alive for worker in all_workers)
            server.restart()
        assert [worker.wait() for worker in all_workers] == [0] * workers
        assert server.restarts == restarts
        heard = {(event["trial"], event["epoch"]) for worker in all_workers for event in worker.events("heard")}
        assert not any(worker.events("lost") or worker.events("died") for worker in all_workers)
    _check(storage, study_id, heard, trials=2 * workers, epochs=epochs)


def _check(storage: PetskinStorage, study_id: int, heard: set, trials: int, epochs: int) -> None:
    finished = storage.get_all_trials(study_id)
    assert [trial.state.name for trial in finished] == ["COMPLETE"] * trials
    assert len(heard) == trials * epochs
    for trial in finished:
        assert trial.intermediate_values == {epoch: epoch + 1 / 1000 for epoch in range(1, epochs + 1)}
        assert trial.user_attrs["history"]["epoch"] == list(range(1, epochs + 1))
    with storage.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT state, token FROM trial_leases").all()
        steps = connection.exec_driver_sql("SELECT count(*) FROM trial_intermediate_values").scalar()
    assert [(row.state, row.token) for row in rows] == [("done", 1)] * trials
    assert steps == trials * epochs
