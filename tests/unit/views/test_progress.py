from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from petskin_tune import text as words
from petskin_tune.columns import width
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.views.live import LiveProgress
from petskin_tune.views.progress import Progress
from petskin_tune.views.screen import NOTEBOOK_VARIABLES, open_progress

SIX_DONE = Extent(6, 60)
PARAMS = {"lr0": 9.8e-05, "optimizer": "AdamW"}


@pytest.fixture
def no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NOTEBOOK_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_whole_life(progress: Progress) -> None:
    progress.study("petskin", SIX_DONE, best=0.131, home="/content/drive/MyDrive/petskin")
    progress.waiting(7, "colab-1", 41.0)
    progress.trial_started(7, SIX_DONE, PARAMS, 27, 0.131, 2, Position(11, 40))
    progress.batch(Position(11, 41), 250, {"box_loss": 1.25}, 43.0)
    progress.outage(40.0, 3)
    progress.outage_over(61.0)
    progress.outage(5.0, None)
    safe = words.durable(Position(12, 0), 12, "Drive")
    progress.epoch(7, 12, 27, 0.118, 0.121, 0.131, safe, seconds=95.0, loss=2.3123)
    progress.note("the store answered EIO;\n trying again")
    progress.trial_ended(7, "pruned", 0.121, 754.0, "epoch 12 is not in the best third")
    progress.trial_ended(8, "failed", None, 3.0, "out-of-memory: 15.1 GB asked for")
    progress.trial_ended(9, "complete", 0.2, 4000.0)
    progress.suspended("tune-worker --study petskin")
    progress.study_done(0.2, 9, "petskin-tune best --study petskin --yaml best.yaml")
    progress.close()


def test_an_epoch_is_one_plain_line_that_ends_in_what_is_safe() -> None:
    stream = io.StringIO()
    Progress(stream).epoch(7, 12, 27, 0.118, 0.121, 0.2, words.durable(Position(12, 0), 12, "Drive"))
    expected = "trial 7 epoch 12/27 mask mAP 0.118 (best 0.121) · safe to disconnect: epoch 12 is on Drive\n"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d {re.escape(expected)}", stream.getvalue())


def test_every_event_of_a_life_is_told_in_one_plain_line_each_and_batches_in_none() -> None:
    stream = io.StringIO()
    a_whole_life(Progress(stream, clock=Clock()))
    lines = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in stream.getvalue().splitlines()]
    assert lines == [
        "study petskin: 6 of 60 trials done, best mask mAP 0.131 · /content/drive/MyDrive/petskin",
        "trial 7 is held by colab-1 for another 41 s; waiting to go on with it should its owner be gone",
        "trial 7 (6 of 60 trials done) goes on after epoch 11 and 40 batches of epoch 12, 27 epochs: "
        "lr0=9.8e-05 optimizer=AdamW",
        "database away for 40 s; training goes on, 3 epochs wait on local disk",
        "database back after 61 s",
        "database away for 5 s; this worker waits",
        "trial 7 epoch 12/27 mask mAP 0.118 (best 0.121) · loss 2.31 · 95 s an epoch · 24 min left in this trial · "
        "safe to disconnect: epoch 12 is on Drive",
        "the store answered EIO; trying again",
        "trial 7 pruned after 13 min: epoch 12 is not in the best third · best mask mAP 0.121",
        "trial 8 failed after 3 s: out-of-memory: 15.1 GB asked for",
        "trial 9 finished after 1 h 7 min · best mask mAP 0.200",
        "suspended; to go on, type: tune-worker --study petskin",
        "study done: best mask mAP 0.200 (trial 9); next, type: petskin-tune best --study petskin --yaml best.yaml",
    ]


@pytest.mark.parametrize(
    ("position", "said"),
    [
        (Position(12, 0), "safe to disconnect: epoch 12 is on Drive"),
        (Position(12, 3), "safe to disconnect: epoch 12 and 3 batches of epoch 13 are on Drive"),
        (Position(11, 40), "a disconnect now would cost the training since epoch 11 and 40 batches of epoch 12"),
        (Position(0, 1), "a disconnect now would cost the training since 1 batch of epoch 1"),
        (None, "a disconnect now would cost the training from the start"),
    ],
)
def test_what_is_durable_is_never_said_to_be_more_than_the_store_holds(position: Position | None, said: str) -> None:
    assert words.durable(position, 12, "Drive") == said


def test_a_local_disk_is_safe_to_stop_but_never_called_safe_to_disconnect() -> None:
    assert words.durable(Position(3, 0), 3, words.place("runs")) == "safe to stop: epoch 3 is on this machine's disk"
    assert words.durable(None, 3, words.place("runs")) == "a power cut now would cost the training from the start"
    assert "safe to disconnect" in words.durable(Position(3, 0), 3, words.place("/mnt/share/p", network=True))


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("/content/drive/MyDrive/petskin/checkpoints", "Drive"),
        ("file:///content/drive/MyDrive/p", "Drive"),
        ("s3://bucket/folder", "s3://bucket"),
        ("home:checkpoints", "the study's home"),
        ("runs/checkpoints", "this machine's disk"),
    ],
)
def test_a_store_is_called_what_its_owner_calls_it(store: str, said: str) -> None:
    assert words.place(store) == said


@pytest.mark.parametrize("variable", NOTEBOOK_VARIABLES)
def test_a_notebook_gets_plain_lines_although_its_shell_is_a_terminal(
    variable: str, no_notebook: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_progress(Terminal()), LiveProgress)
    monkeypatch.setenv(variable, "1")
    assert type(open_progress(Terminal())) is Progress


def test_a_file_a_dumb_terminal_and_a_closed_stream_get_plain_lines(
    no_notebook: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(open_progress(io.StringIO())) is Progress
    closed = io.StringIO()
    closed.close()
    assert type(open_progress(closed)) is Progress
    monkeypatch.setenv("TERM", "dumb")
    assert type(open_progress(Terminal())) is Progress


def test_lines_written_by_many_threads_are_never_torn() -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    threads = [threading.Thread(target=lambda i=i: [progress.note(f"{i} " * 50) for _ in range(50)]) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 400
    assert all(len(set(line.split())) == 1 and len(line.split()) == 50 for line in lines)


def test_what_an_encoding_cannot_say_is_spelled_out_and_the_line_still_comes() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Progress(stream).note("safe · 반려견")
    assert raw.getvalue() == b"safe * \\ubc18\\ub824\\uacac\n"


SPEAK_UNTIL_NOBODY_LISTENS = """
import sys
from petskin_tune.views.screen import open_progress
progress = open_progress()
for number in range(5000):
    progress.note(f"line {number} " + "x" * 100)
progress.close()
print("survived", file=sys.stderr)
"""


def test_a_worker_outlives_the_pipe_it_writes_to() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SPEAK_UNTIL_NOBODY_LISTENS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("line 0")
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(240) == 0
    assert errors == "survived\n"


LIVE_UNTIL_THE_TERMINAL_IS_GONE = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.views.screen import open_progress
from petskin_tune.views.live import LiveProgress
progress = open_progress()
assert isinstance(progress, LiveProgress)
progress.trial_started(0, Extent(0, 3), {"lr0": 0.01}, 5, None, 0)
sys.stdin.readline()
for batch in range(1, 2000):
    progress.batch(Position(0, batch), 2000, {"box_loss": 1.0}, 9.0)
    progress.note("still here")
progress.trial_ended(0, "complete", 0.2, 3.0)
progress.close()
open(sys.argv[1], "w").write("survived")
"""


def test_a_worker_outlives_the_terminal_that_showed_its_live_view(tmp_path: Path) -> None:
    survived = tmp_path / "survived"
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in NOTEBOOK_VARIABLES}
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE_UNTIL_THE_TERMINAL_IS_GONE, str(survived)],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=environment | {"TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""
    while b"trial 0" not in seen:
        seen += os.read(ours, 4096)
    os.close(ours)
    process.communicate(b"\n", timeout=240)
    assert process.returncode == 0
    assert survived.read_text() == "survived"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_live_view_shows_bars_losses_scores_the_best_and_the_time_left() -> None:
    clock = Clock()
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=110, color_system=None, highlight=False)
    progress = LiveProgress(stream, clock=clock, console=console)
    progress.study("petskin", SIX_DONE, best=0.131, home="runs")
    progress.trial_started(6, SIX_DONE, PARAMS, 10, 0.131, 2)
    progress.trial_ended(6, "pruned", 0.05, 600.0)
    progress.trial_started(7, replace(SIX_DONE, done=7), PARAMS, 10, 0.131, 3)
    progress.batch(Position(0, 0), 100, {}, 0.0)
    clock.now = 60.0
    progress.epoch(7, 1, 10, 0.118, 0.118, 0.131, "safe to disconnect: epoch 1 is on Drive")
    clock.now = 90.0
    stream.truncate(0)
    progress.batch(Position(1, 50), 100, {"train/box_loss": 1.25}, 43.0)
    picture = stream.getvalue()
    for piece in (
        "petskin · trial 7, 7 of 60 trials done · study best 0.131 · 3 pruned",
        "lr0=9.8e-05 optimizer=AdamW",
        "2/10",
        "50/100",
        "mask mAP 0.118, best 0.118  box_loss 1.250",
        "43 images/s · 8 min left in this trial, 8 h 48 min in the study at this worker's pace alone",
        "safe to disconnect: epoch 1 is on Drive",
        "epoch 1/10 mask mAP 0.118 (best 0.118)",
    ):
        assert piece in picture
    progress.close()


def test_a_resumed_trial_shows_no_batch_bar_before_it_is_known_how_many_there_are() -> None:
    stream = Terminal()
    progress = LiveProgress(stream, console=Console(file=stream, force_terminal=True, width=110, color_system=None))
    progress.trial_started(7, SIX_DONE, PARAMS, 10, 0.131, 3, Position(3, 40))
    assert "\nbatch" not in stream.getvalue()
    progress.batch(Position(3, 41), 100, {}, 1.0)
    progress.epoch(7, 4, 10, 0.1, 0.1, 0.1, "")
    assert "\nbatch" in stream.getvalue()
    assert "0/100" in stream.getvalue()
    progress.close()


def test_the_live_view_redraws_a_few_times_a_second_however_many_batches_it_hears_of() -> None:
    clock = Clock()
    stream = Terminal()
    progress = LiveProgress(stream, clock=clock)
    progress.trial_started(0, Extent(0, None), {}, 2, None, 0)
    stream.truncate(0)
    for batch in range(1000):
        clock.now += 0.001
        progress.batch(Position(0, batch), 1000, {}, 1.0)
    assert 1 <= stream.getvalue().count("1000") <= 6
    progress.close()


def test_the_live_view_says_the_same_lines_as_the_plain_one_but_for_the_epochs() -> None:
    plain, live = io.StringIO(), Terminal()
    a_whole_life(Progress(plain, clock=Clock()))
    console = Console(file=live, force_terminal=True, width=200, color_system=None)
    a_whole_life(LiveProgress(live, clock=Clock(), console=console))
    for line in plain.getvalue().splitlines():
        assert line in live.getvalue() or " epoch 12/27 " in line


def test_an_epoch_says_what_it_took_and_what_is_left_of_trial_and_study() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock=clock)
    progress.trial_started(0, Extent(0, 3), PARAMS, 10, None, 0)
    progress.trial_ended(0, "complete", 0.1, 1000.0)
    progress.trial_started(1, Extent(1, 3), PARAMS, 10, 0.1, 0)
    progress.batch(Position(0, 0), 100, {}, 0.0)
    clock.now = 95.0
    progress.epoch(1, 1, 10, 0.118, 0.121, 0.1, "safe", seconds=95.0, loss=2.3)
    progress.close()
    line = stream.getvalue().splitlines()[-1]
    assert "mask mAP 0.118 (best 0.121) · loss 2.3 · 95 s an epoch · 14 min left in this trial" in line
    assert "31 min in the study at this worker's pace alone · safe" in line


def test_a_study_is_never_over_before_the_trial_that_is_trained_to_its_end() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock=clock)
    progress.trial_started(1, Extent(53, 54, "epoch"), PARAMS, 10, 0.1, 0)
    progress.batch(Position(0, 0), 100, {}, 0.0)
    clock.now = 95.0
    progress.epoch(1, 1, 10, 0.118, 0.121, 0.1, "safe", seconds=95.0)
    progress.close()
    assert "14 min left in this trial, 14 min in the study" in stream.getvalue().splitlines()[-1]


def test_the_live_view_knows_of_trials_that_are_ahead_and_not_over() -> None:
    for best, said in ((None, "· ahead 0.269, not over"), (0.131, "· study best 0.131 · ahead of it 0.269 · 0 pruned")):
        stream = Terminal()
        progress = LiveProgress(stream, console=Console(file=stream, force_terminal=True, width=110, color_system=None))
        progress.study("petskin", SIX_DONE, best=best, home="runs")
        progress.trial_started(7, SIX_DONE, PARAMS, 10, best, 0, ahead=0.269)
        assert said in stream.getvalue()
        progress.close()


def test_a_long_epoch_is_told_every_two_minutes() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock=clock)
    progress.trial_started(1, SIX_DONE, PARAMS, 10, 0.1, 0)
    for batch in range(1, 1000):
        clock.now += 1.0
        progress.batch(Position(1, batch), 1000, {"train/box_loss": 1.25, "train/seg_loss": 1.0}, 43.0)
    progress.close()
    told = [line for line in stream.getvalue().splitlines() if " batch " in line]
    assert len(told) == 8
    assert re.search(r"^\d\d:\d\d:\d\d trial 1 epoch 2/10 batch 120/1000 · loss 2.25 · 43 images/s$", told[0])


def test_a_resumed_trial_knows_its_scores_from_before() -> None:
    stream = Terminal()
    progress = LiveProgress(stream, console=Console(file=stream, force_terminal=True, width=110, color_system=None))
    progress.trial_started(7, SIX_DONE, PARAMS, 10, 0.131, 3, Position(2, 0), curve={1: 0.12, 2: 0.11})
    assert "mask mAP 0.110, best 0.120" in stream.getvalue()
    progress.close()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_line_of_the_live_view_is_broken_inside_a_word(columns: int) -> None:
    stream = Terminal()
    console = Console(file=stream, force_terminal=True, width=columns, color_system=None)
    progress = LiveProgress(stream, console=console)
    params = dict.fromkeys(("degrees", "momentum", "weight_decay", "mosaic", "copy_paste", "hsv_h"), 0.123456)
    progress.trial_started(7, SIX_DONE, params, 10, 0.131, 3)
    progress.note("주석: " + "반려견 피부 질환 " * 12)
    progress.suspended("tune-worker --study petskin --home '/content/drive/My Drive/petskin' --checkpoints s3://b/c")
    progress.close()
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).replace("\r", "\n")
    assert max(width(line.rstrip()) for line in text.split("\n")) <= columns
    for word in (*(f"{name}=0.1235" for name in params), "질환", "tune-worker", "'/content/drive/My Drive/petskin'"):
        assert word in text


@pytest.mark.parametrize(("epoch", "says"), [(1, "epoch 1 done; waiting for the next"), (3, "bringing its last")])
def test_a_trial_that_stands_still_after_an_epoch_is_said_to_do_so(epoch: int, says: str) -> None:
    now = [0.0]
    progress = Progress(io.StringIO(), clock=lambda: now[0])
    progress._pulse.close()  # no thread: the test asks itself
    progress.trial_started(0, SIX_DONE, PARAMS, 3, None, 0)
    progress.epoch(0, epoch, 3, 0.1, 0.1, None, "safe to stop")
    now[0] = 60.0
    assert f"trial 0: {says}" in str(progress._pulse.due())
