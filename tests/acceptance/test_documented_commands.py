"""Every command that the documents say to type is typed, in a folder where people stand who have come as far.

The Korean documents say to type the same, says another test; that a first day goes well in its order, says
``test_first_day.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from petskin_tune.datasets import demo
from tests.support import aihub_tree
from tests.support.documents import DOCS, blocks, lines_to_type
from tests.support.foreign_runs import rising, run_folder, tune_csv
from tests.support.places import PROJECT
from tests.support.workers import BIN, Said, environment, run, write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

LINE_SECONDS = 300.0
DOCUMENTS = [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))]
TRIALS = 3  # of `mine`: `--top 3` is among what is typed

# By how a line begins, and why it is not typed here.
EXCLUDED = {
    "pip install": "needs a network and a public index",
    "tune-worker --study petskin --device all": "needs a GPU",
    "export TUNE_STORAGE=": "needs a database server and a bucket of one's own",
    "cp docker/.env.example": "needs Docker",
    "docker compose": "needs Docker",
    "ssh -L": "needs another machine",
}
# What stands for a place of the reader's, and what would take hours.
READ_AS = {
    "/content/drive/MyDrive": "{folder}/drive",
    "/home/me": "{folder}/home/me",
    "--epochs 100 --imgsz 640": "--epochs 2 --imgsz 64",
    "3-100-epochs-640px": "3-2-epochs-64px",
    "--budget 30": f"--target-trials {TRIALS + 1}",
    "--trial 7": "--trial 2",
    "--trial 3": "--trial 1",
}
IN_A_FRESH_HOME = "petskin-tune init"  # a block that creates the study is typed where there is none


def to_type(body: str) -> list[str]:
    """The lines of a block that are typed: those after a prompt, where it shows what is answered, too."""
    prompted = [line for line in body.splitlines() if line.startswith("$ ")]
    return lines_to_type("```\n" + "\n".join(prompted or body.splitlines()) + "\n```\n")


def is_excluded(line: str) -> bool:
    return line.startswith(tuple(EXCLUDED))


def documented() -> list[tuple[str, list[str]]]:
    """Each block with something to type, once, and its document."""
    found: dict[tuple[str, ...], str] = {}
    for path in DOCUMENTS:
        for body in blocks(path.read_text(encoding="utf-8")):
            lines = [line for line in to_type(body) if not is_excluded(line)]
            if lines:
                found.setdefault(tuple(lines), path.name)
    return [(name, list(lines)) for lines, name in found.items()]


def settings(name: str, **changes: Any) -> dict[str, Any]:
    """A study of the smallest model: a second a trial."""
    search = {"lr0": {"low": 1e-5, "high": 5e-2, "log": True}, "optimizer": {"choices": ["SGD", "AdamW"]}}
    train = {"imgsz": 64, "batch": 8, "nbs": 8, "warmup_epochs": 0.5, "amp": False, "workers": 0}
    known = {"study": name, "data": "datasets/mine/data.yaml", "epochs": 1, "search": search, "train": train}
    return {**known, "target_trials": 2, "start": [], **changes}


def place(folder: Path, name: str, **changes: Any) -> None:
    """The study file NAME.yaml; its data set lies in datasets/ of the current folder."""
    write_study(folder, **settings(name, **changes)).rename(folder / f"{name}.yaml")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies `mine` and `demo`, done; the file of `petskin`; a data set, a download and runs of before."""
    folder = tmp_path_factory.mktemp("prepared")
    data = demo.make(folder / "datasets" / "mine", train=16, val=8)
    place(folder, "mine", target_trials=TRIALS)
    place(folder / "studies", "petskin", data=str(data))
    place(folder / "studies", "demo", data=str(data))
    aihub_tree.build(ordinary=1).write_folder(folder / "DOWNLOAD")
    (folder / "drive").mkdir()
    with tarfile.open(folder / "drive" / "petskin.tar", "w") as archive:
        archive.add(data.parent, "petskin")
    place(folder, "older", target_trials=1)
    for words in (["mine.yaml"], ["demo"], ["older.yaml", "--home", str(folder / "home" / "me" / "tune-home")]):
        done = run("--study", *words, cwd=folder)
        assert done.returncode == 0, done.stdout
    runs_of_before(folder)
    return folder


def runs_of_before(folder: Path) -> None:
    """What `import` takes: run folders and a log of Ultralytics' own."""
    ours = {"model": "small-seg.yaml", "data": "data.yaml", "epochs": 1, "imgsz": 64, "batch": 8, "nbs": 8}
    ours |= {"amp": False, "warmup_epochs": 0.5, "momentum": None}
    for name in ("train", "train2"):
        run_folder(folder / "runs" / "segment" / name, rising(0.3, 1), **ours)
    (folder / "runs" / "segment" / "tune").mkdir()
    tune_csv(folder / "runs" / "segment" / "tune" / "tune_results.csv", [{"fitness": 0.3, "lr0": 1e-4}])


def type_it(line: str, folder: Path) -> None:
    """Type the line into a shell; it must end well."""
    for words, meant in READ_AS.items():
        line = line.replace(words, meant.format(folder=folder))
    if line.startswith("petskin-tune dashboard"):
        look_at_the_dashboard(f"{line} --port 0", folder)
        return
    ended = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", line],
        cwd=folder, env=variables(folder), text=True, timeout=LINE_SECONDS, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert ended.returncode == 0, f"$ {line}\n{ended.stdout}"


def variables(folder: Path) -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return environment(PATH=path, XDG_CACHE_HOME=str(folder / "cache"), PYTHONWARNINGS="ignore")


def look_at_the_dashboard(line: str, folder: Path) -> None:
    process = subprocess.Popen(
        line.split(),
        cwd=folder, env=variables(folder), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    said = Said(process)
    said.wait_for("(Ctrl-C ends it)")
    os.killpg(process.pid, signal.SIGINT)
    said.end()
    assert process.returncode == 0, said.text()


@pytest.mark.parametrize("lines", [pytest.param(lines, id=f"{name}:{lines[0]}") for name, lines in documented()])
def test_what_a_document_says_to_type_works(lines: list[str], prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder, symlinks=True)
    if any(line.startswith(IN_A_FRESH_HOME) for line in lines):
        shutil.rmtree(folder / "tune-home")
    for line in lines:
        type_it(line, folder)


def test_what_is_not_typed_and_what_is_read_otherwise_still_stands_in_a_document() -> None:
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    lines = [line for text in texts for body in blocks(text) for line in to_type(body)]
    for beginning in EXCLUDED:
        assert any(line.startswith(beginning) for line in lines), f"no document says to type {beginning} …"
    for words in READ_AS:
        assert any(words in line for line in lines), words
    assert any(re.match(IN_A_FRESH_HOME, line) for line in lines)
