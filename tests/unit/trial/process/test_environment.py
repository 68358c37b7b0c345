"""What a trial's process may know: a list of what its libraries read, and nothing that is not on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from petskin_tune.trial.process.environment import child_environment, inherited, without_arguments
from petskin_tune.trial.process.runner import Runner

SECRETS = {
    "TUNE_STORAGE": "postgresql://me:secret@host/db",
    "AWS_SECRET_ACCESS_KEY": "x",
    "PGPASSWORD": "x",
    "MYSQL_PWD": "x",
    "HF_TOKEN": "x",
    "KAGGLE_KEY": "x",
    "KAGGLE_USERNAME": "x",
    "X_DSN": "https://key@sentry.example/1",
    "REDIS_URL": "redis://:secret@host",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "MY_PRIVATE_KEY": "x",
    "ULTRALYTICS_API_KEY": "x",
    "NVIDIA_API_KEY": "x",
    "YOLO_API_KEY": "x",
    "PYTHON_KEYRING_PASSPHRASE": "x",
    "TORCH_HUB_TOKEN": "x",
    "HTTPS_PROXY": "http://me:secret@proxy:3128",
    "http_proxy": "me:secret@proxy:3128",
    "PIP_INDEX_URL": "https://me:secret@index/simple",
    "TORCH_HOME": "s3://me:secret@bucket",
}
NEEDED = {
    "PATH": "/bin",
    "HOME": "/home/me",
    "OMP_NUM_THREADS": "2",
    "CUDA_VISIBLE_DEVICES": "1",
    "LD_LIBRARY_PATH": "/usr/local/cuda/lib64",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C.UTF-8",
    "HTTP_PROXY": "http://proxy:3128",
    "no_proxy": "localhost",
    "TUNE_FAULTS": "",
}


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_reaches_the_process_of_a_trial(name: str, tmp_path: Path) -> None:
    assert name not in child_environment({**NEEDED, name: SECRETS[name]}, tmp_path, tmp_path)


@pytest.mark.parametrize("name", NEEDED)
def test_what_its_libraries_read_reaches_it(name: str, tmp_path: Path) -> None:
    assert child_environment({**NEEDED, **SECRETS, name: NEEDED[name]}, tmp_path, tmp_path)[name] == NEEDED[name]


@pytest.mark.parametrize(
    ("given", "kept"), [(":/mine", "/mine"), ("/mine:", "/mine"), ("", None), (":", None), ("/a::/b", "/a:/b")]
)
def test_a_colon_too_many_puts_no_current_folder_on_its_path(given: str, kept: str | None, tmp_path: Path) -> None:
    assert child_environment({"PYTHONPATH": given}, tmp_path, tmp_path).get("PYTHONPATH") == kept


def test_what_multiprocessing_hands_on_is_neither_arguments_nor_the_current_folder(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tune-worker", "--storage", "postgresql://me:secret@host/db"])
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/elsewhere"])
    before = (dict(os.environ), sys.argv, sys.path)
    with inherited({"PATH": "/bin"}), without_arguments():
        assert (dict(os.environ), sys.argv, sys.path) == ({"PATH": "/bin"}, ["tune-worker"], ["/elsewhere"])
    assert (dict(os.environ), sys.argv, sys.path) == before


def test_while_a_forkserver_is_waited_for_other_threads_have_their_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    class Process:
        name, pid = "trial 0", 1

        def __init__(self, **_: object) -> None:
            """Nothing is started."""

        def start(self) -> None:
            seen.append(os.environ.get("PGPASSWORD"))

    monkeypatch.setenv("PGPASSWORD", "secret")
    runner = Runner(tmp_path)
    assert runner._has_forkserver
    monkeypatch.setattr(runner._context, "Process", Process, raising=False)
    monkeypatch.setattr(runner, "warm_up", lambda: None)
    monkeypatch.setattr("petskin_tune.trial.process.runner.TrialProcess", lambda *_: None)
    job = SimpleNamespace(trial=0, run_folder=str(tmp_path))
    runner.start(cast(Any, job), lambda _: None)
    assert seen == ["secret"]
