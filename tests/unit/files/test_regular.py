"""Files that somebody named are read only where they are files, and only as far as they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from petskin_tune.files import regular


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_a_device_is_no_file(device: str) -> None:
    with pytest.raises(OSError, match="a device, a pipe or a socket"):
        regular.read_bytes(Path(device), 100)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a device, a pipe or a socket"):
        regular.read_bytes(tmp_path / "pipe", 100)


def test_a_folder_and_what_is_not_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="it is a folder"):
        regular.read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        regular.read_text(tmp_path / "nothing")


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert len(regular.read_bytes(tmp_path / "file", 100)) == 100
    with pytest.raises(OSError, match="where at most 99 B are read"):
        regular.read_bytes(tmp_path / "file", 99)


def test_a_sparse_file_without_end_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="TB, where at most"):
        regular.read_text(tmp_path / "large")


def test_a_file_that_says_it_is_empty_and_is_not_is_limited_too() -> None:
    status = Path("/proc/self/status")
    assert status.stat().st_size == 0
    with pytest.raises(OSError, match="more than 10 B"):
        regular.read_bytes(status, 10)
