"""This user's folder on a machine whose home folder is no place for a database."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from petskin_tune.errors import UsageError
from petskin_tune.files import disks


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for temporary files of a machine whose HOME cannot be made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("HOME", "/proc/nobody")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(folder))
    monkeypatch.setattr(disks, "Path", lambda *parts: folder if parts == ("/var/tmp",) else Path(*parts))
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_cache_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = disks.local_folder({"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert folder == tmp_path / "cache" / "petskin-tune"
    assert mode(folder) == 0o700


def test_a_cache_folder_of_ours_that_others_may_write_to_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "petskin-tune").mkdir()
    (tmp_path / "petskin-tune").chmod(0o777)
    assert mode(disks.local_folder({"XDG_CACHE_HOME": str(tmp_path)})) == 0o700


def test_without_a_home_that_can_be_written_a_folder_is_made_that_nobody_could_guess(shared: Path) -> None:
    folder = disks.local_folder({})
    assert folder.parent == shared
    assert folder.name.startswith(f"petskin-tune-{os.getuid()}-")
    assert len(folder.name) >= len(f"petskin-tune-{os.getuid()}-") + 8
    assert mode(folder) == 0o700
    assert disks.local_folder({}) == folder


def test_a_cache_folder_of_a_strangers_is_left_alone(
    shared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "petskin-tune").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert not disks.local_folder({"XDG_CACHE_HOME": str(tmp_path)}).is_relative_to(tmp_path / "petskin-tune")


def test_a_folder_that_others_prepared_is_not_taken(shared: Path) -> None:
    name = f"petskin-tune-{os.getuid()}"
    (shared / "elsewhere").mkdir()
    (shared / name).symlink_to(shared / "elsewhere")
    (shared / f"{name}-a").mkdir()
    (shared / f"{name}-a").chmod(0o777)
    (shared / f"{name}7").mkdir(mode=0o700)
    taken = disks.local_folder({})
    assert taken.name not in (name, f"{name}-a", f"{name}7")


def test_a_folder_that_was_made_under_the_plain_name_stays_in_use(shared: Path) -> None:
    (shared / f"petskin-tune-{os.getuid()}").mkdir(mode=0o700)
    assert disks.local_folder({}).name == f"petskin-tune-{os.getuid()}"


def test_a_machine_without_any_place_is_told_what_to_set(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.rmdir()
    with pytest.raises(UsageError, match="XDG_CACHE_HOME"):
        disks.local_folder({})
