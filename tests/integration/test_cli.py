"""The commands in processes of their own: how they are started, and what they import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from petskin_tune.database.storage import open_storage
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from tests.support.places import PROJECT
from tests.support.studies import a_spec
from tests.support.workers import BIN

HEAVY = {"PIL", "cv2", "matplotlib", "pandas", "plotly", "scipy", "shapely", "sklearn", "torch", "ultralytics"}
HEAVY_HELP = HEAVY | {"numpy", "optuna", "pydantic", "rich", "sqlalchemy", "yaml"}


def test_the_package_runs_as_a_module_under_the_commands_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "petskin_tune", "status", "--nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: petskin-tune status [OPTIONS]\n")


def test_what_the_readme_says_to_put_into_bashrc_completes_commands_and_options() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r'^eval "\$\(_\w+=bash_source [\w-]+\)"$', readme, re.MULTILINE)
    assert len(lines) == 2
    ask = 'COMP_WORDS=($1 "$2") COMP_CWORD=1; "$3" "$1"; echo "${COMPREPLY[*]}"'
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    asked = {"petskin-tune": ("sta", "status"), "tune-worker": ("--max-h", "--max-hours")}
    for command, (begun, whole) in asked.items():
        function = f"_{command.replace('-', '_')}_completion"
        script = "\n".join([*lines, ask])
        done = subprocess.run(
            ["bash", "-c", script, "bash", command, begun, function],
            env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.stdout.strip(), done.stderr) == (whole, "")


def imported(*arguments: str) -> set[str]:
    """The packages that `petskin-tune` with these arguments imports."""
    code = (
        "import sys; from click.testing import CliRunner; from petskin_tune.cli import petskin_tune\n"
        "ended = CliRunner().invoke(petskin_tune, sys.argv[1:]); assert ended.exit_code == 0, ended.output\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("arguments", [["--help"], ["stop", "--help"], ["train", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert not imported(*arguments) & HEAVY_HELP


@pytest.mark.parametrize("command", ["status", "stop", "show"])
def test_looking_and_steering_import_nothing_heavy_but_what_optuna_itself_needs(command: str, tmp_path: Path) -> None:
    """Optuna imports numpy with its study."""
    create_study(
        open_storage(f"sqlite:///{tmp_path / 'tune.db'}"),
        a_spec(),
        points=(),
        attributes_of_study={attributes.BASE: "", attributes.STORE: "home:checkpoints"},
    )
    assert not imported(command, "--study", "petskin", "--home", str(tmp_path)) & HEAVY


def test_as_a_module_it_takes_no_module_of_the_current_folder_for_an_installed_one(tmp_path: Path) -> None:
    for name in ("click", "ultralytics", "yaml"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the current folder')\n")
    command = [sys.executable, "-m", "petskin_tune", "show", "--study", "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
