"""The log of a worker: what is in it, what is not, and that it never stands in a training's way."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from petskin_tune.worker import log as module
from petskin_tune.worker.log import MOST_FILES, WorkerLog, file_name

LOGGER = logging.getLogger("petskin_tune.leases")
SHOWN = logging.getLogger("petskin_tune.views.progress")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 120.0)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def log() -> Iterator[WorkerLog]:
    made = WorkerLog()
    yield made
    made.close()


def text(log: WorkerLog) -> str:
    log.close()
    assert log.path is not None
    return log.path.read_text(encoding="utf-8")


def test_every_line_has_its_time_with_the_zone_its_level_its_module_and_its_thread(
    tmp_path: Path, log: WorkerLog, said: list[str]
) -> None:
    log.open(tmp_path / "logs", "w1", said.append)
    LOGGER.debug("trial %d is claimed", 7)
    (line,) = text(log).splitlines()
    when, _, what = line.partition(" DEBUG ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", when)
    assert what == "petskin_tune.leases [MainThread] trial 7 is claimed"
    assert log.path == tmp_path / "logs" / "w1.log"
    assert said == []


def test_what_was_said_before_the_home_was_known_is_in_the_log(tmp_path: Path, log: WorkerLog, said: list[str]) -> None:
    SHOWN.info("the study is opened")
    log.open(tmp_path, "w1", said.append)
    SHOWN.info("trial 0 starts")
    assert [line.rpartition("] ")[2] for line in text(log).splitlines()] == ["the study is opened", "trial 0 starts"]


def test_a_failure_is_logged_with_its_traceback_and_without_secrets(
    tmp_path: Path, log: WorkerLog, said: list[str]
) -> None:
    log.open(tmp_path, "w1", said.append)
    try:
        raise ValueError("postgresql://tuner:hunter2@host/tune does not answer")
    except ValueError:
        LOGGER.exception("it ends, api_key=abc123")
    written = text(log)
    assert "Traceback (most recent call last):\n" in written
    assert "ValueError: postgresql://tuner:***@host/tune does not answer" in written
    assert "abc123" not in written


def test_controls_and_undecodable_names_are_spelled_out(
    tmp_path: Path, log: WorkerLog, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("petskin_tune"), "propagate", False)  # xdist cannot carry it
    log.open(tmp_path, "w1", said.append)
    LOGGER.info("피부 \x1b[2J %s", os.fsdecode(b"\xc7.jpg"))
    assert text(log).endswith("피부 \\x1b[2J \\xc7.jpg\n")


def test_a_log_is_rotated_and_the_oldest_part_goes(
    tmp_path: Path, log: WorkerLog, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2000)
    log.open(tmp_path, "w1", said.append)
    for number in range(200):
        LOGGER.info("line %d %s", number, "x" * 50)
    assert text(log).endswith(f"line 199 {'x' * 50}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w1.log", "w1.log.1", "w1.log.2", "w1.log.3"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())


def test_of_many_logs_the_oldest_are_deleted_and_other_files_stay(
    tmp_path: Path, log: WorkerLog, said: list[str]
) -> None:
    for number in range(MOST_FILES + 5):
        path = tmp_path / f"old-{number:03d}.log"
        path.write_text("")
        os.utime(path, (number, number))
    (tmp_path / "notes.txt").write_text("mine")
    log.open(tmp_path, "w1", said.append)
    LOGGER.info("a line")
    assert text(log)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["notes.txt", *(f"old-{number:03d}.log" for number in range(5, MOST_FILES + 5)), "w1.log"]


@pytest.mark.parametrize("trouble", ["a file is the folder", "a link is the file", "a folder is the file"])
def test_a_log_that_cannot_be_written_is_told_once_and_done_without(
    tmp_path: Path, log: WorkerLog, said: list[str], trouble: str
) -> None:
    folder = tmp_path / "logs"
    victim = tmp_path / "victim"
    victim.write_text("mine")
    if trouble == "a file is the folder":
        folder.write_text("")
    elif trouble == "a link is the file":
        folder.mkdir()
        (folder / "w1.log").symlink_to(victim)
    else:
        (folder / "w1.log").mkdir(parents=True)
    log.open(folder, "w1", said.append)
    LOGGER.info("one")
    LOGGER.info("two")
    log.close()
    (sentence,) = said
    assert re.fullmatch(r"The log .*/logs/w1\.log cannot be written \(.+\); the worker goes on without\.", sentence)
    assert victim.read_text() == "mine"


def test_a_disk_that_hangs_keeps_nobody_waiting(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(module, "MOST_WAITING", 100)
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.05)
    monkeypatch.setattr(module, "open_regular", lambda *_, **__: answers.wait() and os.open(os.devnull, os.O_WRONLY))
    log = WorkerLog()
    log.open(tmp_path, "w1", said.append)
    for number in range(1000):
        LOGGER.info("line %d", number)
    log.close()
    assert not answers.is_set()
    answers.set()


def test_a_closed_log_hears_nothing_more_and_leaves_no_handler(tmp_path: Path, said: list[str]) -> None:
    before = [list(logging.getLogger(name).handlers) for name in module.LOGGERS]
    log = WorkerLog()
    log.open(tmp_path, "w1", said.append)
    LOGGER.info("one")
    log.close()
    LOGGER.warning("two")
    assert "two" not in text(log)
    assert [list(logging.getLogger(name).handlers) for name in module.LOGGERS] == before


def test_verbose_shows_what_the_view_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    log = WorkerLog(verbose=True)
    LOGGER.info("trial 7 is claimed")
    SHOWN.info("trial 7 starts")
    log.close()
    shown = capsys.readouterr()
    assert "trial 7 is claimed" in shown.err
    assert "trial 7 starts" not in shown.err + shown.out


def test_without_a_log_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    LOGGER.warning("the lease could not be renewed")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("worker", ["host-123", "gpu_0", "a.b"])
def test_a_plain_name_is_the_files(worker: str) -> None:
    assert file_name(worker) == worker


def test_any_name_makes_a_file_of_its_own_in_the_folder() -> None:
    names = ["../../x", "a/b", "a_b", "피부", "피무", "x" * 300, "y" * 300, "", ".", "..", "\x1b", "\udcc7", "a\0b"]
    files = {file_name(name) for name in names}
    assert len(files) == len(names)
    assert all(re.fullmatch(r"[\w.-]{1,80}", file) and not file.startswith(".") for file in files)
