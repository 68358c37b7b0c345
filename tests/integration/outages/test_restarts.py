"""PostgreSQL restarted like a power cut under workers that report every 50 ms: nothing is lost, nothing comes twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from petskin_tune.database.storage import PetskinStorage, open_storage
from tests.support.servers import Server, running_server
from tests.support.simulated import LONG, UNREACHABLE, Process, until, workers_of
from tests.support.soak import times

PACE = 0.05  # seconds between the reports of a worker
EPOCHS = 50  # of a trial


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.mark.parametrize(
    ("workers", "restarts"),
    [(2, 2), pytest.param(8, times(30, least=10), marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
)
def test_immediate_restarts_kill_no_worker_and_lose_or_double_no_report(
    server: Server, tmp_path: Path, workers: int, restarts: int
) -> None:
    url = server.new_database()
    storage = open_storage(url)
    study_id = optuna.create_study(storage=storage, study_name="s", direction="maximize")._study_id
    enough = tmp_path / "enough"
    with workers_of(tmp_path, storage, study_id) as simulated:
        # Trials are born, trained and told whenever the server goes: there is work until it has gone often enough.
        options = {"target": UNREACHABLE, "epochs": EPOCHS, "pace": PACE, "lease": LONG, "enough": str(enough)}
        all_workers = [simulated.start("work", **options) for _ in range(workers)]
        for worker in all_workers:
            worker.wait_for("heard")
        for _ in range(restarts):
            _let_epochs_pass(all_workers, random.randint(0, 20 * workers))
            assert all(worker.is_alive for worker in all_workers)
            server.restart()
        for worker in all_workers:
            worker.wait_for("heard", worker.count("heard") + 1)  # each has outlived the last one, too
        enough.touch()
        assert [worker.wait() for worker in all_workers] == [0] * workers
        assert server.restarts == restarts
        heard = Counter((event["trial"], event["epoch"]) for worker in all_workers for event in worker.events("heard"))
        assert not any(worker.events("lost") or worker.events("died") for worker in all_workers)
    _check(storage, study_id, heard)


def _let_epochs_pass(workers: list[Process], count: int) -> None:
    """Return when the workers have gone through so many epochs in all."""
    wanted = sum(worker.count("heard") for worker in workers) + count
    until(lambda: sum(worker.count("heard") for worker in workers) >= wanted, f"{count} epochs")


def _check(storage: PetskinStorage, study_id: int, heard: Counter[tuple[int, int]]) -> None:
    assert set(heard.values()) == {1}
    finished = storage.get_all_trials(study_id)
    assert {trial.state.name for trial in finished} == {"COMPLETE"}
    assert {trial_id for trial_id, _ in heard} == {trial._trial_id for trial in finished}
    for trial in finished:
        epochs = sorted(epoch for trial_id, epoch in heard if trial_id == trial._trial_id)
        assert epochs == list(range(1, len(epochs) + 1))
        assert trial.intermediate_values == {epoch: epoch + 1 / 1000 for epoch in epochs}
        assert trial.user_attrs["petskin-tune:history"]["epoch"] == epochs
    with storage.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT state, token FROM trial_leases").all()
        steps = connection.exec_driver_sql("SELECT count(*) FROM trial_intermediate_values").scalar()
    assert [(row.state, row.token) for row in rows] == [("done", 1)] * len(finished)
    assert steps == len(heard)
