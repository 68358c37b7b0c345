"""The home where none was named."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from petskin_tune.cli import petskin_tune
from petskin_tune.database.storage import open_storage
from petskin_tune.home.default import default_home, overlooked
from tests.support.places import PROJECT

NOTE = "note: tune-home is used, and studies also lie in runs; to use those, add: --home runs"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("TUNE_HOME", "TUNE_STORAGE", "TUNE_STUDY"):
        monkeypatch.delenv(name, raising=False)


def put(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


@pytest.mark.parametrize(
    ("there", "home"),
    [
        ([], "tune-home"),
        (["runs/segment/train/results.csv"], "tune-home"),  # of Ultralytics
        (["runs/tune.db"], "runs"),
        (["runs/tune.db", "tune-home/weights/model.pt"], "runs"),
        (["runs/tune.db", "tune-home/tune.db"], "tune-home"),
        (["runs/database/tune-1-00000000-1-0000000000000000.db"], "runs"),  # on a network disk
        (["runs/work/trials/1/outbox"], "runs"),  # the database is elsewhere, and epochs wait here
        (["runs/work/trials/1/outbox", "tune-home/tune.db"], "tune-home"),
        (["runs/tune.db", "tune-home/work/trials/1/outbox"], "runs"),
    ],
)
def test_an_older_home_in_runs_stays_the_default_where_tune_home_is_none(there: list[str], home: str) -> None:
    put(*there)
    assert default_home() == home


def test_what_is_no_folder_is_passed_by() -> None:
    put("runs")  # a file: nothing lies below it
    assert default_home() == "tune-home"
    assert overlooked(None, None, {}) is None


def test_studies_that_are_overlooked_are_told_of_once_and_on_stderr() -> None:
    for home in ("tune-home", "runs"):
        Path(home).mkdir()
        open_storage(f"sqlite:///{home}/tune.db").engine.dispose()
    told = CliRunner().invoke(petskin_tune, ["status", "--study", "demo"])
    assert told.stderr.splitlines().count(NOTE) == 1
    assert NOTE not in told.stdout
    guessed = CliRunner().invoke(petskin_tune, ["status"])  # looks into the home twice
    assert guessed.stderr.splitlines().count(NOTE) == 1
    for words in (["--home", "runs"], ["--storage", "sqlite:///runs/tune.db"]):
        assert "note:" not in CliRunner().invoke(petskin_tune, ["studies", *words]).stderr
    named = CliRunner().invoke(petskin_tune, ["studies"], env={"TUNE_HOME": "runs"})
    assert "note:" not in named.stderr


def test_no_home_can_be_committed_by_mistake() -> None:
    assert {"runs/", "tune-home/"} <= set((PROJECT / ".gitignore").read_text().split())
