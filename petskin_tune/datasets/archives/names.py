"""Names in archives and on disks: told apart from wrong code pages, and refused where they lead outside."""

from __future__ import annotations

import os
import unicodedata
import zipfile
from pathlib import PurePosixPath

CHECKSUMS = "petskin-tune-checksums.json"  # in an archive of ours: SHA-256 by name of every other file
_UTF8_FLAG = 0x800  # of a zip entry: its name is UTF-8 (APPNOTE.TXT 4.4.4, bit 11)


def zip_entry_name(entry: zipfile.ZipInfo) -> str:
    """The name that the author of a zip entry meant, composed (NFC), with forward slashes.

    Without the UTF-8 flag, Python decodes a name as cp437; Korean Windows wrote cp949 there, macOS plain UTF-8. From
    3.12 on it knows a second name (extra field 0x7075) and puts it into ``filename``; ``orig_filename`` is what it was.
    """
    name = entry.orig_filename.partition("\0")[0]
    if not entry.flag_bits & _UTF8_FLAG and not name.isascii():
        name = _decoded(name.encode("cp437"))
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def disk_name(name: str) -> str:
    """The name that a path on disk means, composed (NFC); bytes that are no UTF-8 are read as in a zip."""
    try:
        name.encode()
    except UnicodeEncodeError:
        name = _decoded(os.fsencode(name))
    return unicodedata.normalize("NFC", name)


def _decoded(raw: bytes) -> str:
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return raw.decode("cp437")


def leads_outside(name: str) -> bool:
    """Whether unpacking an entry of this name would write outside the folder that it is unpacked into."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name


def is_litter(name: str) -> bool:
    """Whether an entry is no one's data: what macOS adds, and pickled label caches, which run code when loaded."""
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name.startswith("._") or path.name == ".DS_Store" or path.suffix == ".cache"
