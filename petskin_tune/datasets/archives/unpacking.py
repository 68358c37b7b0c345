"""A data set in one archive file: copied to local disk, unpacked once per machine, and not trusted."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import lzma
import os
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from petskin_tune import faults
from petskin_tune.datasets.archives.names import CHECKSUMS, disk_name, is_litter, leads_outside, zip_entry_name
from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import PARTIAL, only_one, write_whole
from petskin_tune.files.paths import resolved
from petskin_tune.printable import raw
from petskin_tune.retries import retrying

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MOST_MEMBERS = 5_000_000
MOST_GROWTH = 20  # times the archive's size; photographs hardly shrink
LEAST_LIMIT = 2**30  # bytes that any archive may unpack to
PATIENCE_SECONDS = 30.0  # with a disk that refuses a read
_PIECE = 2**20  # bytes read at a time
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# APPNOTE.TXT 4.4.5. Windows takes Deflate64 for files above 2 GB, 7-Zip and WinZip offer the others.
_OTHER_METHODS = {
    9: "Deflate64",
    93: "Zstandard",
    95: "XZ",
    96: "JPEG recompression",
    97: "WavPack",
    98: "PPMd",
    99: "AES",
}
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    UnicodeDecodeError,  # a zip's name that is not the UTF-8 that it says it is
    NotImplementedError,
)


class _Damaged(UsageError):
    """Its bytes are not those of an archive."""


@dataclass(frozen=True)
class _Member:
    name: str
    size: int  # bytes, as the archive states
    content: IO[bytes]


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is an archive we unpack."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, cache: Path) -> Path:
    """Unpack an archive below ``cache``, once per content, and return the folder.

    An archive on another disk (Drive, a network share) is first copied whole, which is far faster there than reading
    it piecemeal. Several processes may call this at once; one works, the others wait.

    Raises:
        UsageError: the archive cannot be read, is damaged, holds links or names that lead outside, unpacks to
            implausibly much, or there is too little room.
    """
    archive = resolved(archive)
    cache.mkdir(parents=True, exist_ok=True)
    with only_one(cache):
        status = archive.stat()
        seen = cache / (_digest_of(f"{archive}|{status.st_size}|{status.st_mtime_ns}") + ".json")
        folder = _seen(seen)
        if folder is not None and folder.is_dir():
            return folder
        copied = cache / ("copy" + PARTIAL)
        try:
            digest, folder = _unpack_new(archive, cache, copied)
        finally:  # also where it is what filled the disk
            copied.unlink(missing_ok=True)
        write_whole(seen, json.dumps({"archive": archive.name, "sha256": digest, "folder": folder.name}))
        return folder


def _seen(note: Path) -> Path | None:
    """The folder that a note says an archive was unpacked to; None: there is none, or a power cut has emptied it."""
    try:
        return note.parent / str(json.loads(note.read_text(encoding="utf-8"))["folder"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _unpack_new(archive: Path, cache: Path, copied: Path) -> tuple[str, Path]:
    """The archive's SHA-256, and the folder below ``cache`` that holds what is in it; ``copied`` may be left behind."""
    local, digest = _local_copy(archive, copied)
    try:
        return digest, _unpacked(archive, local, cache / digest[:32])
    except _Damaged:
        if local == archive:
            raise
        copied.unlink(missing_ok=True)
        local, again = _local_copy(archive, copied)  # a network disk now and then gives wrong bytes once
        if again == digest:
            raise
    return again, _unpacked(archive, local, cache / again[:32])


def _unpacked(archive: Path, local: Path, folder: Path) -> Path:
    if not folder.is_dir():
        _unpack_whole(archive, local, folder)
    return folder


def _digest_of(text: str) -> str:
    return hashlib.sha256(raw(text)).hexdigest()[:32]


def _local_copy(archive: Path, copied: Path) -> tuple[Path, str]:
    """Where to read the archive from, and its SHA-256.

    Raises:
        UsageError: it cannot be read, or not be copied.
    """
    same_disk = archive.stat().st_dev == copied.parent.stat().st_dev
    if not same_disk:
        _require_room(copied.parent, archive.stat().st_size, archive)
    digest = hashlib.sha256()
    try:
        with open(os.devnull if same_disk else copied, "wb") as target:
            for piece in _pieces(archive):
                digest.update(piece)
                target.write(piece)
    except OSError as error:
        raise UsageError(f"{archive} cannot be read or copied ({error}).") from error
    faults.reach("archive-copied")
    return (archive if same_disk else copied), digest.hexdigest()


def _pieces(archive: Path) -> Iterator[bytes]:
    """The bytes of a file; a read that is refused is tried again for a while, as a mounted Drive now and then asks."""
    place = 0
    with contextlib.ExitStack() as files:
        opened = [files.enter_context(open(archive, "rb"))]

        def read() -> bytes:
            try:
                opened[-1].seek(place)
                return opened[-1].read(_PIECE)
            except OSError:
                opened.append(files.enter_context(open(archive, "rb")))
                raise

        while piece := retrying(PATIENCE_SECONDS, OSError)(read):
            place += len(piece)
            yield piece


def _require_room(folder: Path, size: int, archive: Path) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UsageError(
            f"{archive.name} needs {size / 1e9:.1f} GB on the disk of {folder}, where {free / 1e9:.1f} GB are free; "
            "make room there."
        )


def _unpack_whole(archive: Path, local: Path, folder: Path) -> None:
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        _unpack_members(archive, local, partial)
    except _DAMAGE as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _Damaged(f"{archive} is damaged or no archive ({error}); copy or download it again.") from error
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UsageError(f"{archive} cannot be unpacked below {folder.parent}: {error.strerror or error}.") from error
    except UsageError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    os.replace(partial, folder)


def _unpack_members(archive: Path, local: Path, folder: Path) -> None:
    limit = max(LEAST_LIMIT, MOST_GROWTH * archive.stat().st_size)
    written = 0
    digests: dict[str, str] = {}
    members = _zip_members(archive, local) if archive.name.lower().endswith(".zip") else _tar_members(archive, local)
    for count, member in enumerate(members, 1):
        if leads_outside(member.name):
            raise UsageError(
                f"{archive.name} holds {member.name!r}, which leads outside its folder; it is not unpacked."
            )
        written += member.size
        if written > limit or count > MOST_MEMBERS:
            raise UsageError(
                f"{archive.name} would unpack to more than {limit / 1e9:.0f} GB or {MOST_MEMBERS:,} files, which no "
                "data set of this size does; unpack it yourself and give its data.yaml if you trust it."
            )
        _require_room(folder, member.size, archive)
        digests[member.name] = _write_member(member, folder / member.name)
        faults.reach("archive-member-written")
    _verify(folder / CHECKSUMS, digests)


def _verify(checksums: Path, digests: Mapping[str, str]) -> None:
    """Compare with what an archive of ours says of its files; it is not one of them. Other archives say nothing."""
    if CHECKSUMS not in digests:
        return
    try:
        stated = json.loads(checksums.read_text(encoding="utf-8"))
        wrong = next((name for name in stated if digests.get(_composed(name)) != stated[name]), None)
    except (ValueError, TypeError) as error:
        raise tarfile.ReadError(f"{CHECKSUMS} in it is broken") from error
    if wrong is not None:
        raise tarfile.ReadError(f"{wrong} is missing or not as {CHECKSUMS} in it says")
    checksums.unlink()


def _write_member(member: _Member, target: Path) -> str:
    """Write a file and return its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    digest = hashlib.sha256()
    with open(target, "wb") as file:
        while left and (piece := member.content.read(min(_PIECE, left))):
            file.write(piece)
            digest.update(piece)
            left -= len(piece)
    # Reading on proves the size (both ways) and makes zipfile compare the checksum.
    if left or member.content.read(1):
        raise zipfile.BadZipFile(f"{member.name} has another size than stated")
    return digest.hexdigest()


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _zip_members(archive: Path, local: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(local) as opened:
        for entry in opened.infolist():
            name = zip_entry_name(entry)
            if entry.is_dir() or name.endswith("/") or is_litter(name):
                continue
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise UsageError(f"{archive.name} holds a link, {name!r}; pack the files themselves.")
            if entry.compress_type not in _METHODS:
                raise UsageError(_other_method(archive, entry.compress_type))
            if entry.flag_bits & 1:
                raise UsageError(f"{archive.name} is protected by a password; pack it without one.")
            with opened.open(entry) as content:
                yield _Member(name, entry.file_size, content)


def _other_method(archive: Path, method: int) -> str:
    """What to say of a zip that Python's zipfile cannot unpack; it is sound, and another copy would not help."""
    named = _OTHER_METHODS.get(method, f"method {method}")
    return (
        f"{archive.name} is packed by {named}, which Python cannot unpack: unpack it with the program that packed "
        "it, and give the data.yaml, or pack it again as .tar."
    )


def _tar_members(archive: Path, local: Path) -> Iterator[_Member]:
    with tarfile.open(local, "r:*") as opened:
        for entry in opened:
            name = disk_name(entry.name)
            if entry.isdir() or is_litter(name):
                continue
            content = opened.extractfile(entry) if entry.isreg() else None
            if content is None:
                raise UsageError(f"{archive.name} holds a link or a device, {name!r}; pack the files themselves.")
            with content:
                yield _Member(name, entry.size, content)
        _require_end(opened)


def _require_end(opened: tarfile.TarFile) -> None:
    """Insist that zeros follow the last member, and nothing else.

    At a damaged header, or where a file was cut between two members, tarfile ends as if all were well. Reading to the
    end also makes gzip compare its checksum.
    """
    assert opened.fileobj is not None
    opened.fileobj.seek(opened.offset)
    rest = 0
    while piece := opened.fileobj.read(_PIECE):
        rest += len(piece)
        if piece.strip(b"\0"):
            raise tarfile.ReadError(f"no file begins at byte {opened.offset}, where one should")
    if not rest:
        raise tarfile.ReadError("it ends early")
