"""The Colab notebook: its cells run, the machine is lost, all cells run again. Drive is a folder."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import workers

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "colab.ipynb"
COLAB_DRIVE = "/content/drive"
PATIENCE = 240.0


def never(_: str) -> bool:
    return False


class Colab:
    """Runs a notebook's code cells as Colab does: `!` in a shell, `$NAME` from the notebook's own variables."""

    def __init__(self, drive: Path, disk: Path) -> None:
        self.drive, self.disk = drive, disk
        self.unassigned = False
        self.installed: list[str] = []
        self.output: dict[str, str] = {}

    def run_all(self, *, lose_machine_at: Callable[[str], bool] = never, **settings: str) -> None:
        """Run all cells in order; ``settings`` replace what the settings cell says."""
        names: dict[str, Any] = {}
        self.output.clear()
        with self._colab():
            for cell in json.loads(NOTEBOOK.read_text())["cells"]:
                if cell["cell_type"] != "code":
                    continue
                source = "".join(cell["source"]).replace(COLAB_DRIVE, str(self.drive))
                for name, value in settings.items():
                    source = re.sub(rf"^{name} = .*$", f"{name} = {value}", source, flags=re.MULTILINE)
                if not self._run_cell(cell["id"], source, names, lose_machine_at):
                    return

    def _run_cell(self, cell: str, source: str, names: dict[str, Any], lose_machine_at: Callable[[str], bool]) -> bool:
        if source.startswith("%pip install"):
            self.installed.append(source)
        elif source.startswith("!"):
            command = re.sub(r"\$(\w+)", lambda match: str(names[match[1]]), source[1:])
            return self._run_shell(cell, command, lose_machine_at)
        else:
            exec(compile(source, cell, "exec"), names)
        return True

    def _run_shell(self, cell: str, command: str, lose_machine_at: Callable[[str], bool]) -> bool:
        """Run one shell line; False when the machine was lost meanwhile."""
        environment = workers.environment(
            COLAB_RELEASE_TAG="release", TUNE_NETWORK_HOME="1", XDG_CACHE_HOME=str(self.disk), PATH=path_with_commands()
        )
        shell = subprocess.Popen(
            command, shell=True, cwd=self.drive.parent, env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert shell.stdout is not None
        self.output[cell] = ""
        for line in shell.stdout:
            self.output[cell] += line
            if lose_machine_at(line):
                self._lose_machine(shell.pid)
                shell.wait()
                return False
        shell.wait(PATIENCE)
        return True

    def _lose_machine(self, pid: int) -> None:
        """Every process at once, and its disk."""
        everything = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in everything:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(everything, timeout=30)
        shutil.rmtree(self.disk)

    @contextlib.contextmanager
    def _colab(self) -> Iterator[None]:
        """What `google.colab` offers to a notebook's cells."""
        drive = types.SimpleNamespace(
            mount=lambda place: Path(place, "MyDrive").mkdir(parents=True, exist_ok=True),
            flush_and_unmount=lambda: None,
        )
        runtime = types.SimpleNamespace(unassign=lambda: setattr(self, "unassigned", True))
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "google.colab", types.SimpleNamespace(drive=drive, runtime=runtime))
            yield


def path_with_commands() -> str:
    return f"{workers.BIN}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def colab(tmp_path: Path) -> Colab:
    (tmp_path / "disk").mkdir()
    return Colab(tmp_path / "drive", tmp_path / "disk")


def test_run_all_disconnect_run_all_again_ends_the_study_with_the_trial_that_was_lost(
    colab: Colab, tmp_path: Path
) -> None:
    study = workers.write_study(tmp_path / "studies", target_trials=2)
    settings = {"STUDY": repr(str(study))}
    colab.run_all(lose_machine_at=lambda line: "trial 0 epoch 2/3" in line, **settings)
    assert "status" not in colab.output
    assert "study done" not in colab.output["work"]

    colab.run_all(**settings)
    assert "trial 0" in colab.output["work"]
    assert "goes on after" in colab.output["work"]
    assert "study done" in colab.output["work"]
    assert "2 of 2 trials done (2 complete)" in colab.output["status"]
    assert "The best trial:" in colab.output["diagnose"]
    assert (colab.drive / "MyDrive/petskin-tune/best.yaml").is_file()
    assert (colab.drive / "MyDrive/petskin-tune/best.pt").stat().st_size > 100_000
    assert all("petskin-tune" in line for line in colab.installed)
    assert not colab.unassigned


def test_lines_of_a_notebooks_worker_carry_no_escape_codes_and_say_what_is_safe(colab: Colab, tmp_path: Path) -> None:
    study = workers.write_study(tmp_path / "studies", target_trials=1)
    colab.run_all(STUDY=repr(str(study)), END_SESSION="True")
    assert "\x1b" not in colab.output["work"]
    epochs = [line for line in colab.output["work"].splitlines() if " epoch " in line and "mask mAP" in line]
    assert len(epochs) == 3
    assert all(re.search("safe to|durable: ", line) for line in epochs)
    assert colab.unassigned


def test_the_notebook_is_stored_without_outputs_and_installs_nothing_else() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(cell.get("outputs", []) == [] and cell.get("execution_count") is None for cell in cells)
    installs = [line for cell in cells for line in cell["source"] if "pip" in line]
    assert [line.strip() for line in installs] == ["%pip install -q petskin-tune"]
