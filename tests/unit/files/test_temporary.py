"""Temporary files of a machine whose usual folders for them cannot be written to."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest

from petskin_tune.checkpoints.opening import check_store, open_store
from petskin_tune.database import sqlite_file
from petskin_tune.errors import UsageError
from petskin_tune.files import disks, temporary
from petskin_tune.home.home import resolve_home
from petskin_tune.trial.process import runner
from petskin_tune.trial.process.runner import Runner
from petskin_tune.worker.environment import keep_in


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder that tempfile looks for is there: its own test of them fails for root, too."""
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "not" / "there")])
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_they_lie_in_the_homes_own_working_folder(tmp_path: Path, nowhere: None) -> None:
    home = resolve_home(str(tmp_path / "home"), None, str(tmp_path / "store"), {}, study="petskin")
    assert not home.folder.exists()
    home.start()
    assert temporary.place() == Path(tempfile.gettempdir()) == home.work
    keep_in(home, "torch==2\n")
    (tmp_path / "store").mkdir()
    check_store(open_store(str(tmp_path / "store")))
    assert (home.folder / "environment.txt").read_text() == "torch==2\n"
    assert list(home.work.iterdir()) == []


def test_the_current_folder_is_none_for_temporary_files(
    tmp_path: Path, nowhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "not" / "there"), os.getcwd()])
    assert tempfile.gettempdir() == str(tmp_path / "mine")
    temporary.fall_back_on(tmp_path / "work")
    assert temporary.place() == tmp_path / "work"
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "mine"))  # asked for
    assert temporary.place() == tmp_path / "mine"


def test_a_folder_that_was_deleted_is_looked_for_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "deleted"))
    with temporary.new_folder() as folder:
        assert folder.is_dir()


def test_without_any_place_one_sentence_says_what_to_set(tmp_path: Path, nowhere: None) -> None:
    (tmp_path / "file").write_text("no folder")
    temporary.fall_back_on(tmp_path / "file" / "work")
    with pytest.raises(UsageError, match="set TMPDIR to a folder"), temporary.new_folder():
        pass


def test_a_network_homes_folder_on_this_machine_is_asked_for_by_its_own_name(
    nowhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disks, "_is_made_mine", lambda _: False)
    monkeypatch.setattr(disks, "_mine_in", lambda _: None)
    with pytest.raises(UsageError, match="XDG_CACHE_HOME"):
        disks.local_folder({})


def test_a_trials_process_is_told_of_the_place(tmp_path: Path, nowhere: None) -> None:
    temporary.fall_back_on(tmp_path / "work")
    assert Runner(tmp_path, {"TMPDIR": "/proc"})._environment["TMPDIR"] == str(tmp_path / "work")


def test_a_place_too_long_for_sockets_needs_a_shorter_one(
    tmp_path: Path, nowhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    monkeypatch.setitem(config, "tempdir", None)
    long = tmp_path / ("a" * 80)
    temporary.fall_back_on(long)
    monkeypatch.setattr(runner, "SHORT_FOLDERS", ("/proc/nowhere", str(tmp_path)))
    Runner(tmp_path)
    assert os.path.dirname(config["tempdir"]) == str(tmp_path)
    monkeypatch.setattr(runner, "SHORT_FOLDERS", ("/proc/nowhere",))
    with pytest.raises(UsageError, match="too long a name for sockets: set TMPDIR"):
        Runner(tmp_path)


def test_a_database_that_no_copy_can_be_made_of_is_not_judged(
    tmp_path: Path, nowhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tune.db"
    sqlite3.connect(file).execute("CREATE TABLE some (value)").connection.close()
    Path(f"{file}-wal").write_bytes(b"unsaved")
    temporary.fall_back_on(file / "work")
    monkeypatch.setattr(sqlite_file, "_readable", refusing)
    with pytest.raises(UsageError, match="set TMPDIR"):
        sqlite_file.connect(str(file), "ro", 1.0)
    assert sqlite_file.is_whole(file)


def refusing(*_: object) -> sqlite3.Connection:
    raise sqlite3.OperationalError("attempt to write a readonly database")
