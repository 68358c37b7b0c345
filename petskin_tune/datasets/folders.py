"""The images in a folder, or in a list of them: found without following what has no end."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.atomic import write_whole
from petskin_tune.files.paths import resolved

# Ultralytics' IMG_FORMATS (ultralytics/data/utils.py); a test compares the two.
IMAGE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".dng", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp")
)
_OF_THE_DISK = "lost+found"  # at the top of a disk, for its administrator alone
MOST_ENTRIES = 5_000_000  # files and folders that are looked through for the images of a split
_NOBODYS_DATA = tuple(Path(name) for name in ("/", "/proc", "/sys", "/dev"))  # where a walk ends nowhere
_PSEUDO = tuple(Path(name) for name in ("/proc", "/sys"))

Identity = tuple[int, int]  # device and inode of a folder


def images_at(place: Path) -> Iterator[Path]:
    """The images in a folder and below, hidden ones aside, or those that a list names, relative to it.

    Raises:
        UsageError: it is no folder of images and no list; a link leads back to a folder above it.
    """
    if place.is_dir():
        yield from _images_below(place)
        return
    for line in list_lines(place):
        image = place.parent / line
        if _is_image(image.name):
            decomposed = not unicodedata.is_normalized("NFC", line)  # others are not looked at: a list may be long
            yield Path(os.path.normpath(as_spelled(image) if decomposed else image))


def as_spelled(path: Path) -> Path:
    """A path that nothing lies at in the Unicode form that something lies at: a Mac decomposes, archives compose."""
    text = str(path)
    if text.isascii() or os.path.lexists(path):
        return path
    others = (Path(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    return next((other for other in others if os.path.lexists(other)), path)


def list_lines(image_list: Path) -> list[str]:
    """The lines of an image list that say something."""
    try:
        text = regular.read_names(image_list)
    except OSError as error:
        raise UsageError(f"{image_list} cannot be read as a list of images: {error.strerror or error}.") from error
    if "\0" in text:
        raise UsageError(f"{image_list} cannot be read as a list of images: it is no text.")
    return [line.strip() for line in text.splitlines() if line.strip()]


def write_list(image_list: Path, images: Iterable[Path | str]) -> None:
    """Write a list of images, whose paths need not be UTF-8.

    Args:
        image_list: to be written.
        images: absolute paths, or text that begins with ``./``: relative to the list for Ultralytics, too.

    Raises:
        UsageError: a path holds a line end, or space at its end, and a list could not tell.
    """
    lines = [str(image) for image in images]
    if odd := next((line for line in lines if line.strip() != line or len(line.splitlines()) != 1), None):
        raise UsageError(f"{odd} has a line end or space around its name, which no list of images can hold; rename it.")
    write_whole(image_list, "".join(f"{line}\n" for line in lines))


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _images_below(folder: Path) -> Iterator[Path]:
    real = resolved(folder)
    if real in _NOBODYS_DATA or any(real.is_relative_to(pseudo) for pseudo in _PSEUDO):
        raise UsageError(f"{folder} is no folder of images: name the one that holds them.")
    waiting: list[tuple[Path, tuple[Identity, ...]]] = [(folder, ())]
    looked_at = 0
    while waiting:
        place, above = waiting.pop()
        here = _identity(place)
        if here is None:
            continue
        if here in above:
            raise UsageError(f"{place} is a link to a folder that it lies in; remove it.")
        for entry in _entries(place):
            looked_at += 1
            if looked_at > MOST_ENTRIES:
                raise UsageError(f"{folder} holds more than {MOST_ENTRIES:,} files: name the folder of the images.")
            if _is_folder(entry):
                waiting.append((place / entry.name, (*above, here)))
            elif _is_image(entry.name):
                yield place / entry.name


def _identity(folder: Path) -> Identity | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is not hidden in a folder.

    Raises:
        UsageError: it cannot be listed: what lies in it would be missing from the data set without a word.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        if folder.name == _OF_THE_DISK:
            return []
        raise UsageError(f"{folder} cannot be listed: {error.strerror or error}.") from error
