from __future__ import annotations

import shlex
import subprocess
from datetime import datetime

import optuna
import pytest

from petskin_tune import text as words
from petskin_tune.views import export
from petskin_tune.views.status.collect import collect
from petskin_tune.views.trials import rows
from tests.support.studies import add


def test_a_name_cannot_begin_a_line_of_its_own() -> None:
    assert words.page(["worker: a\nerror: forged", "", "\x1b[2J"]) == "worker: a\\nerror: forged\n\n\\x1b[2J\n"


def test_a_command_that_fits_no_line_is_broken_where_it_can_still_be_typed() -> None:
    command = "tune-worker --study petskin --home '/content/drive/My  Drive/petskin' --checkpoints s3://bucket/petskin"
    assert words.to_type("type: ", "tune-worker --study petskin") == ["type: tune-worker --study petskin"]
    lines = words.to_type("nobody is at work; type: ", command)
    assert lines[0] == "nobody is at work; type:"
    assert all(line.endswith(" \\") for line in lines[1:-1])
    assert max(map(len, lines)) <= 80
    assert shlex.split("\n".join(lines[1:]).replace("\\\n", "")) == shlex.split(command)


ODD = ["my study", "it's  mine, isn't it", 'say "no"', "피부 연구", "-study", "a$(b)`c`"]


@pytest.mark.parametrize("name", ODD)
def test_a_command_with_an_odd_name_or_path_is_taken_by_a_shell_as_it_was_meant(name: str) -> None:
    home = f"{name}/{'x' * 50}"
    command = f"printf '%s|' --watch {words.named(name, f'--home {shlex.quote(home)}')} {words.operand(name)}"
    lines = words.to_type("type: ", command)
    typed = subprocess.run(["sh"], input="\n".join(lines[1:]), capture_output=True, text=True, check=True).stdout
    path = f"./{name}" if name.startswith("-") else name
    assert typed.split("|") == ["--watch", "--study", name, "--home", home, path, ""]


def test_every_view_names_a_study_of_any_name_so_that_it_can_be_typed() -> None:
    name = "it's my study"
    study = optuna.create_study(study_name=name, direction="maximize")
    add(study, "COMPLETE", 0.1, curve={1: 0.1})
    table = rows.collect(study, (), "--home 'a b'")
    status = collect(study, (), 0.0, options="--home 'a b'")
    for text in (
        status.next_command,
        *(line for line in export.render(study, options="--home 'a b'").splitlines() if "--study" in line),
        f"petskin-tune trials {table.options}",
    ):
        typed = shlex.split(text)
        assert typed[typed.index("--study") : typed.index("--home") + 2] == ["--study", name, "--home", "a b"], text


def test_a_time_of_day_names_the_day_where_it_is_another() -> None:
    noon = datetime(2026, 3, 1, 12, 0).timestamp()
    assert words.clock(noon + 3600, noon) == "13:00"
    assert words.clock(noon + 86400, noon) == "Mon 12:00"
    assert words.clock(noon + 30 * 86400, noon).startswith("2026-03-31 1")


def test_lines_are_fitted_each_under_its_own_indent() -> None:
    text = "study petskin: look at this first\n  → " + "word " * 30
    fitted = words.fitted(text, 40).splitlines()
    assert max(map(len, fitted)) <= 40
    assert fitted[0] == "study petskin: look at this first"
    assert fitted[1].startswith("  → word")
    assert fitted[2].startswith("    word")


def test_a_signal_is_called_what_a_person_has_pressed() -> None:
    assert [words.reason(given) for given in ("SIGINT", "deadline", None)] == ["Ctrl-C", "deadline", ""]
