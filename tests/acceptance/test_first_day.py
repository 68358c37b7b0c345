"""The first-day guide, typed word for word in an empty folder with every default: what README promises of it, too.

The Korean guide types the same, says another test.
"""

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

import optuna
import pytest

from petskin_tune.study import attributes
from tests.support.documents import DOCS, lines_to_type
from tests.support.workers import BIN, Said, environment, load, wait_until

PATIENCE = 1500.0
WORKER = "tune-worker --study demo"
LEAST_TRIALS = 8
LEAST_MASK_MAP = 0.30
NEXT = "next, type: petskin-tune best --study demo --yaml best.yaml"


def type_it(line: str, folder: Path) -> subprocess.Popen[str]:
    """Type the line; torch takes as many threads as it likes."""
    program, *arguments = shlex.split(line)
    defaults = {name: value for name, value in environment().items() if name != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        [BIN / program, *arguments],
        cwd=folder, env=defaults, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in a terminal, also in a background job
    )  # fmt: skip


def interrupt_its_first_trial(folder: Path) -> None:
    """Begin the study, and stop it as a terminal does at Ctrl-C."""
    process = type_it(WORKER, folder)
    said = Said(process)
    said.wait_for("trial 0 (0 of 56 epochs trained) starts")
    wait_until(lambda: has_trained_an_epoch(folder))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 75, said.text()
    assert said.text().splitlines()[-1].endswith(f"to go on, type: {WORKER}")


def has_trained_an_epoch(folder: Path) -> bool:
    """Whether any trial has; the worker's line comes up to three seconds later, and after four it may be frozen."""
    database = folder / "tune-home" / "tune.db"
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT COUNT(*) FROM trial_intermediate_values").fetchone()[0])


def go_on_to_the_end(folder: Path) -> None:
    said = end(WORKER, folder)
    assert re.search(r"^trial 0 \(\d+ of 56 epochs trained\) goes on after", said, re.MULTILINE), said
    assert "study done" in said
    assert said.splitlines()[-1].endswith(NEXT)


def end(line: str, folder: Path) -> str:
    process = type_it(line, folder)
    said = Said(process)
    assert process.wait(PATIENCE) == 0, said.text()
    return said.text()


def look_at_the_dashboard(line: str, folder: Path) -> None:
    process = type_it(line, folder)
    said = Said(process)
    wait_until(lambda: answers("http://127.0.0.1:8080/") or process.poll() is not None)
    assert process.poll() is None, said.text()
    os.killpg(process.pid, signal.SIGINT)
    process.wait(PATIENCE)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False


def assert_it_found_masks_and_froze_and_thawed(study: optuna.Study) -> None:
    states = [trial.state.name for trial in study.trials]
    assert len(states) >= LEAST_TRIALS
    assert set(states) == {"COMPLETE", "PRUNED"}  # frozen ones are told as pruned when the study ends
    resumes = [trial.user_attrs[attributes.RESUMES] for trial in study.trials]
    assert sum(resumes) >= 2, f"once after Ctrl-C, and none was thawed: {resumes}"
    assert study.best_value >= LEAST_MASK_MAP


def assert_typed_again_it_trains_nothing(folder: Path) -> None:
    logs = {path: path.stat().st_mtime_ns for path in folder.rglob("train.log")}
    trials = len(load(folder / "tune-home", "demo").trials)
    assert end(WORKER, folder).splitlines()[-1].endswith(NEXT)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("train.log")} == logs != {}
    assert len(load(folder / "tune-home", "demo").trials) == trials


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_who_follows_the_first_day_word_for_word_never_has_to_guess(tmp_path: Path) -> None:
    install, *rest = lines_to_type((DOCS / "first-day.md").read_text(encoding="utf-8"))
    assert install.startswith("pip install ")  # what is installed here is under test
    assert rest.count(WORKER) == 2
    interrupted = False
    for line in rest:
        if line == WORKER and not interrupted:
            interrupted = True
            interrupt_its_first_trial(tmp_path)
        elif line == WORKER:
            go_on_to_the_end(tmp_path)
            assert_it_found_masks_and_froze_and_thawed(load(tmp_path / "tune-home", "demo"))
            assert_typed_again_it_trains_nothing(tmp_path)
        elif "dashboard" in line:
            look_at_the_dashboard(line, tmp_path)
        else:
            end(line, tmp_path)
    assert {"best.yaml", "best.pt", "report.html", "tune-home"} <= {path.name for path in tmp_path.iterdir()}
