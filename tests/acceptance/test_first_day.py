"""The first-day guide, typed word for word in an empty folder. The Korean one types the same, says another test."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.support.documents import DOCS, lines_to_type
from tests.support.workers import BIN, Said, environment, wait_until

PATIENCE = 1500.0


def type_it(line: str, folder: Path) -> subprocess.Popen[str]:
    program, *arguments = shlex.split(line)
    return subprocess.Popen(
        [BIN / program, *arguments],
        cwd=folder, env=environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal, also in a background job
    )  # fmt: skip


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def has_trained_an_epoch(folder: Path) -> bool:
    """Whether any trial has; the worker's line comes up to three seconds later, and after four it may be frozen."""
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'runs' / 'tune.db'}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT COUNT(*) FROM trial_intermediate_values").fetchone()[0])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_who_follows_the_first_day_word_for_word_never_has_to_guess(tmp_path: Path) -> None:
    lines = lines_to_type((DOCS / "first-day.md").read_text(encoding="utf-8"))
    install, *rest = lines
    assert install.startswith("pip install ")  # what is installed here is under test
    assert sum(line == "tune-worker --study demo" for line in rest) == 2
    began = False
    for line in rest:
        process = type_it(line, tmp_path)
        said = Said(process)
        if line.startswith("tune-worker") and not began:
            began = True
            said.wait_for("trial 0 (0 of 56 epochs trained) starts")
            wait_until(lambda: has_trained_an_epoch(tmp_path))
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does at Ctrl-C
            assert process.wait(PATIENCE) == 75, said.text()
            assert said.text().splitlines()[-1].endswith("to go on, type: tune-worker --study demo")
        elif "dashboard" in line:
            wait_until(lambda: answers("http://127.0.0.1:8080/"))
            os.killpg(process.pid, signal.SIGINT)
            process.wait(PATIENCE)
        else:
            assert process.wait(PATIENCE) == 0, said.text()
            if line.startswith("tune-worker"):
                assert re.search(r"^trial 0 \(\d+ of 56 epochs trained\) goes on after", said.text(), re.MULTILINE)
                assert "study done" in said.text()
    assert {"best.yaml", "best.pt", "report.html", "runs"} <= {path.name for path in tmp_path.iterdir()}
