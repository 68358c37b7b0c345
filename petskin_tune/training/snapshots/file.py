"""Training state to a file and back: plain values and tensors, hashed, written so that a file is whole or absent.

A file is what ``torch.save`` writes, followed by a footer with the SHA-256 of everything before it: truncated or
altered files are refused before torch reads them, and ``torch.load(file, weights_only=True)`` needs no code of ours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from petskin_tune import faults
from petskin_tune.files.atomic import PARTIAL, replacing
from petskin_tune.protocol import SNAPSHOT_FORMAT, Position

FORMAT = SNAPSHOT_FORMAT
_FOOTER_MAGIC = b"petskin-tune snapshot sha256 "
_FOOTER_SIZE = len(_FOOTER_MAGIC) + 64
_CHUNK = 1 << 20  # bytes
_KEPT = 2  # files in a run's folder
_NAME = re.compile(r"snapshot-(\d{5,})-(\d{7,})\.pt")


class SnapshotDamaged(Exception):
    """The file is truncated, altered or no snapshot at all; an older one may do."""


class SnapshotForeign(Exception):
    """The snapshot is whole, but of another trial, study, data set, model or format; the message names which."""


@dataclass(frozen=True)
class Written:
    """A complete snapshot on disk."""

    path: Path
    size: int  # bytes
    sha256: str  # of the whole file, as ``sha256sum`` prints it


def path_for(folder: Path, position: Position) -> Path:
    """Return the name of the snapshot at ``position``; names sort as positions do."""
    return folder / f"snapshot-{position.epoch:05d}-{position.batch:07d}.pt"


def write(state: Mapping[str, Any], path: Path) -> Written:
    """Write ``state`` to ``path`` durably: temporary file, fsync, rename, fsync of the folder; older ones are removed.

    Raises:
        OSError: The disk is full or fails; ``path`` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, alone=True) as file:
        hashing = _HashingFile(file)
        _save(state, hashing)
        hashing.write(_FOOTER_MAGIC + hashing.digest.hexdigest().encode())
        faults.reach("snapshot-temporary-written")
    faults.reach("snapshot-renamed")
    _remove_older(path)
    return Written(path, hashing.size, hashing.digest.hexdigest())


def read(path: Path) -> dict[str, Any]:
    """Return the state in a snapshot file, tensors on the CPU.

    Raises:
        SnapshotDamaged: The file is absent, truncated or altered.
    """
    try:
        _verify(path)
        with open(path, "rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except SnapshotDamaged:
        raise
    except Exception as error:
        raise SnapshotDamaged(f"{path.name} cannot be read ({error})") from error
    if not isinstance(state, dict) or "format" not in state:
        raise SnapshotDamaged(f"{path.name} is not a snapshot")
    return state


def check_identity(state: Mapping[str, Any], identity: Mapping[str, str], arguments: Mapping[str, Any]) -> None:
    """Refuse a snapshot that is not of this trial.

    Args:
        state: As ``read`` returns it.
        identity: What the trial's job says that it is: study, trial, data, model.
        arguments: The trial's training arguments, without those that may differ between machines.

    Raises:
        SnapshotForeign: Something differs; the message names it.
    """
    if state["format"] != FORMAT:
        raise SnapshotForeign(f"the snapshot has format {state['format']}, this version of petskin-tune reads {FORMAT}")
    for kind, recorded, expected in (
        ("", state["identity"], identity),
        ("argument ", state["requested"], arguments),
    ):
        for key in sorted({*recorded, *expected}):
            if recorded.get(key) != expected.get(key):
                raise SnapshotForeign(
                    f"the snapshot is of {kind}{key} {recorded.get(key)!r}, this trial's is {expected.get(key)!r}"
                )


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for temporary in folder.glob(f"*{PARTIAL}"):
        temporary.unlink(missing_ok=True)


def _remove_older(newest: Path) -> None:
    """Keep ``newest`` and the last ones before it in the training, whatever clocks say of when they were written.

    What lies further on is of a course that was given up: after a fall-back, positions are passed a second time.
    """
    last = _position_of(newest)
    if last is None:  # no snapshot of a course
        return
    named = [(position, file) for file in newest.parent.iterdir() if (position := _position_of(file)) is not None]
    before = sorted((pair for pair in named if pair[0] < last), reverse=True)
    kept = {newest, *(file for _, file in before[: _KEPT - 1])}
    for _, file in named:
        if file not in kept:
            file.unlink(missing_ok=True)


def _position_of(file: Path) -> tuple[int, int] | None:
    """Epoch and batch that the name of a snapshot says; None: another file."""
    found = _NAME.fullmatch(file.name)
    return (int(found[1]), int(found[2])) if found else None


def _verify(path: Path) -> None:
    digest = hashlib.sha256()
    try:
        remaining = path.stat().st_size - _FOOTER_SIZE
        with open(path, "rb") as file:
            while remaining > 0 and (chunk := file.read(min(_CHUNK, remaining))):
                digest.update(chunk)
                remaining -= len(chunk)
            footer = file.read()
    except OSError as error:
        raise SnapshotDamaged(f"{path.name} cannot be read ({error.strerror})") from error
    if footer != _FOOTER_MAGIC + digest.hexdigest().encode():
        raise SnapshotDamaged(f"{path.name} is damaged: its checksum does not fit")


def _save(state: Mapping[str, Any], file: _HashingFile) -> None:
    """Let torch write; where the disk refused, it raises an error of its own (about a position in the file) instead."""
    try:
        torch.save(dict(state), file)  # type: ignore[arg-type]
    except RuntimeError:
        if file.error is None:
            raise
        raise file.error from None


class _HashingFile:
    """A file opened for writing that hashes what goes through it, and remembers why the disk refused."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
