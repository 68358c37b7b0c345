"""However many workers race, a trial has one owner; a person's own trials in the same study are nobody's business."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest

from petskin_tune.database.storage import PetskinStorage, open_storage
from tests.support.simulated import LONG, PATIENCE, Workers, until, workers_of

ORPHANS, RACERS = 20, 8
ASKING, TARGET, KILLED, EPOCHS = 16, 40, 6, 3

# On SQLite a stock Optuna dies of "database is locked" beside any other writer, so there the person uses our storage.
FOREIGN = """
import sys, optuna
from petskin_tune.database.storage import open_storage
storage = sys.argv[1] if sys.argv[1].startswith("postgresql") else open_storage(sys.argv[1])
def objective(trial):
    for step in range(3):
        trial.report(trial.suggest_float("own", 0, 1), step)
    return 42.0
study = optuna.load_study(study_name="s", storage=storage)
study.optimize(objective, n_trials=8)
stays = study.ask()  # still RUNNING when this process is gone
print(stays.number)
"""


@pytest.fixture
def storage(database_url: str) -> PetskinStorage:
    storage = open_storage(database_url)
    optuna.create_study(storage=storage, study_name="s", direction="maximize")
    return storage


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_of_20_orphans_and_8_racing_workers_each_orphan_is_taken_exactly_once_in_every_round(
    storage: PetskinStorage, tmp_path: Path, rounds: int
) -> None:
    study_id = storage.get_study_id_from_name("s")
    starts = tmp_path / "starts"
    with workers_of(tmp_path, storage, study_id) as workers:
        racers = [workers.start("race", starts=str(starts), rounds=rounds, lease=LONG) for _ in range(RACERS)]
        for number in range(rounds):
            orphans = _orphans(workers)
            with starts.open("a") as file:
                file.write(f"{number}\n")
            for racer in racers:
                racer.wait_for("through", number + 1)
            claims = [claim for racer in racers for claim in racer.events("claimed") if claim["round"] == number]
            assert Counter(claim["trial"] for claim in claims) == dict.fromkeys(orphans, 1)
            assert {claim["token"] for claim in claims} == {2}


def _orphans(workers: Workers) -> list[int]:
    """Trials whose owner was killed in the instant after it had got the last of them."""
    owner = workers.start("give_birth", count=ORPHANS, lease=LONG, faults=f"trial-born=kill@{ORPHANS}")
    assert owner.wait() == -9
    assert owner.fired("trial-born")
    leases = _all_leases(workers)[-ORPHANS:]
    assert [token for _, token in leases] == [1] * ORPHANS
    return [trial for trial, _ in leases]


def _all_leases(workers: Workers) -> list[tuple[int, int]]:
    with open_storage(workers.url).engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT trial_id, token FROM trial_leases ORDER BY trial_id").all()
    return [(row.trial_id, row.token) for row in rows]


def test_16_workers_that_ask_at_once_make_40_configurations_whoever_is_killed_at_a_birth(
    storage: PetskinStorage, tmp_path: Path
) -> None:
    study_id = storage.get_study_id_from_name("s")
    with workers_of(tmp_path, storage, study_id) as workers:
        foreign = subprocess.Popen(
            [sys.executable, "-c", FOREIGN, workers.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        options = {"target": TARGET, "epochs": EPOCHS, "lease": LONG, "wait_for": str(tmp_path / "go")}
        doomed = [workers.start("work", faults="trial-born=kill@1", **options) for _ in range(KILLED)]
        # A trial each, and no more before the others are dead: so there is one left for each of those to die at.
        options["hold_until"] = str(tmp_path / "killed")
        lasting = [workers.start("work", **options) for _ in range(ASKING - KILLED)]
        for worker in workers.all:
            worker.wait_for("ready")
        (tmp_path / "go").touch()
        assert [worker.wait() for worker in doomed] == [-9] * KILLED
        (tmp_path / "killed").touch()
        assert [worker.wait() for worker in lasting] == [0] * (ASKING - KILLED)
        out, err = foreign.communicate(timeout=PATIENCE)
        assert foreign.returncode == 0, err
        killed_at_birth = sum(worker.fired("trial-born") for worker in doomed)
    assert killed_at_birth == KILLED
    _check_that_40_were_trained_once(storage, study_id)
    _check_that_the_foreign_trials_are_untouched(storage, study_id, still_running=int(out))


def _check_that_40_were_trained_once(storage: PetskinStorage, study_id: int) -> None:
    with storage.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT trial_id, token, state FROM trial_leases").mappings().all()
    assert len(rows) == TARGET
    assert {row["state"] for row in rows} == {"done"}
    tokens = Counter(row["token"] for row in rows)
    assert tokens == {1: TARGET - KILLED, 2: KILLED}  # no newborn was stolen, no orphan was left
    trials = {trial._trial_id: trial for trial in storage.get_all_trials(study_id)}
    for row in rows:
        trial = trials[row["trial_id"]]
        token = row["token"]
        assert trial.state.name == "COMPLETE"
        assert trial.intermediate_values == {epoch: epoch + token / 1000 for epoch in range(1, EPOCHS + 1)}
        assert trial.params == {"x": 0.5}
    assert len({trial.number for trial in trials.values()}) == len(trials)


def _check_that_the_foreign_trials_are_untouched(storage: PetskinStorage, study_id: int, still_running: int) -> None:
    foreign = [trial for trial in storage.get_all_trials(study_id) if "x" not in trial.params]
    assert Counter(trial.state.name for trial in foreign) == {"COMPLETE": 8, "RUNNING": 1}
    for trial in foreign:
        if trial.state.name == "COMPLETE":
            assert (trial.value, list(trial.params), len(trial.intermediate_values)) == (42.0, ["own"], 3)
        else:
            assert trial.number == still_running


def test_8_workers_that_open_an_empty_database_at_once_all_work(database_url: str, tmp_path: Path) -> None:
    with workers_of(tmp_path, None, 1, url=database_url) as workers:
        asking = [workers.start("open") for _ in range(8)]
        assert [worker.wait() for worker in asking] == [0] * 8
        assert [worker.events("opened")[0]["studies"] for worker in asking] == [[]] * 8


@pytest.mark.slow
def test_stock_optuna_may_create_its_tables_at_the_same_time(database_url: str, tmp_path: Path) -> None:
    """A dashboard that starts with the workers: it may have to start again, the workers may not."""
    with workers_of(tmp_path, None, 1, url=database_url) as workers:
        stock = [workers.start("open_stock") for _ in range(4)]
        ours = [workers.start("open") for _ in range(4)]
        assert [worker.wait() for worker in ours] == [0] * 4
        until(lambda: not any(worker.is_alive for worker in stock), "the stock storages")
    assert optuna.create_study(storage=database_url).trials == []
