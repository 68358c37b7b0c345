"""Files that are either whole or not there, and folders that one process at a time fills for one purpose."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from petskin_tune import faults
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.paths import fitting_name
from petskin_tune.printable import raw

PARTIAL = ".partial"  # suffix of what is still being written; nothing reads such a file
_LONGEST_NAME = 120  # bytes of a temporary file's: an encrypted disk takes 143


@contextmanager
def replacing(path: Path, *, durable: bool = True, alone: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of ``path`` when the block ends well and leaves nothing when not.

    A reader, or a death at any instant, sees the old file or all of the new one. A symbolic link at ``path`` is
    replaced, not followed.

    Args:
        path: in a folder that exists, on a disk that can rename.
        durable: whether it also survives a lost machine; without, it may be missing or empty after a power cut.
        alone: no other process writes ``path``, so that what a kill leaves has a name of its own to be overwritten by.

    Raises:
        OSError: the disk refuses, or a device, a FIFO or a folder is there.
    """
    regular.require_replaceable(path)
    if alone:
        temporary = path.with_name(fitting_name(path.name, PARTIAL))
        temporary.unlink(missing_ok=True)
    else:
        temporary = path.with_name(fitting_name(f".{path.name}", f".{secrets.token_hex(4)}{PARTIAL}", _LONGEST_NAME))
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and deletions in ``folder`` survive a lost machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader, or a death at any instant, sees all of it or none of it.

    One process at a time may write a given path (see :func:`only_one`). Nothing is synced to the disk: after a power
    cut the file may be missing or empty, after a SIGKILL it is not. Text is written as UTF-8; names of files keep
    their bytes (see :func:`petskin_tune.printable.raw`).
    """
    with whole_file(path) as file:
        file.write(raw(content) if isinstance(content, str) else content)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes its name when the block ends well; as :func:`write_whole` for long contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False, alone=True) as file:
        yield file
        faults.reach("file-written")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV file (UTF-8, lines end in LF) as whole as :func:`write_whole` does, row by row."""
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        text.detach()


@contextmanager
def only_one(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold ``folder`` (made if missing) against other processes of this machine.

    The lock is ``flock`` on the folder itself: it leaves no file behind and ends with the process, however it ends.

    Args:
        folder: what to work on alone.
        wait: for another process to finish, which is right for what takes seconds.

    Raises:
        UsageError: another process holds it, and ``wait`` is off; or it is no folder and cannot become one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder ({error.strerror}); give another path.") from error
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UsageError(f"Another process is at work on {folder}; wait for it, or end it.") from error
        yield
    finally:
        os.close(handle)


def claim(dest: Path, record: str, order: Mapping[str, Any], *, may_change: Collection[str] = ()) -> None:
    """Take an empty folder for a piece of work, or the folder that the same work left unfinished or complete.

    Args:
        dest: the folder, held by :func:`only_one`.
        record: name of the file in it that says what it is being filled with.
        order: what decides the work's outcome, as plain values.
        may_change: keys of it that decide nothing of what the folder holds so far.

    Raises:
        UsageError: the folder holds something else, or the outcome of another order.
    """
    file = dest / record
    if file.exists():
        former = _read_order(file)
        changed = sorted(key for key in {*former, *order} if former.get(key) != order.get(key))
        if not set(changed) <= set(may_change):
            raise UsageError(
                f"{dest} was filled with another {', '.join(changed)} (see {record} there); give another folder, or "
                "delete it."
            )
        if not changed:
            return
    elif any(path.name != record + PARTIAL for path in dest.iterdir()):
        raise UsageError(f"{dest} is not empty and does not hold {record}; give another folder.")
    write_whole(file, json.dumps(order, ensure_ascii=False, indent=1) + "\n")


def _read_order(file: Path) -> dict[str, Any]:
    try:
        former = json.loads(regular.read_names(file))
    except (OSError, ValueError):
        former = None
    if not isinstance(former, dict):
        raise UsageError(
            f"{file} does not say what its folder is being filled with; give another folder, or delete it."
        )
    return former
