from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner, Result
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from petskin_tune.cli import petskin_tune
from petskin_tune.columns import width
from petskin_tune.commands.listing import STATES
from petskin_tune.views.trials import rows as trial_rows
from tests.support.made_up import TRACEBACK, MadeUp, a_spec, a_varied_study

NAME = "반려견-피부질환"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    a_varied_study(home, NAME)
    return home


@pytest.fixture(autouse=True)
def no_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TUNE_STUDY", "TUNE_HOME", "TUNE_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def typed(*words: str | Path) -> Result:
    return CliRunner().invoke(petskin_tune, [str(word) for word in words])


def said(*words: str | Path) -> str:
    ended = typed(*words)
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def numbers(table: str) -> list[str]:
    return [line.split()[0].rstrip("*") for line in table.splitlines()[1:] if line[:6].strip(" *").isdigit()]


# ---- trials ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [40, 80, 120, 300])
def test_the_table_is_no_wider_than_the_terminal_and_shows_as_many_parameters_as_fit(
    columns: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = said("trials", "--study", NAME, "--home", home)
    lines = table.splitlines()
    assert max(map(width, lines)) <= max(columns, 54)  # its own five columns are all there
    assert numbers(table) == [str(number) for number in range(10)]
    header = lines[0].split()
    if columns == 80:
        assert header[-1] != "time"
        assert "no room for" in table
    if columns == 300:
        assert {"optimizer", "lr0", "lrf", "momentum", "weight_decay", "degrees", "mosaic", "box"} <= set(header)
        assert "no room for" not in table


def test_a_trial_says_how_it_ended_or_who_has_it_and_the_best_is_marked(home: Path) -> None:
    lines = said("trials", "--study", NAME, "--home", home).splitlines()
    states = ["complete", "complete", "pruned", "pruned: out-of-memory", "failed: crashed", "training", "worker died"]
    for number, state in enumerate([*states, "suspended", "frozen", "waiting"]):
        assert f" {state} " in lines[number + 1]
    assert lines[2].lstrip().startswith("1*")
    assert "* the best trial" in lines
    assert "frozen: kept for later while the search trains others" in lines


@pytest.mark.parametrize(
    ("sort", "first", "last"),
    [("map", "1", "9"), ("-map", "3", "9"), ("-number", "9", "0"), ("time", "9", "1"), ("-epochs", "0", "9")],
)
def test_the_table_is_sorted_by_what_is_asked_for_and_what_has_no_value_comes_last(
    sort: str, first: str, last: str, home: Path
) -> None:
    found = numbers(said("trials", "--study", NAME, "--home", home, f"--sort={sort}"))
    assert (found[0], found[-1]) == (first, last)


def test_a_persons_own_trials_are_listed_whatever_numbers_they_hold(tmp_path: Path) -> None:
    a_varied_study(tmp_path / "mine", "mine")
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path / 'mine' / 'tune.db'}")
    wide = {"x": FloatDistribution(1e-4, math.inf)}
    for x in (math.inf, 0.5):
        study.add_trial(create_trial(value=0.1, params={"x": x}, distributions=wide))
    study.enqueue_trial({"lr0": 10**400})
    for order in ("x", "lr0", "-lr0"):
        assert numbers(said("trials", "--study", "mine", "--home", tmp_path / "mine", f"--sort={order}"))


def test_trials_are_sorted_by_a_parameter_and_a_misspelt_one_is_refused_with_the_nearest(home: Path) -> None:
    rows = json.loads(said("trials", "--study", NAME, "--home", home, "--sort", "lr0", "--json"))
    rates = [row["params"]["lr0"] for row in rows if row["params"]]
    assert rates == sorted(rates)
    refused = typed("trials", "--study", NAME, "--home", home, "--sort", "momentun")
    assert refused.exit_code == 2
    assert "did you mean `momentum`?" in refused.stderr


def test_only_the_states_that_are_asked_for_are_shown(home: Path) -> None:
    assert STATES == trial_rows.STATES
    assert numbers(said("trials", "--study", NAME, "--home", home, "--state", "pruned")) == ["2", "3"]
    both = said("trials", "--study", NAME, "--home", home, "--state", "suspended", "--state", "frozen")
    assert numbers(both) == ["6", "7", "8"]


def test_csv_has_every_trial_and_every_parameter_in_full(home: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(said("trials", "--study", NAME, "--home", home, "--csv"))))
    stored = json.loads(said("trials", "--study", NAME, "--home", home, "--json"))
    assert [row["number"] for row in rows] == [str(number) for number in range(10)]
    assert float(rows[1]["lr0"]) == stored[1]["params"]["lr0"]
    assert rows[4]["failure"] == "crashed"
    assert rows[5]["worker"] == "코랩-세션-하나"
    assert typed("trials", "--study", NAME, "--home", home, "--csv", "--json").exit_code == 2


def test_the_parameter_that_differs_most_comes_first(tmp_path: Path) -> None:
    made = MadeUp(tmp_path)
    base = made.params()
    for degrees, rate in [(0.0, 1e-3), (180.0, 1.1e-3), (90.0, 1.2e-3)]:
        made.add(params={**base, "degrees": degrees, "lr0": rate})
    found = trial_rows.collect(made.study.optuna, [])
    assert found.differing[:2] == ("degrees", "lr0")


def test_one_trial_is_shown_with_its_curve_settings_and_interruptions(home: Path) -> None:
    page = said("trials", "--study", NAME, "--home", home, "--trial", "1")
    assert f"trial 1 of {NAME}: complete, the best" in page
    assert " ▁▂▃▄▅▆" in page
    assert "0.131 at epoch 27" in page.replace("\n ", "")
    assert "resumed 2 times; 6 min of it done twice" in " ".join(page.split())
    assert "optimizer=" in page
    assert "imgsz=480 batch=16" in page
    assert max(map(width, page.splitlines())) <= 80
    told = json.loads(said("trials", "--study", NAME, "--home", home, "--trial", "1", "--json"))
    assert told["curve"]["27"] == pytest.approx(0.131, abs=0.001)
    assert told["resumes"] == 2


def test_a_failed_trial_is_shown_with_its_traceback_notes_and_log(home: Path) -> None:
    page = said("trials", "--study", NAME, "--home", home, "--trial", "4")
    for line in TRACEBACK.splitlines():
        assert line.strip() in page
    assert "failed\n  crashed: RuntimeError: CUDA error" in page
    assert "micro-batches of 8 after out of memory" in page
    assert "train.log" in page


def test_a_curve_of_many_epochs_is_drawn_in_a_row_of_blocks_that_fits() -> None:
    from petskin_tune.views.trials.page import sparkline

    assert sparkline([0.0, 0.5, 1.0]) == "▁▅█"
    assert sparkline([0.3, 0.3]) == "▅▅"
    assert sparkline([float("nan"), 1.0, 0.0]) == " █▁"
    long = sparkline([index / 500 for index in range(500)], 60)
    assert len(long) == 60
    assert (long[0], long[-1]) == ("▁", "█")
    assert sparkline([]) == ""


# ---- studies, and the one that is meant ------------------------------------------------------------------------------


def test_studies_lists_what_lies_in_a_home(tmp_path: Path) -> None:
    assert "there is no study" in said("studies", "--home", "nowhere")
    elsewhere = f"sqlite:///{tmp_path}/elsewhere/tune.db"
    assert f"there is no study in {tmp_path}/elsewhere/tune.db\n" == said("studies", "--storage", elsewhere)
    MadeUp(tmp_path, a_spec("one")).add(best=0.2)
    MadeUp(tmp_path, a_spec("한국어-이름-이-아주-아주-긴-연구입니다")).add("RUNNING", 0.1, 3, lease="running")
    shown = said("studies", "--home", tmp_path)
    assert max(map(width, shown.splitlines())) <= 80
    first, second = shown.splitlines()[1:]
    assert first.split()[:3] == ["one", "1/60", "0.200"]
    assert "1 worker at work" in second
    told = json.loads(said("studies", "--home", tmp_path, "--json"))
    assert [(row["study"], row["trials"], row["workers"]) for row in told[:1]] == [("one", 1, 0)]


def test_the_only_study_of_a_home_need_not_be_named(home: Path) -> None:
    assert NAME in said("status", "--home", home)


def test_of_several_studies_one_must_be_named_or_is_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    MadeUp(tmp_path, a_spec("pets")).add()
    MadeUp(tmp_path, a_spec("pets2")).add()
    refused = typed("status", "--home", tmp_path)
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: There are 2 studies in ")
    assert "pets, pets2: name one with --study" in refused.stderr
    monkeypatch.setenv("TUNE_STUDY", "pets2")
    assert "study pets2:" in said("status", "--home", tmp_path)
    misspelt = typed("status", "--study", "pets5", "--home", tmp_path)
    assert misspelt.exit_code == 2
    assert "did you mean `pets" in misspelt.stderr


def test_where_no_study_lies_one_must_be_named(tmp_path: Path) -> None:
    refused = typed("status", "--home", tmp_path / "new")
    assert refused.exit_code == 2
    assert "name one with --study, such as demo, petskin" in refused.stderr
    assert not (tmp_path / "new").exists()
    assert typed("status", "--study", "", "--home", tmp_path / "new").exit_code == 2
