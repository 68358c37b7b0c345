"""SIGTERM and Ctrl-C at every stage of a worker's life: exit code 75 in time, and nothing lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from petskin_tune.database.storage import open_storage
from petskin_tune.leases.lease import read_leases
from petskin_tune.study.study import find_study
from tests.support.places import PROVOKED
from tests.support.servers import Server, running_server
from tests.support.soak import times
from tests.support.workers import (
    SMALL_STUDY,
    UNREACHABLE,
    Process,
    has_ended,
    load,
    run,
    stopped_by,
    wait_until,
    write_study,
)
from tests.support.workers import start as start_worker

IN_TIME = (
    120.0  # seconds from SIGTERM to the exit: a watchdog; the twelve that are promised are those of a free machine
)
LONG = 400  # epochs: more than are trained before a signal comes
SHORT = {"epochs": 1, "train": {**SMALL_STUDY["train"], "close_mosaic": 0, "warmup_epochs": 0}}
OVER = "the time is over before everything was done"
SUSPENDED = "suspended; to go on, type: tune-worker --study "

_started: list[Process] = []


def start(*arguments: str, cwd: Path, **more: str) -> Process:
    _started.append(start_worker(*arguments, cwd=cwd, **more))
    return _started[-1]


@pytest.fixture(autouse=True)
def _no_worker_outlives_its_test() -> Iterator[None]:
    yield
    while _started:
        worker = _started.pop()
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def wait_for_handlers(worker: Process) -> None:
    """Until Python itself has started and SIGTERM is caught."""
    status = Path(f"/proc/{worker.pid}/status")
    bit = 1 << (signal.SIGTERM - 1)

    def caught() -> bool:
        line = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        return bool(int(line.split()[1], 16) & bit)

    wait_until(caught)


def wait_for(worker: Process, text: str) -> str:
    """Read what the worker prints up to the line with ``text``."""
    assert worker.stdout is not None
    read = ""
    for line in worker.stdout:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} was never printed:\n{read}")


def ends_in_time(worker: Process, number: int = signal.SIGTERM) -> str:
    """What it printed, after a signal on which it must suspend in full, and end with exit code 75."""
    worker.send_signal(number)
    worker.wait(timeout=IN_TIME)
    output, _ = worker.communicate(timeout=IN_TIME)  # the pipe's other end: a forkserver ends after its imports
    assert worker.returncode == 75, output
    assert OVER not in output
    assert output.splitlines()[-1].startswith(SUSPENDED), output
    assert "Traceback" not in output
    return output


def trial_process(worker: Process) -> psutil.Process:
    """The process that trains: the forkserver's child."""
    found: list[psutil.Process] = []

    def there() -> bool:
        children = psutil.Process(worker.pid).children(recursive=True)
        found[:] = [child for child in children if child.ppid() != worker.pid]
        return bool(found)

    wait_until(there)
    return found[0]


def states(storage: str) -> list[str]:
    study = find_study(open_storage(storage), "small")
    if study is None:  # the signal came between the database's creation and the study's
        return []
    return [lease.state for lease in read_leases(study.storage, study.id)]


def test_sigterm_while_the_command_is_imported_ends_it_and_the_next_one_runs_to_the_end(tmp_path: Path) -> None:
    study = write_study(tmp_path, **SHORT, target_trials=UNREACHABLE)
    worker = start("--study", str(study), cwd=tmp_path)
    wait_for_handlers(worker)
    ends_in_time(worker)
    again = run("--study", str(study), "--target-trials", "1", cwd=tmp_path)
    assert again.returncode == 0, again.stdout


def test_sigterm_before_the_first_batch_gives_the_trial_back_at_once(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=LONG)
    worker = start("--study", str(study), cwd=tmp_path)
    wait_for(worker, "trial 0 (0 of 1 trial done) starts")  # its process imports, or sets its training up
    ends_in_time(worker)
    assert states(f"sqlite:///{tmp_path / 'tune-home' / 'tune.db'}") == ["released"]


@pytest.mark.slow
def test_a_process_that_does_not_answer_delays_nobody_and_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=LONG)
    worker = start("--study", str(study), cwd=tmp_path)
    wait_for(worker, f"trial 0 epoch 1/{LONG}")
    trial_process(worker).suspend()
    ends_in_time(worker)  # its process is waited for, and then killed
    worker = start("--study", str(study), cwd=tmp_path)
    wait_for(worker, "goes on after epoch")
    wait_for(worker, "trial 0 epoch")
    child = trial_process(worker)
    child.suspend()
    worker.send_signal(signal.SIGINT)
    wait_for(worker, "Ctrl-C: stopping safely")
    worker.send_signal(signal.SIGINT)
    wait_for(worker, "stopped at once")
    assert worker.wait(timeout=IN_TIME) == 75  # its pipe stays open: the stopped process holds it
    assert states(f"sqlite:///{tmp_path / 'tune-home' / 'tune.db'}") == ["running"]
    again = start("--study", str(study), cwd=tmp_path)
    wait_for(again, "goes on after epoch")
    wait_until(lambda: has_ended(child))  # its watchdog was stopped with it: the next worker ends it
    ends_in_time(again)


def test_sigterm_while_a_worker_waits_for_anothers_lease_ends_it(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=LONG, lease="600s")
    log = tmp_path / "fired"
    # Not inside a transaction, and with its trial's process, whose epochs would have to be reported in the end.
    faults = {"TUNE_FAULTS": "report-sent=stop@1;epoch-event-sent=stop@1", "TUNE_FAULTS_LOG": str(log)}
    owner = start("--study", str(study), cwd=tmp_path, **faults)
    stopped = stopped_by(log, count=2)
    assert owner.pid in stopped
    try:
        waiting = start("--study", str(study), cwd=tmp_path)
        wait_for(waiting, "trial 0 is held by")
        ends_in_time(waiting)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    ends_in_time(owner)


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.mark.slow
def test_sigterm_during_an_outage_ends_in_time_and_what_waited_is_sent_by_the_next_worker(
    tmp_path: Path, server: Server
) -> None:
    study = write_study(tmp_path, target_trials=1, epochs=7)
    url = server.new_database()
    log = tmp_path / "fired"
    faults = {"TUNE_FAULTS": "report-sent=stop@2", "TUNE_FAULTS_LOG": str(log)}
    worker = start("--study", str(study), cwd=tmp_path, TUNE_STORAGE=url, **faults)
    assert stopped_by(log) == [worker.pid]
    server.stop()
    worker.send_signal(signal.SIGCONT)
    wait_for(worker, "trial 0 epoch 4/7")
    ends_in_time(worker)
    server.start()
    again = run("--study", str(study), cwd=tmp_path, TUNE_STORAGE=url)
    assert again.returncode == 0, again.stdout
    opened = find_study(open_storage(url), "small")
    assert opened is not None
    (trial,) = opened.trials()
    assert list(trial.intermediate_values) == list(range(1, 8))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_sigterms_at_random_instants_lose_nothing_and_repeat_no_batch(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=UNREACHABLE, epochs=60)
    log = tmp_path / "batches"
    log.touch()
    count = {
        "TUNE_FAULTS_PLAN": ";".join(f"{number}=count" for number in range(1000)),
        "TUNE_FAULTS_HAPPENED": str(log),
    }
    instants = random.Random(11)
    slowest = 0.0
    lives = times(50, least=12)
    for life in range(lives):
        worker = start("--study", str(study), cwd=tmp_path, PYTHONPATH=str(PROVOKED), **count)
        wait_for_handlers(worker)
        if life % 2:
            before = log.stat().st_size
            wait_until(lambda before=before: log.stat().st_size > before)  # its trial trains
        time.sleep(instants.uniform(0.0, 4.0 if life % 2 else 12.0))  # the instant is the test
        assert worker.poll() is None, worker.communicate()[0]
        began = time.monotonic()
        output = ends_in_time(worker)
        slowest = max(slowest, time.monotonic() - began)  # the end of the pipe included
        assert "waiting" not in output
        if (tmp_path / "tune-home" / "tune.db").exists():
            assert "running" not in states(f"sqlite:///{tmp_path / 'tune-home' / 'tune.db'}"), output
    done = Counter(log.read_text().splitlines())
    print(f"{done.total()} batches, {done.total() - len(done)} of them twice; the slowest exit took {slowest:.1f} s")
    assert max(done.values()) == 1
    trials = load(tmp_path / "tune-home").trials
    assert done.total() >= lives // 2
    for trial in trials:
        assert list(trial.intermediate_values) == list(range(1, len(trial.intermediate_values) + 1))
        assert not [note for note in trial.user_attrs.get("petskin-tune:notes", []) if "done again" in note]
