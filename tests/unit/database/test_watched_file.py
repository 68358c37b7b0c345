"""A database that is deleted, moved or replaced under a worker: what it held is not lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from petskin_tune.database.refusals import refusal
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "tune.db"


@pytest.fixture
def storage(file: Path) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{file}")
    opened.watch_file()
    optuna.create_study(storage=opened, study_name="mine")
    opened.require_file()
    yield opened
    opened.engine.dispose()


def studies(path: Path) -> list[str]:
    storage = open_storage(f"sqlite:///{path}")
    names = [study.study_name for study in storage.get_all_studies()]
    storage.engine.dispose()
    return names


@pytest.mark.parametrize("logs", ["deleted too", "left behind"])
def test_what_a_deleted_database_held_is_written_back(logs: str, storage: PetskinStorage, file: Path) -> None:
    file.unlink()
    if logs == "deleted too":
        for path in file.parent.glob("tune.db-*"):
            path.unlink()
    with pytest.raises(UsageError, match=r"was deleted .* written back there"):
        storage.require_file()
    assert studies(file) == ["mine"]
    assert not list(file.parent.glob("*.partial"))
    with pytest.raises(UsageError, match="was deleted"):  # and no second time
        storage.require_file()


def test_a_database_that_took_its_place_is_left_alone(storage: PetskinStorage, file: Path) -> None:
    for path in file.parent.glob("tune.db*"):
        path.unlink()
    other = open_storage(f"sqlite:///{file}")
    optuna.create_study(storage=other, study_name="theirs")
    other.engine.dispose()
    with pytest.raises(UsageError, match=r"was replaced .* was saved as"):
        storage.require_file()
    (saved,) = file.parent.glob("*.saved")
    assert studies(saved) == ["mine"]
    assert studies(file) == ["theirs"]


def test_what_the_database_of_a_deleted_home_held_is_saved_beside_it(storage: PetskinStorage, file: Path) -> None:
    shutil.rmtree(file.parent)
    with pytest.raises(UsageError, match=r"was deleted .* was saved as"):
        storage.require_file()
    (saved,) = file.parent.parent.glob("*.saved")
    assert studies(saved) == ["mine"]


def test_a_database_that_was_moved_is_still_whole(storage: PetskinStorage, file: Path) -> None:
    file.parent.rename(file.parent.with_name("elsewhere"))
    with pytest.raises(UsageError, match=r"was moved away .* put it back"):
        storage.require_file()
    assert studies(file.parent.with_name("elsewhere") / "tune.db") == ["mine"]


def test_a_connection_never_makes_a_deleted_database_anew(storage: PetskinStorage, file: Path) -> None:
    storage.engine.dispose()
    file.unlink()
    with pytest.raises(StorageInternalError) as raised:
        storage.get_all_studies()
    assert "file is gone" in str(refusal(raised.value))
    assert not file.exists()
