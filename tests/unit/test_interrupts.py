"""Work that can be left behind, and signals that ask to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.interrupts import Interrupted, Signals, unless


def test_work_that_nobody_interrupts_returns_its_result_and_raises_its_errors() -> None:
    def fails() -> None:
        raise UsageError("no such study")

    assert unless(lambda: False, lambda: 7) == 7
    with pytest.raises(UsageError, match="no such study"):
        unless(lambda: False, fails)


def test_work_is_left_behind_as_soon_as_a_stop_is_asked_for() -> None:
    begun, never = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        never.wait()

    with pytest.raises(Interrupted):
        unless(begun.is_set, work)
    assert not never.is_set()
    never.set()


def test_a_signal_that_came_before_the_worker_existed_is_told_to_it() -> None:
    told: list[str] = []
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.came == "SIGTERM"
        signals.tell(told.append)
    assert told == ["SIGTERM"]


def test_each_signal_that_came_before_is_told_once() -> None:
    """The second may leave less time than the first."""
    told: list[str] = []
    with Signals() as signals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        signals.tell(told.append)
    assert (signals.came, told) == ("SIGINT", ["SIGINT", "SIGTERM"])


def test_a_signal_is_told_from_a_thread_that_holds_no_lock_of_the_main_thread() -> None:
    told: list[threading.Thread] = []
    heard = threading.Event()

    def stop(_name: str) -> None:
        told.append(threading.current_thread())
        heard.set()

    with Signals() as signals:
        signals.tell(stop)
        os.kill(os.getpid(), signal.SIGINT)
        assert heard.wait(120)
    assert told[0] is not threading.main_thread()


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


TWICE = """
import os, signal
from petskin_tune.interrupts import Signals
with Signals() as signals:
    signals.last_words = "stopped at once"
    os.kill(os.getpid(), signal.SIGINT)
    print("the first is heard", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("never")
"""


def test_the_second_ctrl_c_ends_the_process_and_says_that_it_did() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (75, "the first is heard\nstopped at once\n")


CHILD = """
import os, signal, sys, time
from petskin_tune.interrupts import end_with_parent
end_with_parent(int(sys.argv[1]))
signal.signal(signal.SIGTERM, lambda *_: os._exit(os.write(1, b"told\\n") - 5))  # `print` may be interrupted by it
os.write(1, b"ready\\n")
time.sleep(60)
"""
PARENT = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
print(child.stdout.readline().decode(), end="", flush=True)
subprocess.Popen(["cat"], stdin=child.stdout)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_whose_parent_is_killed_hears_sigterm() -> None:
    command = [sys.executable, "-c", PARENT, CHILD]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "ready\ntold\n"
