"""A home on a Drive, and machines that come and go with all that lay on their disks: the study ends as if left alone.

The Drive is a real FUSE mount (``tests/drive.py``) that is slow, fails now and then and forgets what it has not
synchronised when a machine is lost; the workers are the real command.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest

from tests.support.drive import Faults, SimulatedDrive, unavailable
from tests.support.killing import kill_at_random
from tests.support.soak import part, times
from tests.support.workers import (
    SMALL_STUDY,
    UNREACHABLE,
    Process,
    Said,
    essence,
    fired,
    has_ended,
    load,
    run,
    start,
    wait_until,
    write_study,
)

pytestmark = [
    pytest.mark.skipif(unavailable() is not None, reason=unavailable() or ""),
    pytest.mark.timeout(900),  # up to eleven lives of a worker, each of which imports torch
]

TRIALS = 4
CHANGES: dict[str, Any] = {
    "epochs": 6,
    "target_trials": TRIALS,
    "train": {**SMALL_STUDY["train"], "batch": 4, "nbs": 4, "lrf": 0.1, "warmup_bias_lr": 0.0},
    "pruner": {"name": "asha", "rungs": [2, 4], "reduction_factor": 2},
    "search": {"lr0": {"low": 8e-3, "high": 1.5e-2, "log": True}, "mosaic": [0.0, 0.3]},
    "lease": "60s",
}
LONG = {"epochs": 60, "target_trials": 1}  # a trial of several snapshots, however far apart their cost puts them
ROUGH = Faults(eio_every=45, delay=0.001, sync_delay=0.2, sync_rate=5e6)  # a snapshot of 1.5 MB is safe after 0.5 s
BEHIND = replace(ROUGH, sync_delay=3600.0)  # nothing that a machine wrote is safe when it is lost
# Where the worker (or with kill-all the trial's process and the worker) dies, each time with its machine's disk.
POINTS = (
    "home-claiming=kill",
    "trial-born=kill",
    "home-counted=kill@4",
    "upload-verified=kill@2",
    "snapshot-committed=kill@2",
    "before-old-snapshots-go=kill@4",
    "in-validation=kill-all@2",
    "home-copied=kill@5",
    "told=kill",
)
KILLS = times(20, least=7)  # at random instants


class Session:
    """A user's Drive and study file, and the machines that he borrows one after the other."""

    def __init__(self, folder: Path, drive: SimulatedDrive, **changes: Any) -> None:
        self.drive = drive
        self.log = folder / "fired"
        self._folder = folder
        self._disk = folder / "disk-of-the-machine"
        self._study = write_study(folder / "study", **{**CHANGES, **changes})
        self._arguments = ("--study", str(self._study), "--home", str(drive.path / "petskin"))

    def start(self, faults: str = "") -> Process:
        return start(*self._arguments, cwd=self._folder, **self._environment(faults))

    def run(self, *options: str, faults: str = "") -> subprocess.CompletedProcess[str]:
        return run(*self._arguments, *options, cwd=self._folder, **self._environment(faults))

    def _environment(self, faults: str) -> dict[str, str]:
        temporary = self._disk / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        places = {"XDG_CACHE_HOME": str(self._disk / "cache"), "TMPDIR": str(temporary)}
        return {**places, "TUNE_FAULTS": faults, "TUNE_FAULTS_LOG": str(self.log)}

    def lose_machine(self) -> int:
        """The machine is gone with its processes and its disk; how many files on Drive had not been synchronised."""
        lost = self.drive.lose_machine()  # first: it would synchronise while processes are looked for
        end_processes(self._folder)
        shutil.rmtree(self._disk)
        return lost

    def study(self) -> optuna.Study:
        """The study as the newest copy of the database in the cloud has it, in plain Optuna."""
        self.drive.wait_until_synchronised()
        newest = max(self.drive.cloud.rglob("tune-*.db"))
        copy = shutil.copy(newest, self._folder / "looked-at.db")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.load_study(study_name="small", storage=f"sqlite:///{copy}")

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """The trials that are safe in the cloud; none, where no copy of the database has come so far."""
        return self.study().trials if list(self.drive.cloud.rglob("tune-*.db")) else []

    def notes(self) -> list[str]:
        """What the trials remember of their lives."""
        return [note for trial in self.study().trials for note in trial.user_attrs.get("petskin-tune:notes", [])]

    def snapshots(self) -> list[Path]:
        """The snapshots on Drive that the newest copy of the database in the cloud points to, the newest first."""
        copies = sorted(self.drive.cloud.rglob("tune-*.db"))
        if not copies:
            return []
        statement = "SELECT snapshot_key, previous_key FROM trial_leases WHERE state = 'running'"
        with contextlib.closing(sqlite3.connect(f"file:{copies[-1]}?mode=ro&immutable=1", uri=True)) as connection:
            try:
                rows = connection.execute(statement).fetchall()
            except sqlite3.DatabaseError:  # it is on its way into the cloud
                return []
        return [self.drive.path / "petskin" / "checkpoints" / key for row in rows for key in row if key]


def end_processes(folder: Path) -> None:
    """Kill all processes of the machines whose disks lie in ``folder``: workers, trials, forkservers."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if Path(process.cwd()).is_relative_to(folder):  # they all work below it
                process.kill()
                wait_until(lambda process=process: has_ended(process))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the study is that was left alone, in a home on a disk of its own."""
    return left_alone(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def undisturbed_long(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The same of a study of one long trial."""
    return essence(run_alone(tmp_path_factory.mktemp("undisturbed"), **LONG))


def left_alone(folder: Path, **changes: Any) -> list[dict[str, Any]]:
    study = run_alone(folder, **changes)
    assert len({trial.value for trial in study.trials}) > 2, "the trials learnt nothing that could differ"
    return essence(study)


def run_alone(folder: Path, **changes: Any) -> optuna.Study:
    result = run("--study", str(write_study(folder / "study", **{**CHANGES, **changes})), cwd=folder)
    assert result.returncode == 0, result.stdout
    return load(folder / "tune-home")


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[SimulatedDrive]:
    with SimulatedDrive(tmp_path / "google") as drive:
        yield drive
        end_processes(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_machines_lost_at_named_points_on_a_rough_drive_leave_the_study_as_if_left_alone(
    drive: SimulatedDrive, undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    session = Session(tmp_path, drive)
    lost = 0
    for number, fault in enumerate(POINTS):
        drive.let(BEHIND if number % 3 == 2 else ROUGH)
        result = session.run(faults=fault)
        assert result.returncode == -signal.SIGKILL, f"{fault}: {result.stdout}"
        assert fired(session.log) == [name.partition("=")[0] for name in POINTS[: number + 1]]
        lost += session.lose_machine()
    drive.let(ROUGH)
    finish = session.run()
    assert finish.returncode == 0, finish.stdout
    assert essence(session.study()) == undisturbed
    assert lost > 0, "no machine was lost with anything not yet synchronised"
    assert drive.fired()["eio"] > 0


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_machines_lost_at_random_instants_leave_the_study_as_if_left_alone(
    drive: SimulatedDrive, tmp_path: Path
) -> None:
    changes = {"sampler": {"name": "tpe", "startup_trials": 2}}
    session = Session(tmp_path, drive, **changes, target_trials=UNREACHABLE)
    chance = random.Random(3)
    lost = 0
    for kill in range(KILLS):
        rate = chance.uniform(2e6, 20e6)
        faults = Faults(eio_every=chance.randint(40, 90), delay=0.001, sync_delay=0.2, sync_rate=rate)
        drive.let(BEHIND if kill % 5 == 4 else faults)
        kill_at_random(session.start(), chance)
        lost += session.lose_machine()
    drive.let(ROUGH)
    trials = max(TRIALS, len(session.trials()))  # however far it has come meanwhile
    finish = session.run("--target-trials", str(trials))
    assert finish.returncode == 0, finish.stdout
    assert essence(session.study()) == left_alone(tmp_path / "calm", **changes, target_trials=trials)
    assert lost > 0, "no machine was lost with anything not yet synchronised"
    assert drive.fired()["eio"] > 0


@pytest.mark.slow
def test_a_full_drive_is_said_training_goes_on_and_the_upload_follows_when_there_is_room(
    drive: SimulatedDrive, undisturbed: list[dict[str, Any]], tmp_path: Path
) -> None:
    session = Session(tmp_path, drive)
    drive.let(Faults(quota=1_000_000))  # the database fits, a snapshot does not
    worker = Said(session.start())
    worker.wait_for("The store is full")
    assert drive.fired()["quota"] > 0
    worker.wait_for("trial 0 epoch", 2)  # and no snapshot was safe so far
    drive.let(Faults())
    said = worker.end()
    assert worker.returncode == 0, said
    assert essence(session.study()) == undisturbed
    assert "training goes on" in said
    assert "s of trouble" in said


@pytest.mark.slow
@pytest.mark.parametrize("how", ["unmount", "disconnect"])
def test_a_drive_that_is_away_for_a_while_costs_no_trial_anything(
    drive: SimulatedDrive, undisturbed: list[dict[str, Any]], tmp_path: Path, how: str
) -> None:
    session = Session(tmp_path, drive)
    worker = Said(session.start())
    wait_until(lambda: bool(session.snapshots()))
    getattr(drive, how)()
    worker.wait_for("training goes on")
    if how == "unmount":
        assert list(drive.path.iterdir()) == [], "something was written where Drive was mounted"
    drive.reconnect()
    said = worker.end()
    assert worker.returncode == 0, said
    assert essence(session.study()) == undisturbed


def lose_a_machine_with_two_snapshots(session: Session) -> list[Path]:
    """Run until a trial has two snapshots in the cloud, however often they are written, and lose the machine."""
    while True:
        Said(session.start())
        wait_until(lambda: len(session.snapshots()) == 2)
        session.lose_machine()
        if len(snapshots := session.snapshots()) == 2:  # else: its trial ended meanwhile
            return snapshots


def truncate(snapshot: Path) -> None:
    os.truncate(snapshot, snapshot.stat().st_size // 2)


def flip_a_bit(snapshot: Path) -> None:
    with open(snapshot, "r+b") as file:
        file.seek(snapshot.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@pytest.mark.slow
@pytest.mark.parametrize("damage", part([flip_a_bit, truncate, Path.unlink], least=1))
def test_a_damaged_newest_snapshot_falls_back_to_the_one_before_and_is_remembered(
    drive: SimulatedDrive, undisturbed_long: list[dict[str, Any]], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    session = Session(tmp_path, drive, **LONG)
    newest, before = lose_a_machine_with_two_snapshots(session)
    damage(newest)
    finish = session.run()
    assert finish.returncode == 0, finish.stdout
    assert essence(session.study()) == undisturbed_long
    sentence = f"the snapshot {newest.relative_to(drive.path / 'petskin' / 'checkpoints')} cannot be used: "
    assert sentence in finish.stdout
    assert any(note.startswith(sentence) for note in session.notes())
    assert before.name not in finish.stdout, "the one before was rejected, too"


def test_a_worker_whose_home_was_taken_over_ends_with_one_sentence(drive: SimulatedDrive, tmp_path: Path) -> None:
    session = Session(tmp_path, drive, target_trials=50)
    worker = Said(session.start())
    wait_until(lambda: bool(session.snapshots()))
    (drive.path / "petskin" / "database" / "claim-000099-ffffffff-000000.json").write_bytes(b"{}")
    said = worker.end()
    assert worker.returncode == 2, said
    assert "error: Another worker has taken this home over, and this one stops" in said
    assert "Traceback" not in said
