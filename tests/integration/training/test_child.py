"""A trial's process: deaf to the terminal, ended with its worker, quick to obey, silent on the network."""

from __future__ import annotations

import fcntl
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from petskin_tune.protocol import (
    BestWeights,
    EpochDone,
    Failed,
    Finished,
    Progress,
    SnapshotWritten,
    Started,
    Stop,
    Suspend,
    Suspended,
)
from petskin_tune.training.attempts import run
from petskin_tune.training.trainer import ResumableTrainer
from tests.support import training as helpers
from tests.support.places import PROJECT

PATIENCE = 240.0  # seconds until a test gives up; the machine may be busy


@pytest.fixture(scope="module")
def finished(root):
    # A server that another module left here has imported something else, or nothing: the next start makes a new one.
    multiprocessing.forkserver._forkserver._stop()
    job = helpers.job(root, "finished", workers=1)
    helpers.live(job)  # the forkserver has imported everything afterwards
    job = helpers.job(root, "finished-again", workers=1)
    return job, helpers.live(job)


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_events_come_in_order_and_the_process_ends_well(finished):
    job, life = finished
    assert life.exit_code == 0
    assert isinstance(life.events[0], Started)
    assert isinstance(life.events[-1], Finished)
    assert [event.epoch for event in life.events if isinstance(event, EpochDone)] == [1, 2, 3, 4]
    started = life.events[0]
    assert (started.batch, started.batches, started.history) == (8, 6, ())
    assert started.arguments["lr0"] == job.arguments["lr0"]
    assert started.machine["threads"] == 1
    assert "ultralytics" in started.machine["versions"]


def test_the_process_found_torch_imported_by_the_forkserver(finished):
    assert {"torch", "ultralytics"} <= set(finished[1].events[0].preloaded)


def test_the_forkserver_is_out_of_the_terminals_reach(finished):
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    assert os.getsid(server) == server != os.getsid(0)
    ignored = next(
        line for line in Path(f"/proc/{server}/status").read_text().splitlines() if line.startswith("SigIgn")
    )
    mask = int(ignored.split()[1], 16)
    assert all(mask >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGTERM))


PRELOADING = """
import os, threading, torch
touched = []
for name in ("_cuda_getDeviceCount", "_cuda_init"):
    if hasattr(torch._C, name):
        setattr(torch._C, name, lambda name=name: touched.append(name))
import petskin_tune.training.process.preload
assert not touched and not torch.cuda.is_initialized(), touched
assert threading.active_count() == 1
assert len(os.listdir("/proc/self/task")) == 1, os.listdir("/proc/self/task")
"""


def test_what_the_forkserver_imports_touches_no_gpu_and_starts_no_thread():
    """Otherwise its forks could not use the GPU, or would wait for locks of threads that they do not have."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", PRELOADING], check=True, env=environment)


@pytest.mark.slow
def test_a_spawned_process_trains_as_well(root):
    life = helpers.live(helpers.job(root, "spawned", arguments={"epochs": 1}), method="spawn")
    assert isinstance(life.events[-1], Finished), life.events[-1]
    assert life.events[0].preloaded == ()


def test_a_model_of_ultralytics_is_its_own_though_the_current_folder_has_a_study_file_of_its_name(root, monkeypatch):
    here = root / "here"
    here.mkdir()
    (here / "yolov8-seg.yaml").write_text("study: yolov8-seg\nsearch: {mosaic: [0, 1]}\n")
    monkeypatch.chdir(here)
    job = helpers.job(root, "named", model="yolov8n-seg.yaml", arguments={"epochs": 1})
    life = helpers.live(job, method="spawn", react=lambda event: Stop() if isinstance(event, Started) else None)
    assert isinstance(life.events[0], Started), life.events
    assert isinstance(life.events[-1], Suspended), life.events[-1]


def test_what_the_process_prints_goes_to_its_log(finished, capfd):
    job, _ = finished
    log = Path(job.run_folder, "train.log").read_text()
    assert "optimizer:" in log
    assert capfd.readouterr() == ("", "")


def test_the_best_weights_load_in_ultralytics_and_predict_in_fp32(finished):
    from ultralytics import YOLO

    job, life = finished
    best = [event for event in life.events if isinstance(event, BestWeights)][-1]
    assert best.fitness == max(event.fitness for event in life.events if isinstance(event, EpochDone))
    model = YOLO(best.path)
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}
    assert model.names == {0: "papule", 1: "scale", 2: "ulcer"}
    image = next(Path(job.data).parent.glob("**/val/*.bmp"))
    (result,) = model.predict(image, imgsz=64, conf=0.0, device="cpu", verbose=False)
    assert result.orig_shape == (64, 64)


def test_results_csv_is_ultralytics_own(finished):
    import polars

    job, life = finished
    table = polars.read_csv(Path(job.run_folder, "results.csv"))
    metrics = [event.metrics for event in life.events if isinstance(event, EpochDone)]
    assert table.columns == ["epoch", "time", *metrics[0]]
    assert table["epoch"].to_list() == [1, 2, 3, 4]
    assert table["metrics/mAP50-95(M)"].to_list() == pytest.approx([row["metrics/mAP50-95(M)"] for row in metrics])


def test_snapshots_name_what_training_lost_to_them(finished):
    written = [event for event in finished[1].events if isinstance(event, SnapshotWritten)]
    assert all(event.seconds > 0 and event.size == Path(event.path).stat().st_size for event in written[-2:])


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_the_signals_of_a_terminal_do_not_reach_a_training(root, signal_number):
    sent = []

    def interrupt(event):
        if isinstance(event, EpochDone) and not sent:
            (process,) = holders(root / f"deaf-{signal_number}/lock")
            wait_until_stopped(process)
            os.killpg(process, signal_number)
            os.kill(process, signal.SIGCONT)
            sent.append(process)

    job = helpers.job(root, f"deaf-{signal_number}", workers=1)
    life = helpers.live(job, faults="epoch-event-sent=stop@1", react=interrupt)
    assert len(sent) == 1
    assert isinstance(life.events[-1], Finished), life.events[-1]


def wait_until_stopped(pid):
    """Wait for a process that stops itself, so that it is not done before something happens to it."""
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def holders(lock):
    """Return the processes that hold the lock (proc(5), /proc/locks)."""
    inode = lock.stat().st_ino
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(row[4]) for row in rows if row[1] == "FLOCK" and int(row[5].split(":")[2]) == inode]


def is_locked(path):
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_the_run_folder_is_locked_while_the_process_lives_and_not_by_its_loaders(root):
    job = helpers.job(root, "locked", workers=2, arguments={"epochs": 1000})
    seen = {}

    def look(event):
        if isinstance(event, Progress) and "lock" not in seen:
            seen["lock"] = is_locked(Path(job.run_folder, "lock"))
            (seen["child"],) = holders(Path(job.run_folder, "lock"))
            loaders = psutil.Process(seen["child"]).children()
            assert loaders
            for loader in loaders:  # stopped loaders outlive the trial for a while
                loader.suspend()
                wait_until_stopped(loader.pid)
            os.kill(seen["child"], signal.SIGKILL)
            wait_until(lambda: not is_locked(Path(job.run_folder, "lock")))
            seen["alive"] = [loader.status() for loader in loaders]
            for loader in loaders:
                loader.kill()

    helpers.live(job, react=look)
    assert seen["lock"]
    assert set(seen["alive"]) == {psutil.STATUS_STOPPED}


def test_a_killed_loader_process_ends_the_process_and_not_the_trial(root):
    alone = helpers.live(helpers.job(root, "loader-alone", workers=1))
    job = helpers.job(root, "loader-killed", workers=1)
    children, killed = [], []

    def kill(event):
        if isinstance(event, Started):
            children.append(psutil.Process(event.pid))
        if isinstance(event, EpochDone) and event.epoch == 2:
            wait_until_stopped(children[0].pid)
            killed.append(children[0].children()[0])
            killed[0].kill()
            children[0].resume()

    life = helpers.live(job, faults="epoch-event-sent=stop@2", react=kill)
    assert len(killed) == 1
    assert life.exit_code == 1, "the worker takes that for a death"
    assert not [event for event in life.events if isinstance(event, (Failed, Finished))]
    (note,) = helpers.notes(life.events)
    assert note.startswith("its process ends of a fault of this machine: DataLoader worker (pid")
    assert "is killed by signal: Killed" in Path(job.run_folder, "train.log").read_text()
    resumed = helpers.live(replace(job, snapshot=life.snapshot))
    assert helpers.started_at(resumed).epoch >= 1
    assert isinstance(resumed.events[-1], Finished), resumed.events[-1]
    assert helpers.differences(*(helpers.final_state(root / f"loader-{run}") for run in ("alone", "killed"))) == []
    assert helpers.curve([life, resumed]) == helpers.curve([alone])


def test_a_fault_of_the_device_ends_the_process_and_not_the_trial(root, monkeypatch):
    def fail(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`")

    monkeypatch.setattr(ResumableTrainer, "optimizer_step", fail)
    recorder = helpers.Recorder()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        run(helpers.job(root, "device"), recorder)
    assert recorder.events[-1].message.endswith("CUDA error: an illegal memory access was encountered")


WORKER = """
import os, sys
sys.path.insert(0, {project!r})
from tests.support import training as helpers
from pathlib import Path
from petskin_tune.protocol import Progress

def tell(event):
    if isinstance(event, Progress):
        print("training", flush=True)

if __name__ == "__main__":
    helpers.live(helpers.job(Path({root!r}), "orphan", workers=1, arguments={{"epochs": 1000}}), react=tell)
"""


def test_a_training_and_its_loaders_end_when_their_worker_is_killed(root):
    helpers.job(root, "orphan")
    script = root / "worker.py"
    script.write_text(textwrap.dedent(WORKER).format(project=str(PROJECT), root=str(root)))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "training\n"
        (child,) = holders(root / "orphan/lock")
        family = [psutil.Process(child), *psutil.Process(child).children(recursive=True)]
        assert len(family) == 2
        assert os.getpgid(child) == child, "it leads a group of its own"
        worker.kill()
    gone, alive = psutil.wait_procs(family, timeout=PATIENCE)
    assert not alive
    assert len(gone) == 2


def test_an_order_to_suspend_is_obeyed_in_mid_epoch(root):
    job = helpers.job(root, "suspended", snapshot_every=1e9, arguments={"epochs": 1000})
    ordered = []

    def suspend(event):
        if isinstance(event, Progress) and event.position.epoch >= 1 and not ordered:
            ordered.append(event.position)
            return Suspend()
        return None

    life = helpers.live(job, react=suspend)
    assert len(ordered) == 1
    assert life.exit_code == 0
    assert isinstance(life.events[-1], Suspended)
    assert Path(life.events[-1].snapshot.path).exists()
    assert not life.events[-1].snapshot.position < ordered[0]


def test_a_second_process_in_the_folder_does_not_start(root):
    job = helpers.job(root, "twice", arguments={"epochs": 1})
    Path(job.run_folder).mkdir()
    with open(Path(job.run_folder, "lock"), "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        life = helpers.live(job)
    assert life.events == []
    assert life.exit_code == 1


def test_a_training_asks_nothing_of_the_network(root):
    """Every attempt to connect or to look a name up would be written to this file."""
    witness = root / "network"
    life = helpers.live(helpers.job(root, "offline", arguments={"epochs": 1}), witness=witness)
    assert isinstance(life.events[-1], Finished), life.events[-1]
    assert witness.read_text() == "watching\n"
