"""From what was typed to an open study."""

from __future__ import annotations

import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from petskin_tune.cli import petskin_tune, tune_worker
from petskin_tune.commands import opening
from petskin_tune.commands.opening import NotBegun, Places, open_or_create, open_study
from petskin_tune.commands.study import enqueue, init_study
from petskin_tune.datasets import demo
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.space import distributions
from petskin_tune.study.study import Study, create_study
from tests.support.workers import SMALL_STUDY


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A home on a network disk, as far as the program is told."""
    monkeypatch.setenv("TUNE_NETWORK_HOME", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Places("demo", home=str(tmp_path / "drive" / "petskin"))


def test_the_study_of_a_network_home_that_was_deleted_does_not_come_back(places: Places) -> None:
    first = open_or_create(places, lambda _: None)
    assert first.home.close()
    shutil.rmtree(first.home.folder)
    said: list[str] = []
    second = open_or_create(places, said.append)
    assert second.study.uid != first.study.uid
    assert second.home.database is not None
    assert second.home.database.exists()
    assert second.home.close()
    assert list(second.home.folder.glob("database/tune-*.db")), "the new study was not copied into the home"
    assert any("belongs to another home" in line for line in said)


@pytest.mark.parametrize("left", ["nothing", "an empty folder"])
def test_a_reader_does_not_find_the_study_of_a_network_home_that_was_deleted(places: Places, left: str) -> None:
    first = open_or_create(places, lambda _: None)
    first.home.close()
    shutil.rmtree(first.home.folder)
    if left == "an empty folder":
        first.home.folder.mkdir()
    with pytest.raises(NotBegun), open_study(places):
        pass


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A small study of a person's own, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    demo.make(tmp_path / "data", train=8, val=4)
    return write("mine")


def write(name: str, **changes: object) -> Places:
    study = {**SMALL_STUDY, "study": name, "data": "data/data.yaml", **changes}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(study))
    return Places(f"{name}.yaml")


def silent(_: str) -> None:
    pass


def test_whoever_only_looks_changes_nothing_and_the_worker_takes_the_newest_file(mine: Places) -> None:
    opened = open_or_create(mine, silent)
    opened.study.change(target_trials=2)
    with open_study(mine) as (_, study):
        assert study.spec.target_trials == 2
    enqueue(mine, ("lr0=0.002",))
    opened.study.refresh()
    assert opened.study.spec.target_trials == 2
    assert open_or_create(mine, silent).study.spec.target_trials == SMALL_STUDY["target_trials"]


def test_a_study_whose_store_is_refused_is_not_created(mine: Places, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        open_or_create(replace(mine, checkpoints=str(tmp_path / "file" / "store")), silent)
    (tmp_path / "file").unlink()
    assert sorted(tmp_path.rglob("*")) == before
    assert open_or_create(replace(mine, checkpoints=str(tmp_path / "store")), silent).prepared is not None


@pytest.mark.parametrize("differs", ["file", "data"])
def test_the_loser_of_a_race_for_a_new_study_is_told_what_differs(
    differs: str, mine: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.make(tmp_path / "other", train=12, val=4)
    asked = opening.wanted("mine.yaml")
    assert asked.spec is not None
    longer = replace(mine, asked=replace(asked, spec=asked.spec.model_copy(update={"epochs": 5})))
    raced: list[Places] = []

    def be_slow(*arguments: Any, **keywords: Any) -> Study:
        if not raced:
            raced.append(mine)
            open_or_create(mine, silent)
        return create_study(*arguments, **keywords)

    monkeypatch.setattr(opening, "create_study", be_slow)
    with pytest.raises(UsageError, match="`epochs`" if differs == "file" else "data set here is not the one"):
        open_or_create(longer if differs == "file" else mine, silent, None if differs == "file" else "other/data.yaml")
    assert raced


def test_a_start_point_may_set_what_is_not_searched_for_its_trial_alone(mine: Places) -> None:
    said: list[str] = []
    opened = open_or_create(write("extra", start=[{"lr0": 0.002, "weight_decay": 0.001}]), said.append)
    (trial,) = opened.study.trials()
    assert trial.system_attrs["fixed_params"] == {"lr0": 0.002}
    assert trial.user_attrs[attributes.FIXED] == {"weight_decay": 0.001}
    assert any("`weight_decay` is not searched" in line for line in said)


def test_a_study_from_another_takes_what_fits_and_says_what_does_not(mine: Places) -> None:
    source = open_or_create(mine, silent).study
    trial = source.optuna.ask(distributions(source.spec.search))
    source.optuna.tell(trial, 0.3)
    said: list[str] = []
    write("next", search={"lr0": SMALL_STUDY["search"]["lr0"], "degrees": [0.0, 90.0]})
    init_study(Places("next.yaml"), said.append, source="mine", data=None, file=None)
    with open_study(Places("next")) as (_, study):
        (offered,) = study.trials()
        assert offered.system_attrs["fixed_params"] == {"lr0": trial.params["lr0"]}
    assert any("`mosaic` is not searched in this study" in line and "left out" in line for line in said)
    assert "1 finished trial of mine is tried first" in said
    with pytest.raises(UsageError, match="begun already"):
        init_study(Places("next.yaml"), said.append, source="mine", data=None, file=None)


def test_a_source_that_is_not_there_is_refused_and_nothing_is_created(mine: Places, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="no study `nowhere`"):
        init_study(mine, silent, source="nowhere", data=None, file=None)
    assert sorted(tmp_path.rglob("*")) == before


def test_init_leaves_the_new_study_in_a_network_home(places: Places) -> None:
    init_study(places, silent, source=None, data=None, file=None)
    assert list(Path(str(places.home)).glob("database/tune-*.db"))


def test_commands_to_type_name_the_places_without_a_password() -> None:
    places = Places("x", home="my drive", storage="postgresql://me:geheim@host/db", checkpoints="s3://bucket/x")
    assert places.to_type("tune-worker") == (
        "tune-worker --study x --home 'my drive' --storage 'postgresql://me:***@host/db' --checkpoints s3://bucket/x"
    )
    assert Places("x").to_type("petskin-tune status", "y") == "petskin-tune status --study y"


def test_a_worker_waits_for_a_database_that_has_answered_here_before_and_refuses_one_that_never_did(
    mine: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "START_PATIENCE_SECONDS", 0.5)
    door = socket.create_server(("127.0.0.1", 0))  # accepts nobody: connections are refused once it is closed
    address = f"postgresql://me@127.0.0.1:{door.getsockname()[1]}/none"
    door.close()
    away = replace(mine, storage=address)
    with pytest.raises(UsageError, match="cannot be reached"):
        open_or_create(away, silent)
    home = opening.resolve(away)
    opening._remember_answer(home)
    said = threading.Event()
    waiting = threading.Thread(target=lambda: open_or_create(away, lambda _: said.set()), daemon=True)
    waiting.start()
    assert said.wait(30.0), "it did not say that it waits"
    assert waiting.is_alive()


@pytest.mark.parametrize("name", ["mine.yaml", "../mine", "피" * 85])
def test_a_study_is_not_named_like_a_file_on_the_command_line_either(places: Places, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`study` must be"):
        init_study(replace(places, study=name), lambda _: None, source=None, data=None, file="demo")
    assert not Path(places.home or "").exists()


@pytest.mark.parametrize("command", ["tune-worker", "init", "best"])
def test_a_changed_store_that_cannot_be_used_is_one_sentence(mine: Places, tmp_path: Path, command: str) -> None:
    open_or_create(mine, silent).home.close()
    (tmp_path / "file").touch()
    where = ["--study", "mine", "--checkpoints", str(tmp_path / "file" / "store")]
    words = {"tune-worker": [], "init": ["init"], "best": ["best", "--weights", str(tmp_path / "best.pt")]}[command]
    refused = CliRunner().invoke(tune_worker if command == "tune-worker" else petskin_tune, [*words, *where])
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.startswith("error: The store ")
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "best.pt").exists()
