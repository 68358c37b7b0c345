"""One process for each device: what it is told, what it does not show, and how several ends make one exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.interrupts import Signals
from petskin_tune.worker.devices import RESTARTS, WorkerProcesses, device_list, visible_gpus, worst
from tests.support.workers import Said, wait_until

SAY = "import sys; from pathlib import Path; Path(sys.argv[1][2:]).write_bytes(sys.stdin.buffer.read()"
ARGUMENTS = "+ Path('/proc/self/cmdline').read_bytes())"


def test_a_process_reads_its_request_and_shows_nothing_of_it_among_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    requests = {"0": b"postgresql://me:secret@host/tune", "1": b"another"}
    with Signals() as signals:
        assert WorkerProcesses(signals).work(SAY + ARGUMENTS, requests) == 0
    for device, request in requests.items():
        said = (tmp_path / f"device={device}").read_bytes()
        assert said.startswith(request)
        assert said.count(b"secret") == request.count(b"secret")


def test_a_process_that_ends_before_it_reads_is_judged_by_its_exit_code() -> None:
    with Signals() as signals:
        assert WorkerProcesses(signals).work("raise SystemExit(2)", {"0": bytes(1 << 20)}) == 2


def test_a_signal_that_came_before_the_start_ends_processes_that_cannot_hear_it_yet() -> None:
    with Signals() as signals:
        signals.came = "SIGTERM"
        processes = WorkerProcesses(signals)
        assert processes.work("import time; time.sleep(600)", {"0": b"", "1": b""}) == 75
    assert processes.seconds_since_sigterm() > 0


def test_a_worker_that_dies_is_started_again_while_another_one_lives(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first device's dies twice; the second's waits for its third life."""
    program = f"""
import os, sys, time
from pathlib import Path
lives = Path({str(tmp_path)!r})
if sys.argv[1] == "--device=0":
    (lives / str(os.getpid())).touch()
    os.kill(os.getpid(), 9) if len(list(lives.iterdir())) < 3 else sys.exit(0)
while len(list(lives.iterdir())) < 3:
    time.sleep(0.05)
time.sleep(1.0)
"""
    with Signals() as signals:
        assert WorkerProcesses(signals).work(program, {"0": b"", "1": b""}) == 0
    assert capfd.readouterr().err.count("the worker of device 0 has ended with exit code -9: it is started again") == 2


def test_a_worker_that_dies_again_and_again_is_left_alone(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
lives = Path({str(tmp_path)!r})
if sys.argv[1] == "--device=0":
    (lives / str(os.getpid())).touch()
    sys.exit(3)
while len(list(lives.iterdir())) < {RESTARTS + 1}:
    time.sleep(0.05)
time.sleep(1.0)
"""
    with Signals() as signals:
        assert WorkerProcesses(signals).work(program, {"0": b"", "1": b""}) == 1
    assert len(list(tmp_path.iterdir())) == RESTARTS + 1


def test_a_worker_that_is_started_again_is_told_what_holds_by_then(tmp_path: Path) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
told = Path({str(tmp_path)!r}) / sys.argv[1][2:]
with told.open("ab") as file:
    file.write(sys.stdin.buffer.read() + b" ")
if sys.argv[1] == "--device=0":
    os.kill(os.getpid(), 9) if told.read_bytes() == b"first " else sys.exit(0)
while (told.parent / "device=0").read_bytes().count(b" ") < 2:
    time.sleep(0.05)
"""
    (tmp_path / "device=0").touch()
    with Signals() as signals:
        first, again = dict.fromkeys("01", b"first"), dict.fromkeys("01", b"again")
        assert WorkerProcesses(signals).work(program, first, again) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "device=0": "first again ",
        "device=1": "first ",
    }


PARENT = """
import sys
from petskin_tune.interrupts import Signals
from petskin_tune.worker.devices import WorkerProcesses
with Signals() as signals:
    raise SystemExit(WorkerProcesses(signals).work(sys.argv[1], {"0": b"", "1": b""}))
"""
WORKER = """
import os, sys, time
from pathlib import Path
from petskin_tune.interrupts import Signals

class Heard(Signals):
    def _handle(self, number, frame):
        os.write(1, f"heard {number}\\n".encode())
        super()._handle(number, frame)

with Heard(of_child=True) as signals:
    signals.last_words = "stopped at once"
    signals.tell(lambda name: os.write(1, f"told {name}\\n".encode()))
    os.write(1, b"ready\\n")
    while not Path("saved").exists():
        time.sleep(0.05)
os.write(1, b"suspended\\n")
os._exit(75)
"""


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[Said]:
    """A parent of two workers that take their time to suspend, in a process group of its own, as under a shell."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, WORKER],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    parent = Said(process)
    try:
        parent.wait_for("ready", times=2)
        yield parent
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_ctrl_c_that_the_parent_alone_is_sent_suspends_all_workers(two_workers: Said, tmp_path: Path) -> None:
    os.kill(two_workers.pid, signal.SIGINT)
    two_workers.wait_for("told SIGINT", times=2)
    assert two_workers.count(f"heard {signal.SIGINT:d}") == 0, "nobody else has sent it"
    (tmp_path / "saved").touch()
    output = two_workers.end()
    assert (two_workers.returncode, output.count("suspended")) == (75, 2), output


def test_a_ctrl_c_that_a_terminal_sends_to_the_group_is_one_and_no_second(two_workers: Said, tmp_path: Path) -> None:
    os.killpg(two_workers.pid, signal.SIGINT)
    wait_until(lambda: two_workers.count("heard ") == 4)  # the terminal's and the parent's, by each
    (tmp_path / "saved").touch()
    output = two_workers.end()
    assert (two_workers.returncode, output.count("suspended"), output.count("at once")) == (75, 2, 0), output


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["the parent alone", "the group"])
def test_a_second_ctrl_c_ends_all_workers_at_once(send: Callable[[int, int], None], two_workers: Said) -> None:
    send(two_workers.pid, signal.SIGINT)
    two_workers.wait_for("told SIGINT", times=2)
    send(two_workers.pid, signal.SIGINT)
    output = two_workers.end()
    assert (two_workers.returncode, output.count("suspended"), output.count("stopped at once")) == (75, 0, 2), output


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([0, 75], 75), ([75, 2, 0], 2), ([0, 1], 1), ([2, 1], 1), ([75, -9], 1)],
)
def test_the_worst_of_several_exit_codes_counts(codes: list[int], code: int) -> None:
    assert worst(codes) == code


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("", [""]),
        ("cpu", ["cpu"]),
        ("0", ["0"]),
        ("0, 2", ["0", "2"]),
        ("all", ["0", "1", "2"]),
        ("cuda", ["0"]),
        ("cuda:2", ["2"]),
        ("cuda:002", ["2"]),
        ("cuda:0,cuda:1", ["0", "1"]),
        ("01,cpu", ["1", "cpu"]),
    ],
)
def test_a_list_names_devices(text: str, devices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    assert device_list(text) == devices


@pytest.mark.parametrize("text", ["fast", "0,", "0,0", "all", "0,cuda:0", "cuda:x", "gpu", "²", "cuda:" + "9" * 5000])
def test_a_list_that_names_none_or_one_twice_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    with pytest.raises(UsageError, match=f"--device {text[:50]}"):
        device_list(text)


@pytest.mark.parametrize(
    ("visible", "text", "said"),
    [
        ("0,1", "2", "there is no GPU 2 here; visible are 0, 1."),
        ("0", "cuda:1", "there is no GPU 1 here; visible are 0."),
        ("", "0", "there is no GPU 0 here; none is visible: name cpu, or leave it out."),
    ],
)
def test_a_gpu_that_is_not_here_is_refused(visible: str, text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("petskin_tune.worker.devices._OTHER_DRIVERS", ())
    with pytest.raises(UsageError) as refused:
        device_list(text)
    assert str(refused.value) == f"--device {text}: {said}"


def test_a_driver_that_does_not_list_its_gpus_is_asked_when_a_trial_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("petskin_tune.worker.devices._OTHER_DRIVERS", (tmp_path,))
    assert device_list("0") == ["0"]


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        ("-1", []),
        ("NoDevFiles", []),
        ("", []),
        ("0,-1,1", ["0"]),
        ("4,7", ["0", "1"]),
        ("GPU-8932f937,MIG-a1", ["0", "1"]),
        ("0,0", []),
        ("none", []),
    ],
)
def test_gpus_are_visible_up_to_the_first_entry_that_is_none(
    visible: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == gpus


def test_mps_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UsageError, match="--device mps: there is no mps here"):
        device_list("mps")


def test_a_process_looks_no_module_up_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue.py").write_text("raise RuntimeError('of the current folder')")
    with Signals() as signals:
        assert WorkerProcesses(signals).work("import queue", {"0": b""}) == 0
