"""How a worker hears its trial's process, frees a run folder that is still in use, and what the process may know."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from petskin_tune.trial.process.runner import Died, TrialProcess, free_folder

HOLD = (
    "import fcntl, sys, time\nfile = open(sys.argv[1], 'a')\nfcntl.flock(file, fcntl.LOCK_EX)\nprint(1, flush=True)\n"
)


def _holder(folder: Path, code: str) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD + code, str(folder / "lock")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "1\n"
    return holder


def _say_twice_and_stay(connection: Connection) -> None:
    connection.send("one")
    connection.send("two")
    time.sleep(600)


def test_what_a_listener_could_not_take_is_kept_and_the_end_of_the_process_is_told_all_the_same() -> None:
    told: list[Any] = []

    def take(event: Any) -> None:
        told.append(event)
        raise RuntimeError(f"cannot take {event}")

    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_say_twice_and_stay, args=(theirs,))
    process.start()
    theirs.close()
    trial = TrialProcess(process, ours, take)
    try:
        deadline = time.monotonic() + 240.0
        while trial.error is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not trial.wait(0.5)  # the process lives, whatever became of its listener
        trial.end(patience=0.0)
        assert not process.is_alive()
        assert told == ["one", Died(-9)]
        assert str(trial.error) == "cannot take one"
    finally:
        process.kill()


def test_a_folder_without_a_lock_is_free(tmp_path: Path) -> None:
    assert free_folder(tmp_path)


def test_the_process_that_holds_the_folder_and_does_not_end_is_killed_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    holder, other = _holder(tmp_path / "a", "time.sleep(600)"), _holder(tmp_path / "b", "time.sleep(600)")
    try:
        assert free_folder(tmp_path / "a", patience=0.1, kill_seconds=120.0)
        assert holder.wait(120) == -9
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_holder_that_ends_by_itself_is_left_to_it(tmp_path: Path) -> None:
    holder = _holder(tmp_path, "time.sleep(0.3)")
    assert free_folder(tmp_path, patience=240.0)
    assert holder.wait(120) == 0


def test_a_folder_whose_holder_is_out_of_sight_is_not_free(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    holder = _holder(tmp_path, "time.sleep(600)")
    monkeypatch.setattr(
        "petskin_tune.trial.process.runner._holders", lambda _lock: []
    )  # as /proc/locks shows another container's
    try:
        assert not free_folder(tmp_path, patience=0.1, kill_seconds=0.2)
    finally:
        holder.kill()
        holder.wait()
