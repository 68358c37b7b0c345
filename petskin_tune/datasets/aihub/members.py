"""The files of an AI-Hub download, in folders and in zips, listed once and read in place.

A zip's table of contents may hold half a million entries, so it is read by one process only; what a reader needs to
know of an entry (offset, packed size, method, checksum) travels with the :class:`Member`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from petskin_tune.datasets.archives.names import disk_name, is_litter, zip_entry_name
from petskin_tune.errors import UsageError
from petskin_tune.files.regular import open_regular

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field (APPNOTE.TXT 4.3.7)
_ON_DISK = -1
_PAUSES = (0.2, 1.0)  # seconds before another attempt, where a disk or network fails to read


class Unreadable(Exception):
    """A member cannot be read; the text is the reason for the report."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file, on disk or in a zip. ``folder`` and ``name`` are composed (NFC), relative to the source."""

    folder: str
    name: str
    container: int  # index into Listing.containers
    size: int  # bytes, unpacked
    offset: int = _ON_DISK  # of the local header in the zip
    packed: int = 0  # bytes
    method: int = 0  # zipfile.ZIP_STORED, ZIP_DEFLATED, …
    checksum: int = 0  # CRC-32
    locked: bool = False  # protected by a password
    disk_path: str = ""  # as the disk spells it, relative to the container

    @property
    def path(self) -> str:
        """The name under which the report knows it."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def spelling(self) -> tuple[str, int, str]:
        """What tells members of the same path apart, unless one zip holds both: the later of these counts."""
        return self.path, self.container, self.disk_path


@dataclass(frozen=True)
class Listing:
    """Everything that is there, sorted by path."""

    containers: tuple[Path, ...]  # folders and zips
    members: list[Member]
    archives: list[Member]  # the zips that lie in a folder; their content is among the members

    def signature(self) -> str:
        """A digest of all names and sizes: another download has another one."""
        digest = hashlib.sha256()
        for member in self.members:
            digest.update(f"{member.path}|{member.size}\n".encode())
        return digest.hexdigest()


def list_sources(sources: Sequence[Path]) -> Listing:
    """List every file below the given folders and inside the given zips, and inside zips below the folders.

    Raises:
        UsageError: a source is missing, a zip is damaged or still in parts, or two sources have one name.
    """
    containers: list[Path] = []
    members: list[Member] = []
    archives: list[Member] = []
    prefixes = [_prefix(source, alone=len(sources) == 1) for source in sources]
    if len(set(prefixes)) < len(prefixes):
        raise UsageError(f"Two sources have the same name: {', '.join(sorted(prefixes))}; rename one.")
    for source, prefix in zip(sources, prefixes, strict=True):
        containers.append(source)
        if not source.is_dir():
            members.extend(_in_zip(source, prefix, len(containers) - 1))
            continue
        for member in _in_folder(source, prefix, len(containers) - 1):
            if not member.name.lower().endswith(".zip") or is_litter(member.path):
                members.append(member)
                continue
            archives.append(member)
            containers.append(source / member.disk_path)
            members.extend(_in_zip(containers[-1], member.path[: -len(".zip")], len(containers) - 1))
    members.sort(key=lambda member: (member.spelling, member.offset))
    return Listing(tuple(containers), members, archives)


def _prefix(source: Path, *, alone: bool) -> str:
    """What the names of a source's files begin with: a zip's own name, a folder's where there are several sources."""
    if source.is_file() and source.suffix.lower() == ".zip":
        return disk_name(source.stem)
    if source.is_dir():
        return "" if alone else disk_name(source.name)
    if source.suffix.lower() in (".tar", ".tgz", ".gz"):
        raise UsageError(f"{source} must be unpacked first; then give the folder with the zips that were in it.")
    raise UsageError(f"{source} is neither a folder nor a zip; give what AI-Hub's download wrote.")


def _in_folder(folder: Path, prefix: str, container: int) -> Iterable[Member]:
    for place, files in _walk(folder):
        relative = os.path.relpath(place, folder)
        below = "" if relative == "." else relative
        virtual = sys.intern("/".join(part for part in (prefix, disk_name(below)) if part))
        for name in files:
            if ".zip.part" in name.lower() and not is_litter(name):
                raise UsageError(_how_to_join(Path(place, name)))
            size = _size(os.path.join(place, name))
            yield Member(virtual, disk_name(name), container, size, disk_path=os.path.join(below, name))


def _how_to_join(part: Path) -> str:
    """What to do with the parts of a zip. A shell lists them by their digits, part10 before part2."""
    whole = part.name[: part.name.lower().rindex(".part")]
    parts, joined = f"{shlex.quote(whole)}.part*", shlex.quote(whole)
    line = f"printf '%s\\0' {parts} | sort -zV | xargs -0 cat > {joined}"
    return (
        f"{part} is a part of a download; join the parts in the order of their numbers: in {part.parent} type "
        f"`{line}`, and remove them once `unzip -t {joined}` finds no error."
    )


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Every folder and the names of its files, in a fixed order. Links are followed, but none in circles."""

    def refuse(error: OSError) -> None:
        raise UsageError(
            f"{error.filename} cannot be listed ({error.strerror}); nothing below it can be left uncounted."
        )

    root = os.path.realpath(folder)
    followed: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        for name in sorted(folders):
            path = os.path.join(place, name)
            if os.path.islink(path) and not _leads_elsewhere(os.path.realpath(path), root, followed):
                folders.remove(name)
        folders.sort()
        yield place, sorted(files)


def _leads_elsewhere(target: str, root: str, followed: set[str]) -> bool:
    """Whether a link leads to files that are listed under no other name; then ``followed`` has it from now on."""
    known = target in followed or os.path.commonpath((target, root)) in (target, root)
    followed.add(target)
    return not known


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return 0  # a broken link: reported like the empty file that it is
        raise UsageError(f"{path} cannot be looked at ({error.strerror}); mend that, then type it again.") from error


def _in_zip(path: Path, prefix: str, container: int) -> Iterable[Member]:
    try:
        with open(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if not zip_entry_name(entry).endswith("/"):
                    yield _member_of(entry, prefix, container)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({error}); download it again, or move it away to do without.") from error


def _member_of(entry: zipfile.ZipInfo, prefix: str, container: int) -> Member:
    inside = PurePosixPath(zip_entry_name(entry))
    return Member(
        folder=sys.intern("/".join([prefix, *inside.parts[:-1]])),
        name=inside.name,
        container=container,
        size=entry.file_size,
        offset=entry.header_offset,
        packed=entry.compress_size,
        method=entry.compress_type,
        checksum=entry.CRC,
        locked=bool(entry.flag_bits & 1),
    )


class MemberReader:
    """Reads members' content; keeps each zip open. One per process."""

    def __init__(self, containers: Sequence[Path]) -> None:
        self._containers = containers
        self._open: dict[int, IO[bytes]] = {}

    def read(self, member: Member) -> bytes:
        """A member's whole content.

        Raises:
            Unreadable: it is empty, damaged, protected, or packed in a way that Python cannot read.
            UsageError: it cannot be read now, which says nothing of its content: no reason to do without it.
        """
        if member.locked:
            raise Unreadable("protected by a password")
        if member.size == 0:
            raise Unreadable("empty file")
        for pause in _PAUSES:
            try:
                return self._content(member)
            except OSError:
                if file := self._open.pop(member.container, None):
                    file.close()
                time.sleep(pause)
        try:
            return self._content(member)
        except OSError as error:
            raise UsageError(
                f"{member.path} cannot be read ({error.strerror or type(error).__name__}); mend that, then type the "
                "same command again, it goes on."
            ) from error

    def _content(self, member: Member) -> bytes:
        if member.offset == _ON_DISK:
            return (self._containers[member.container] / member.disk_path).read_bytes()
        return self._from_zip(member)

    def _from_zip(self, member: Member) -> bytes:
        file = self._open.get(member.container)
        if file is None:
            file = self._open[member.container] = open(self._containers[member.container], "rb")  # noqa: SIM115
        file.seek(member.offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise Unreadable("damaged in the zip")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        file.seek(name_length + extra_length, os.SEEK_CUR)
        content = _unpacked(file.read(member.packed), member)
        if len(content) != member.size or zlib.crc32(content) != member.checksum:
            raise Unreadable("damaged in the zip")
        return content


def _unpacked(packed: bytes, member: Member) -> bytes:
    if member.method == zipfile.ZIP_STORED:
        return packed
    if member.method != zipfile.ZIP_DEFLATED:
        raise Unreadable(f"packed with method {member.method}, which Python cannot read")
    try:
        # One byte more than stated is enough to see a lie, and no bomb goes off.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
    except zlib.error as error:
        raise Unreadable("damaged in the zip") from error
