"""What people see in a real terminal: nothing is broken inside a word, whatever the names and the size."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from petskin_tune.columns import width
from tests.support.made_up import a_varied_study
from tests.support.places import PROJECT
from tests.support.terminal import TMUX, Terminal

NAME = "반려견-피부질환"
VIEWS = ("status", "trials", "trials --trial 4", "studies", "live")

pytestmark = pytest.mark.skipif(TMUX is None, reason="tmux is not installed")


@pytest.fixture(scope="module", params=[(80, 24), (120, 40)], ids=lambda size: f"{size[0]}x{size[1]}")
def screens(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """What each view leaves on the screen; what the terminal had to break counts as a failure here."""
    columns, rows = request.param
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("t")
    a_varied_study(home, NAME)
    command = [sys.executable, "-m", "tests.support.shown", str(home), *VIEWS]
    terminal = Terminal(folder, command, columns, rows, {"PYTHONPATH": str(PROJECT), "TUNE_STUDY": NAME})
    found = {}
    try:
        for view in (*VIEWS, "suspended"):
            terminal.wait()
            found[view] = terminal.screen()
            broken = [line for line in terminal.screen(joined=True) if line not in found[view]]
            assert broken == [], f"{view}: the terminal broke these lines"
            assert max(map(width, found[view])) <= columns
            terminal.clear()
            terminal.go_on()
        yield found
    finally:
        terminal.close()


def test_status_names_the_study_its_workers_and_what_a_kill_costs(screens: dict[str, list[str]]) -> None:
    text = "\n".join(screens["status"])
    assert f"study {NAME}: 5 of 60 trials done" in text
    for word in ("코랩-세션-하나", "worker died", "a kill costs", "0.012 above the defaults"):
        assert word in text
    assert "tune-worker" in text or "--watch" in text


def test_trials_shows_a_row_for_each_trial_with_whole_numbers(screens: dict[str, list[str]]) -> None:
    lines = screens["trials"]
    header = next(index for index, line in enumerate(lines) if line.startswith("trial  state"))
    rows = lines[header + 1 : header + 11]
    assert [row.split()[0].rstrip("*") for row in rows] == [str(number) for number in range(10)]
    assert all(len(row.split("  ")) >= 5 for row in rows)


def test_one_trial_has_its_curve_and_its_traceback(screens: dict[str, list[str]]) -> None:
    text = "\n".join(screens["trials --trial 4"])
    assert "▁" in text
    assert "Traceback (most recent call last):" in text
    assert "illegal memory access" in " ".join(text.split())


def test_the_live_view_shows_every_parameter_whole_and_its_last_line_can_be_typed(
    screens: dict[str, list[str]],
) -> None:
    text = "\n".join(screens["live"])
    for word in ("optimizer=AdamW", "weight_decay=0.001", "copy_paste=0.1", "hsv_h=0.015", "200/250", "seg_loss 2.500"):
        assert word in text
    typed = " ".join("\n".join(screens["suspended"]).partition("type:")[2].replace("\\\n", " ").split())
    assert typed.startswith(f"tune-worker --study {NAME} --home '/")
    assert typed.endswith("--checkpoints s3://bucket/petskin --data pets.zip")
