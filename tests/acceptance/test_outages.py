"""Real workers that were stopped past their lease, cut off from PostgreSQL for longer than it, or killed meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from sqlalchemy.engine import make_url

from petskin_tune.database.storage import open_storage
from petskin_tune.datasets import demo
from petskin_tune.leases.lease import Lease, read_leases
from tests.support.servers import Server, maintenance, running_server
from tests.support.workers import (
    BIN,
    PATIENCE_SECONDS,
    SMALL_STUDY,
    Process,
    Said,
    environment,
    essence,
    fired,
    interrupt_stopped,
    load,
    run,
    stopped_by,
    wait_until,
    write_study,
)

LEASE = 90.0  # that of an owner who lives never runs out; a test lets that of another one end when it wants it to
LEFT = 5.0  # seconds that are left of a lease when an outage begins
EPOCHS = 16  # of one batch each
UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]  # a container of its own, in a few words
AUDITED = ("trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes")
AUDITED = (*AUDITED, "trial_system_attributes", "trial_leases")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


# ---- machines and workers --------------------------------------------------------------------------------------------


class Site:
    """One study in PostgreSQL and a folder of snapshots, for machines with a disk each.

    Every worker is a user of the database of its own, so that the database can tell who wrote what.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        data = demo.make(folder / "data", train=8, val=4, imgsz=32)
        train = {**SMALL_STUDY["train"], "imgsz": 32, "close_mosaic": 0}
        changes = {"data": str(data), "epochs": EPOCHS, "train": train, "target_trials": 1, "lease": f"{LEASE:g}s"}
        self.folder = folder
        self.server = server
        self.study = write_study(folder, **changes)
        self.url = server.new_database()
        self.workers: list[Worker] = []

    def start(self, name: str, disk: str, *, apart: bool = False, **more: str) -> Worker:
        """Start a worker with the home ``disk``; ``apart``: nobody outside can see whether it lives."""
        with maintenance(make_url(self.url)) as connection:
            connection.exec_driver_sql(f"CREATE ROLE {name}_{self.database} LOGIN SUPERUSER")
        url = make_url(self.url).set(username=f"{name}_{self.database}").render_as_string(hide_password=False)
        places = {"TUNE_STORAGE": url, "TUNE_CHECKPOINTS": str(self.folder / "checkpoints")}
        command = [*(UNSHARE if apart else []), str(BIN / "tune-worker"), "--study", str(self.study)]
        process = subprocess.Popen(
            [*command, "--home", str(self.folder / disk), "--name", name],
            cwd=self.folder,
            env=environment(**places, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.workers.append(Worker(process))
        return self.workers[-1]

    def start_and_stop(self, name: str, point: str) -> Worker:
        """A worker on disk_1 that reached ``point``, where all its processes were stopped."""
        log = self.folder / "fired"
        worker = self.start(name, "disk_1", TUNE_FAULTS=f"{point}=stop@1", TUNE_FAULTS_LOG=str(log))
        stopped_by(log)
        assert fired(log) == [point]
        worker.stop()
        return worker

    @property
    def database(self) -> str:
        return str(make_url(self.url).database)

    @property
    def trial(self) -> optuna.trial.FrozenTrial:
        (trial,) = optuna.load_study(study_name="small", storage=self.url).trials
        return trial

    @property
    def lease(self) -> Lease:
        storage = open_storage(self.url)
        (lease,) = read_leases(storage, storage.get_study_id_from_name("small"))
        return lease

    def let_the_lease_last(self, seconds: float) -> None:
        """As if its owner, which is stopped, had renewed it a last time for so long."""
        with maintenance(make_url(self.url)) as connection:
            connection.exec_driver_sql(f"UPDATE trial_leases SET expires_at = extract(epoch FROM now()) + {seconds}")

    def let_the_lease_run_out(self) -> None:
        """As if its owner, which is stopped, had had a lease of a second, and had renewed it a minute ago."""
        with maintenance(make_url(self.url)) as connection:
            ended = "extract(epoch FROM now()) - 60"
            connection.exec_driver_sql(f"UPDATE trial_leases SET lease_seconds = 1, expires_at = {ended}")

    def audit(self) -> None:
        """From now on the database remembers who writes to a trial or its lease."""
        with maintenance(make_url(self.url)) as connection:
            connection.exec_driver_sql("CREATE TABLE audit (id serial PRIMARY KEY, who text, what text)")
            connection.exec_driver_sql(
                "CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN INSERT INTO audit (who, what) VALUES (current_user, TG_TABLE_NAME); RETURN NULL; END $$"
            )
            for table in AUDITED:
                connection.exec_driver_sql(
                    f"CREATE TRIGGER remember AFTER INSERT OR UPDATE OR DELETE ON {table} "
                    "FOR EACH ROW EXECUTE FUNCTION remember()"
                )

    def writers(self) -> list[str]:
        """Who wrote, oldest first."""
        with maintenance(make_url(self.url)) as connection:
            rows = connection.exec_driver_sql("SELECT who FROM audit ORDER BY id").scalars()
            return [who.removesuffix(f"_{self.database}") for who in rows]

    def outbox(self, disk: str) -> dict[int, dict[str, Any]]:
        """What waits on a disk, by epoch."""
        lines = [json.loads(line) for file in self._outboxes(disk) for line in file.read_text().split("\n") if line]
        return {line["epoch"]: line for line in lines}

    def _outboxes(self, disk: str) -> list[Path]:
        return list((self.folder / disk).rglob("outbox/*.jsonl"))


class Worker:
    """A real worker and what it says."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said = Said(process)

    def has_said(self, text: str) -> bool:
        return self.said.count(text) > 0

    def wait_for(self, text: str) -> None:
        self.said.wait_for(text)

    def epochs(self) -> int:
        """How many epochs it has told of."""
        return sum(" trial 0 epoch" in line for line in self.said.lines)

    def ends(self) -> int:
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end:\n{self.said.text()}") from None

    def family(self) -> list[psutil.Process]:
        """The worker and everything that it has started."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]

    def trial_processes(self) -> list[psutil.Process]:
        """The process that trains, if there is one: a child of the worker's forkserver."""
        return [process for process in self.family()[1:] if process.ppid() != self.process.pid]

    def stop(self) -> None:
        """SIGSTOP all of it, as a machine does that is suspended."""
        for process in self.family():
            process.suspend()

    def go_on(self) -> None:
        for process in self.family():
            process.resume()

    def kill(self) -> None:
        """SIGKILL the worker and its trial's process, if that has not ended."""
        processes = self.trial_processes()
        self.process.kill()
        for process in processes:
            process.kill()
        self.process.wait()


@pytest.fixture
def site(tmp_path: Path, server: Server) -> Iterator[Site]:
    site = Site(tmp_path, server)
    yield site
    for worker in site.workers:
        if worker.process.poll() is None:
            worker.go_on()
            worker.process.kill()
            worker.process.wait()


def _can_unshare() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*UNSHARE, "true"], check=False).returncode == 0


needs_namespaces = pytest.mark.skipif(not _can_unshare(), reason="no right to make a pid namespace here")


def assert_each_epoch_once(trial: optuna.trial.FrozenTrial) -> None:
    assert trial.state.name == "COMPLETE"
    assert list(trial.intermediate_values) == list(range(1, EPOCHS + 1))
    assert trial.user_attrs["petskin-tune:history"]["epoch"] == list(range(1, EPOCHS + 1))
    assert not [note for note in trial.user_attrs.get("petskin-tune:notes", []) if "done again" in note]


# ---- stopped, cut off ------------------------------------------------------------------------------------------------


@needs_namespaces
@pytest.mark.slow
def test_a_worker_stopped_past_its_lease_ends_its_training_and_writes_nothing_when_it_comes_back(site: Site) -> None:
    first = site.start_and_stop("first", "snapshot-committed")
    site.let_the_lease_run_out()
    site.audit()
    log = site.folder / "fired by the second"
    faults = {"TUNE_FAULTS": "batch-done=stop@3", "TUNE_FAULTS_LOG": str(log)}
    second = site.start("second", "disk_2", apart=True, **faults)
    second.wait_for("goes on after")
    wait_until(lambda: fired(log) == ["batch-done"])  # it cannot be done before the first comes back
    taken_over = len(site.writers())
    assert all(process.status() == psutil.STATUS_STOPPED for process in first.family())
    first.go_on()
    first.wait_for("trial 0 now belongs to another worker; this one stopped training it")
    wait_until(lambda: not first.trial_processes())
    second.go_on()
    assert [first.ends(), second.ends()] == [0, 0]
    assert set(site.writers()[taken_over:]) == {"second"}
    assert (site.lease.worker, site.lease.token) == ("second", 2)
    assert_each_epoch_once(site.trial)


@pytest.mark.slow
@needs_namespaces
def test_after_an_outage_longer_than_its_lease_an_owner_keeps_its_trial_from_the_worker_at_the_door(site: Site) -> None:
    owner, at_the_door = stopped_with_another_at_the_door(site, "report-sent")
    outlast_the_lease(site, owner, epochs=2)
    owner.wait_for("database away")
    assert_the_owner_keeps_its_trial(site, owner, at_the_door)


@pytest.mark.slow
@needs_namespaces
def test_an_outage_between_the_claim_and_the_training_costs_an_owner_nothing_either(site: Site) -> None:
    owner, at_the_door = stopped_with_another_at_the_door(site, "trial-born")
    outlast_the_lease(site, owner, epochs=0)
    assert_the_owner_keeps_its_trial(site, owner, at_the_door)


def stopped_with_another_at_the_door(site: Site, point: str) -> tuple[Worker, Worker]:
    """An owner stopped at ``point`` for the first time, and a worker without work that sees only its lease."""
    owner = site.start_and_stop("owner", point)
    site.let_the_lease_last(1000.0)
    at_the_door = site.start("at_the_door", "disk_2", apart=True)
    at_the_door.wait_for("trial 0 is held by")
    return owner, at_the_door


def outlast_the_lease(site: Site, owner: Worker, epochs: int) -> None:
    """PostgreSQL is away while the owner goes on, for longer than its lease, and trains so many epochs."""
    trained = owner.epochs()
    site.let_the_lease_last(LEFT)
    site.server.stop()
    try:
        owner.go_on()
        time.sleep(2 * LEFT)  # the outage is the test
        wait_until(lambda: owner.epochs() >= trained + epochs or owner.process.poll() is not None)
        assert owner.process.poll() is None, owner.said.text()
    finally:
        site.server.start()


def assert_the_owner_keeps_its_trial(site: Site, owner: Worker, other: Worker) -> None:
    assert [owner.ends(), other.ends()] == [0, 0]
    assert not other.has_said("goes on after")
    assert (site.lease.worker, site.lease.token) == ("owner", 1)
    assert_each_epoch_once(site.trial)


# ---- killed meanwhile ------------------------------------------------------------------------------------------------


def killed_in_an_outage(site: Site) -> tuple[int, dict[int, float]]:
    """A worker killed with unsent epochs on disk_1.

    Returns:
        how many epochs the database has; the seconds that the others took, by epoch: no two epochs took the same.
    """
    log = site.folder / "fired"
    worker = site.start("killed", "disk_1", TUNE_FAULTS="batch-done=stop@5", TUNE_FAULTS_LOG=str(log))
    (child,) = stopped_by(log)  # in its fifth epoch: there is more to train while the server is away
    wait_until(lambda: len(site.trial.intermediate_values) == 4 and site.lease.snapshot is not None)
    site.server.stop()
    epochs = worker.epochs()
    os.kill(child, signal.SIGCONT)
    worker.said.wait_for("trial 0 epoch", epochs + 3)
    worker.kill()
    site.server.start()
    trial = site.trial
    reported = len(trial.intermediate_values)
    unsent = {epoch: line["seconds"] for epoch, line in site.outbox("disk_1").items() if epoch > reported}
    assert trial.state.name == "RUNNING"
    assert len(unsent) >= 2
    return reported, unsent


def seconds_of(trial: optuna.trial.FrozenTrial) -> dict[int, float]:
    """What the reported run of each epoch took: a mark of the run that it comes from."""
    return dict(enumerate(trial.user_attrs["petskin-tune:history"]["seconds"], start=1))


@pytest.mark.slow
def test_a_worker_killed_in_an_outage_leaves_epochs_that_the_next_one_on_its_disk_sends_once(site: Site) -> None:
    reported, unsent = killed_in_an_outage(site)
    durable = site.lease.snapshot
    assert durable is not None
    assert durable.position.epoch <= reported
    heir = site.start("heir", "disk_1")
    assert heir.ends() == 0
    assert heir.has_said(f"goes on after epoch {durable.position.epoch}")
    trial = site.trial
    assert_each_epoch_once(trial)
    assert {epoch: seconds_of(trial)[epoch] for epoch in unsent} == unsent
    assert (site.lease.token, site.outbox("disk_1")) == (2, {})


@pytest.mark.slow
def test_on_another_machine_the_trial_goes_on_from_its_durable_snapshot_and_the_late_outbox_is_dropped(
    site: Site,
) -> None:
    reported, unsent = killed_in_an_outage(site)
    durable = site.lease.snapshot
    assert durable is not None
    log = site.folder / "fired elsewhere"
    after_one_more = f"batch-done=stop@{reported + 2 - durable.position.epoch}"
    elsewhere = site.start("elsewhere", "disk_2", TUNE_FAULTS=after_one_more, TUNE_FAULTS_LOG=str(log))
    elsewhere.wait_for(f"goes on after epoch {durable.position.epoch}")
    stopped = stopped_by(log)
    elsewhere.wait_for(f"trial 0 epoch {reported + 1}/")
    interrupt_stopped(elsewhere.said, stopped, lambda: elsewhere.process.send_signal(signal.SIGTERM), "SIGTERM")
    assert elsewhere.ends() == 75
    assert len(site.outbox("disk_1")) >= len(unsent)
    last = site.start("last", "disk_1")
    assert last.ends() == 0
    trial = site.trial
    assert_each_epoch_once(trial)
    assert not {seconds_of(trial)[epoch] for epoch in unsent} & set(unsent.values())
    assert (site.lease.token, site.outbox("disk_1")) == (3, {})
    assert run("--study", str(site.study), cwd=site.folder).returncode == 0  # undisturbed, in ./tune-home
    (expected,) = essence(load(site.folder / "tune-home"))
    (survived,) = essence(optuna.load_study(study_name="small", storage=site.url))
    assert survived == expected


# ---- what nobody foresaw ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_whose_upload_fails_for_an_unknown_reason_ends_and_the_next_one_finishes_its_trial(site: Site) -> None:
    log = site.folder / "fired"
    broken = site.start("broken", "disk_1", TUNE_FAULTS="upload-verified=raise@1", TUNE_FAULTS_LOG=str(log))
    assert broken.ends() == 1
    assert fired(log) == ["upload-verified"]
    assert "the upload of snapshots has failed" in broken.said.text()
    heir = site.start("heir", "disk_1")
    assert heir.ends() == 0
    assert_each_epoch_once(site.trial)
