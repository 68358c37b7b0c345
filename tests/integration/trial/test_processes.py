"""What the processes of a trial know: no secret of the worker's, and no module of the folder where it was typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support import training as helpers
from tests.support.places import PROJECT

SECRET = "hunter2-of-the-worker"
PLANTED = {
    "KAGGLE_KEY": SECRET,
    "HTTPS_PROXY": f"http://me:{SECRET}@proxy:3128",
    "X_DSN": f"https://{SECRET}@sentry.example/1",
    "MYSQL_PWD": SECRET,
    "REDIS_URL": f"redis://:{SECRET}@host",
    "SSH_AUTH_SOCK": f"/tmp/{SECRET}",
    "MY_PRIVATE_KEY": SECRET,
}
# A worker's place: it starts one trial, looks into its processes after an epoch, and says what it has found.
WORKER = """
import json, os, pickle, sys, threading
import psutil
from pathlib import Path
from petskin_tune.protocol import EpochDone, Failed, Started, Stop
from petskin_tune.trial.process.runner import Died, Runner

found, over = {"secrets": [], "processes": 0}, threading.Event()

if __name__ == "__main__":
    job, secret = pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[3].rpartition(":")[2].encode()

def readable(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            (start, end), rights = (int(side, 16) for side in line.split()[0].split("-")), line.split()[1]
            if rights.startswith("rw") and "[v" not in line:
                memory.seek(start)
                try:
                    yield memory.read(end - start)
                except OSError:
                    pass

def look(pid):
    found["processes"] += 1
    name = " ".join(psutil.Process(pid).cmdline())[:80]
    if secret in Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes():
        found["secrets"].append(f"{name}: environment or arguments")
    if any(secret in part for part in readable(pid)):
        found["secrets"].append(f"{name}: memory")

def hear(event):
    if over.is_set():
        return
    if isinstance(event, Started):
        found["version"] = event.machine["versions"]["ultralytics"]
    elif isinstance(event, EpochDone) and event.epoch == 1:
        processes = psutil.Process().children(recursive=True)
        for process in processes:
            process.suspend()
        for process in processes:
            look(process.pid)
        for process in processes:
            process.resume()
        over.set()
    elif isinstance(event, (Failed, Died)):
        found["failed"] = str(event)
        over.set()

if __name__ == "__main__":
    process = Runner(Path(sys.argv[2])).start(job, hear)
    over.wait(300)
    process.send(Stop())
    process.end()
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a worker found that was started where modules lie that are called as those of the standard library."""
    import pickle

    root = tmp_path_factory.mktemp("processes")
    here = root / "here"
    (here / "ultralytics").mkdir(parents=True)
    (here / "ultralytics" / "__init__.py").write_text('__version__ = "8.1.0"\n')
    for name in ("queue", "yaml", "selectors"):
        (here / f"{name}.py").write_text("raise RuntimeError('a module of the current folder')\n")
    job = helpers.job(root, "run", workers=1, arguments={"epochs": 1000})
    (root / "job").write_bytes(pickle.dumps(job))
    (root / "worker.py").write_text(WORKER)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TUNE_")}
    done = subprocess.run(
        [sys.executable, str(root / "worker.py"), str(root / "job"), str(root / "settings"), f"--storage:{SECRET}"],
        cwd=here,
        env={**environment, **PLANTED, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_trial_trains_whatever_lies_in_the_current_folder(found: dict) -> None:
    import ultralytics

    assert "failed" not in found
    assert found["version"] == ultralytics.__version__


def test_no_secret_of_the_worker_is_in_any_process_of_its_trial(found: dict) -> None:
    assert found["processes"] >= 4, "multiprocessing's tracker, the forkserver, the trial and its loader"
    assert found["secrets"] == []
