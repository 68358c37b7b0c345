"""Files that somebody named are read only where they are files, and only as far as they should be."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from petskin_tune.files import regular
from petskin_tune.files.atomic import replacing, write_whole
from petskin_tune.files.durable import measure, remove, write_new
from petskin_tune.files.regular import NotRegular, open_regular, read_bytes


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/urandom"])
def test_a_device_is_no_file(device: str) -> None:
    with pytest.raises(OSError, match=r"it is a (device|FIFO), not a file"):
        regular.read_bytes(Path(device), 100)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"it is a (device|FIFO), not a file"):
        regular.read_bytes(tmp_path / "pipe", 100)


def test_a_folder_and_what_is_not_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="it is a folder"):
        regular.read_text(tmp_path)
    with pytest.raises(FileNotFoundError):
        regular.read_text(tmp_path / "nothing")


def test_a_file_is_read_up_to_its_limit_and_no_further(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert len(regular.read_bytes(tmp_path / "file", 100)) == 100
    with pytest.raises(OSError, match="larger than the 99 B"):
        regular.read_bytes(tmp_path / "file", 99)


def test_a_sparse_file_without_end_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=r"larger than the 67.1 MB"):
        regular.read_text(tmp_path / "large")


def test_a_file_that_says_it_is_empty_and_is_not_is_limited_too() -> None:
    status = Path("/proc/self/status")
    assert status.stat().st_size == 0
    with pytest.raises(OSError, match="larger than the 10 B"):
        regular.read_bytes(status, 10)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_bytes(b"what nobody may lose")
    return path


@pytest.fixture(params=["FIFO", "device", "folder", "socket"])
def odd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "odd"
    if request.param == "FIFO":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's path has 107 bytes at most
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("odd")
    else:
        path = Path("/dev/null")
    return path


@pytest.mark.parametrize("network", [True, False])
def test_a_link_is_deleted_and_what_it_leads_to_is_whole(tmp_path: Path, victim: Path, network: bool) -> None:
    link = tmp_path / "snapshot.pt"
    link.symlink_to(victim)
    remove(link, network=network)
    assert not link.is_symlink()
    assert victim.read_bytes() == b"what nobody may lose"


@pytest.mark.parametrize("network", [True, False])
def test_a_new_file_takes_a_links_place_and_not_that_of_what_it_leads_to(
    tmp_path: Path, victim: Path, network: bool
) -> None:
    (tmp_path / "source").write_bytes(b"new")
    link = tmp_path / "link"
    link.symlink_to(victim)
    write_new(tmp_path / "source", link, network=network)
    assert (link.read_bytes(), link.is_symlink()) == (b"new", False)
    assert victim.read_bytes() == b"what nobody may lose"


@pytest.mark.parametrize("alone", [True, False])
def test_writing_whole_follows_no_link_at_either_of_its_names(tmp_path: Path, victim: Path, alone: bool) -> None:
    for name in ("file", "file.partial"):
        (tmp_path / name).symlink_to(victim)
    with replacing(tmp_path / "file", durable=False, alone=alone) as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert victim.read_bytes() == b"what nobody may lose"


@pytest.mark.parametrize("network", [True, False])
def test_what_is_no_file_is_not_deleted(odd: Path, network: bool) -> None:
    with pytest.raises(NotRegular):
        remove(odd, network=network)
    assert odd.exists()


def test_what_is_no_file_is_not_read_and_nobody_waits_for_it(odd: Path) -> None:
    for read in (lambda: read_bytes(odd, 100), lambda: measure(odd)):
        with pytest.raises(OSError, match=r"it is a|No such device"):
            read()


def test_what_is_no_file_is_not_replaced(odd: Path) -> None:
    before = odd.lstat()
    with pytest.raises(NotRegular):
        write_whole(odd, b"new")
    assert odd.lstat().st_ino == before.st_ino


def test_a_link_is_followed_where_that_does_no_harm(tmp_path: Path, victim: Path) -> None:
    (tmp_path / "link").symlink_to(victim)
    assert read_bytes(tmp_path / "link", 100) == b"what nobody may lose"
    with pytest.raises(NotRegular, match="symbolic link"):
        open_regular(tmp_path / "link", follow=False)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, victim: Path) -> None:
    def fail_half_way() -> None:
        with replacing(victim) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert victim.read_bytes() == b"what nobody may lose"
    assert list(tmp_path.iterdir()) == [victim]


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("피" * 85)
    with replacing(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_a_pipe_is_written_to_while_somebody_reads_it_and_is_refused_where_nobody_does(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="a FIFO that nobody reads"):
        regular.write_text(pipe, "text")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    regular.write_text(pipe, "다")
    assert os.read(reader, 100) == "다".encode()
    os.close(reader)


def test_text_takes_the_place_of_longer_text_and_goes_into_devices(tmp_path: Path) -> None:
    regular.write_text(tmp_path / "file", "longer")
    regular.write_text(tmp_path / "file", "short")
    assert (tmp_path / "file").read_text() == "short"
    regular.write_text(Path("/dev/null"), "nothing")


def test_what_utf_8_has_not_is_spelled_out_and_never_empties_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    regular.write_text(tmp_path / "file", "다 \ud800 \udcc7")
    assert (tmp_path / "file").read_text(encoding="utf-8") == r"다 \ud800 \udcc7"
