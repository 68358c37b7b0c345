"""Whether another process lives: told by processes that live, die, stop and leave their pid to others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import pytest

from petskin_tune import identity
from petskin_tune.identity import Identity

SAY_WHO = "import sys; from petskin_tune.identity import Identity; print(Identity.mine().to_json(), flush=True); "


def _other(**how: Any) -> tuple[subprocess.Popen[str], Identity]:
    command = [sys.executable, "-c", SAY_WHO + "sys.stdin.read()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **how)
    assert process.stdout is not None
    return process, Identity.from_json(process.stdout.readline())


def test_this_process_lives_and_an_identity_survives_json() -> None:
    mine = Identity.mine()
    assert mine.is_alive() is True
    assert Identity.from_json(mine.to_json()) == mine


def test_another_process_lives_while_it_runs_or_is_stopped_and_is_dead_as_soon_as_it_was_killed() -> None:
    process, other = _other()
    assert other.pid == process.pid
    assert other.is_alive() is True
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    assert other.is_alive() is True
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and its parent has not looked: a zombie
    assert other.is_alive() is False
    process.communicate()
    assert other.is_alive() is False


def test_a_pid_that_another_process_has_now_is_not_the_same_process() -> None:
    assert replace(Identity.mine(), started=1).is_alive() is False


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"boot": "another boot"}, {"pid_namespace": "pid:[1]"}])
def test_of_another_host_boot_or_pid_namespace_nothing_can_be_known(change: dict[str, str]) -> None:
    process, other = _other()
    process.kill()
    process.communicate()
    assert replace(other, **change).is_alive() is None
    assert replace(Identity.mine(), **change).is_alive() is None


def test_where_there_is_no_boot_id_nothing_can_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_host", lambda: ("here", "", ""))
    assert Identity.mine().is_alive() is None


def test_a_process_that_proc_hides_is_not_called_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_process", lambda _pid: None)
    assert replace(Identity.mine(), pid=1).is_alive() is None


ASK_ABOUT = "import sys; from petskin_tune.identity import Identity; who = Identity.from_json(sys.argv[1]); "


def _is_sibling_of(other: Identity) -> bool:
    """What a new child of this process says."""
    command = [sys.executable, "-c", ASK_ABOUT + "print(who.is_living_sibling())", other.to_json()]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


def test_siblings_are_living_processes_that_one_command_started() -> None:
    process, other = _other()
    assert _is_sibling_of(other)
    assert not _is_sibling_of(Identity.mine())  # the parent
    assert not Identity.mine().is_living_sibling()
    process.kill()
    process.communicate()
    assert not _is_sibling_of(other)


def test_what_a_shell_with_jobs_started_before_is_no_sibling() -> None:
    process, other = _other(start_new_session=True)
    assert other.is_alive()
    assert not _is_sibling_of(other)
    process.kill()
    process.communicate()


def test_a_process_knows_its_age_to_a_hundredth_of_a_second() -> None:
    code = (
        "import time; ran = time.monotonic(); from petskin_tune.identity import process_age; "
        "first = time.monotonic(); age = process_age(); print(first - age, time.monotonic() - age, ran)"
    )
    for _ in range(5):
        before = time.monotonic()
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        earliest, latest, ran = map(float, told.stdout.split())
        assert before - 0.02 <= latest
        assert earliest <= ran + 0.02
