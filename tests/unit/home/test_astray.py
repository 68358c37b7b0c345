"""A home of any name holds its database, and one that an older release put elsewhere is found."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from petskin_tune.database.storage import open_storage
from petskin_tune.errors import UsageError
from petskin_tune.home.home import Home, resolve_home
from tests.support.soak import first


def resolve(folder: Path) -> Home:
    return resolve_home(str(folder), None, None, {"TUNE_NETWORK_HOME": "0"}, study="demo")


NAMES = ["my%20runs", "a?b", "피부 질환", "a@b:c", "100%", "a#b", "two words", "a&b=c", "{x}"]


@pytest.mark.parametrize("name", first(4, NAMES))
def test_the_database_lies_in_the_home_whatever_the_home_is_called(name: str, tmp_path: Path) -> None:
    home = resolve(tmp_path / name)
    assert home.database == tmp_path / name / "tune.db"
    open_storage(home.storage_url).engine.dispose()
    assert home.database.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("name", "astray"), [("my%20runs", "my runs/tune.db"), ("a?b", "a")])
def test_a_database_that_went_astray_is_named_with_what_to_type(name: str, astray: str, tmp_path: Path) -> None:
    stray = tmp_path / astray
    open_storage(f"sqlite:///{stray}").engine.dispose()
    (tmp_path / name / "work").mkdir(parents=True)  # as a worker of then left it
    with pytest.raises(UsageError, match="lies outside of it") as refusal:
        resolve(tmp_path / name)
    typed = str(refusal.value).partition("then type: ")[2]
    assert shlex.split(typed)[:2] == ["mv", str(stray)]
    subprocess.run(typed, shell=True, check=True)
    assert resolve(tmp_path / name).database == tmp_path / name / "tune.db"
    assert not stray.exists()


def test_the_database_of_another_home_is_left_alone(tmp_path: Path) -> None:
    open_storage(f"sqlite:///{tmp_path}/my runs/tune.db").engine.dispose()
    assert resolve(tmp_path / "my%20runs").database == tmp_path / "my%20runs" / "tune.db", "a home that is new"
    (tmp_path / "my runs" / "work").mkdir()
    (tmp_path / "my%20runs" / "work").mkdir(parents=True)
    assert resolve(tmp_path / "my%20runs").database == tmp_path / "my%20runs" / "tune.db", "two homes"
