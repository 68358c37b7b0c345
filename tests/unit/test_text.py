from __future__ import annotations

import shlex
from datetime import datetime

from petskin_tune import text as words


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
