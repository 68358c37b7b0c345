"""Pictures: the one place that opens them, and judges whether a training can use them.

Whatever a file turns out to be, the answer is a picture or a :class:`BadPicture` whose text is the reason.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from petskin_tune.datasets.pictures.decoding import decode
from petskin_tune.files import regular
from petskin_tune.printable import printable

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a large picture; one that is too large is an error

SMALLEST_SIDE = 10  # pixels; Ultralytics refuses smaller images
END_OF_JPEG = b"\xff\xd9"
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
_ORIENTATION = 0x0112  # EXIF tag
# Pillow's names of what Ultralytics trains on (IMG_FORMATS in ultralytics/data/utils.py); a DNG is a TIFF.
_FORMATS = frozenset(("AVIF", "BMP", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP"))
_TURNED_ALIKE = frozenset(("JPEG", "MPO", "PNG"))  # by OpenCV as by Pillow; others are decoded to tell
_OTHERWISE_DECODED = (".tif", ".tiff", ".avif", ".heic", ".heif")  # Ultralytics goes by these names, whatever it is
_LONGEST_REASON = 100  # characters of what a library says
_LOOKED_AT = 64  # bytes at the beginning of a file
_HEIF = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # brands, ISO/IEC 23008-12
_CALLED_HEIF = (".avif", ".heic", ".heif")  # names under which Ultralytics lets Pillow decode
# What is often found under a picture's name, by its beginning, and what to say of it.
_NO_PICTURES: Mapping[bytes, str] = {
    b"version https://git-lfs": "a Git LFS pointer in the picture's place: type `git lfs pull` there",
    b"<!doctype": "a web page in the picture's place: download it again",
    b"<html": "a web page in the picture's place: download it again",
}

Point = tuple[float, float]  # x, y in pixels
# Where a point of the stored picture is shown, by orientation, for those that turn it by a quarter (EXIF 2.3, 4.6.4 A).
_TURNED: Mapping[int, Callable[[float, float, int, int], Point]] = {
    5: lambda x, y, width, height: (y, x),
    6: lambda x, y, width, height: (height - y, x),
    7: lambda x, y, width, height: (height - y, width - x),
    8: lambda x, y, width, height: (y, width - x),
}


class BadPicture(Exception):
    """A picture that cannot be used; the text is the reason for a report. It names no file and is a line long."""


@dataclass(frozen=True)
class Picture:
    """A picture whose header was read. ``size`` is (width, height) in pixels as shown, EXIF rotation applied."""

    file: BinaryIO
    suffix: str  # of its name
    image: Image.Image  # not decoded yet
    size: tuple[int, int]
    stored: tuple[int, int]  # the same before the rotation
    orientation: int = 1  # EXIF, as far as the training heeds it

    def shown(self, points: Iterable[Point]) -> tuple[Point, ...]:
        """Points of the stored picture, where a quarter's turn shows them."""
        turn = _TURNED.get(self.orientation, lambda x, y, *_: (x, y))
        return tuple(turn(x, y, *self.stored) for x, y in points)

    @property
    def raw(self) -> bytes:
        """The content of the file."""
        self.file.seek(0)
        return self.file.read()

    def pixels(self) -> Image.Image:
        """The picture as the training sees it: RGB, upright.

        Raises:
            BadPicture: it sees none.
        """
        return _pixels(self.raw, self.suffix, self.image.mode)


def open_picture(source: bytes | BinaryIO, suffix: str = "") -> Picture:
    """Read a picture's header.

    Args:
        source: content of the file, or the file, which must stay open as long as the picture is used.
        suffix: of its name: for some formats it decides how the training decodes them.

    Raises:
        BadPicture: it is empty, no picture, too small or too large.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    _require_picture(file.read(_LOOKED_AT), suffix)
    file.seek(0)
    try:
        image = Image.open(file)
        stored = image.size
    except Exception as error:
        raise _bad(error, "no readable picture") from error
    orientation = _orientation(image)
    size = stored
    if orientation in _TURNED:
        alike = image.format in _TURNED_ALIKE and suffix.lower() not in _OTHERWISE_DECODED
        size = stored[::-1] if alike else Picture(file, suffix, image, stored, stored).pixels().size
        if size == stored and len(set(size)) > 1:  # the decoder turns nothing
            orientation = 1
    if min(size) < SMALLEST_SIDE:
        raise BadPicture(f"smaller than {SMALLEST_SIDE} pixels")
    return Picture(file, suffix, image, size, stored, orientation)


def _require_picture(beginning: bytes, suffix: str) -> None:
    if not beginning:
        raise BadPicture("empty file")
    for mark, what in _NO_PICTURES.items():
        if beginning.lstrip()[: len(mark)].lower() == mark:
            raise BadPicture(what)
    if _is_heif(beginning):
        _register_heif(suffix)


def _is_heif(beginning: bytes) -> bool:
    return beginning[4:8] == b"ftyp" and beginning[8:12] in _HEIF and b"avif" not in beginning[:_LOOKED_AT]


def _register_heif(suffix: str) -> None:
    """Let Pillow read HEIC pictures, as Ultralytics does where the package is there."""
    try:
        from pi_heif import register_heif_opener
    except ImportError as error:
        if suffix and suffix.lower() not in _CALLED_HEIF:  # the package would not help
            raise BadPicture(_misnamed_heif(suffix)) from error
        raise BadPicture("a HEIC picture, which needs `pip install pi-heif`; or save it as JPEG") from error
    register_heif_opener()


def _misnamed_heif(suffix: str) -> str:
    return f"a HEIC picture, as iPhones take them, under the name of a {suffix}: save it as JPEG"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - broken EXIF turns nothing, as for Ultralytics
        return 1


def require_trainable(source: bytes | BinaryIO, suffix: str) -> Picture:
    """Judge a picture as a training does before it starts; a JPEG and a sound PNG without decoding them.

    Raises:
        BadPicture: a training would end at it, or see grey where the file is cut short.
    """
    picture = open_picture(source, suffix)
    kind = picture.image.format or "unknown"
    if kind not in _FORMATS:
        raise BadPicture(f"{kind} is no image format that the training reads: save it as JPEG or PNG")
    require_whole(picture)
    return picture


def require_whole(picture: Picture) -> None:
    """See that all of a picture is there and can be decoded, in the cheapest way that tells.

    Raises:
        BadPicture: the data is cut short, damaged or of a kind that the training does not decode.
    """
    if picture.image.format in ("JPEG", "MPO"):
        if not _ends(picture.file, END_OF_JPEG):  # bytes after the end mark are harmless: decode to tell
            verify(picture)
    elif not (picture.image.format == "PNG" and _ends(picture.file, _END_OF_PNG) and _checksums_agree(picture)):
        picture.pixels()


def require_whole_jpeg(file: BinaryIO) -> None:
    """See that all of a JPEG is there; what has no end mark is decoded to tell. For every reading of a picture.

    Raises:
        BadPicture: the data is cut short or damaged.
    """
    if not _ends(file, END_OF_JPEG):
        file.seek(0)
        verify(open_picture(file))


def _ends(file: BinaryIO, end: bytes) -> bool:
    """Whether these are the file's last bytes."""
    if file.seek(0, os.SEEK_END) < len(end):
        return False
    file.seek(-len(end), os.SEEK_END)
    return file.read() == end


def _checksums_agree(picture: Picture) -> bool:
    try:
        picture.file.seek(0)
        with Image.open(picture.file) as image:
            image.verify()
    except Exception:  # noqa: BLE001 - the training's decoder may be more patient: it is asked next
        return False
    return True


def verify(picture: Picture) -> None:
    """Decode a picture to see that all of it is there.

    Raises:
        BadPicture: the data is cut short or damaged, or of a kind that the training does not decode.
    """
    if picture.image.format not in ("JPEG", "MPO"):
        picture.pixels()
        return
    try:
        picture.image.draft("RGB", (picture.image.width // 8, picture.image.height // 8))  # cheapest; reads all data
        picture.image.load()
    except Exception as error:
        raise _bad(error, "cut short or damaged") from error


def picture_fault(image: Path) -> str:
    """Why a training would end at a picture on disk; empty where it would not."""
    try:
        with regular.opened(image, regular.LARGEST_PICTURE) as file:
            require_trainable(file, image.suffix)
    except BadPicture as error:
        return str(error)
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return ""


def _pixels(raw: bytes, suffix: str, mode: str) -> Image.Image:
    try:
        pixels = decode(raw, suffix)
    except Exception as error:
        raise _bad(error, "cut short or damaged") from error
    if pixels is None and _is_heif(raw):
        raise BadPicture(_misnamed_heif(suffix) if suffix.lower() not in _CALLED_HEIF else "cut short or damaged")
    if pixels is None:
        deep = mode.partition(";")[0] in ("F", "I") and mode != "I;16"
        raise BadPicture(f"pixels of another kind than 8 or 16 bits ({mode})" if deep else "cut short or damaged")
    return Image.fromarray(pixels[..., ::-1].copy())


def _bad(error: Exception, what: str) -> BadPicture:
    """The refusal of a picture that a library could not read; they raise anything from SyntaxError to RuntimeError."""
    if isinstance(error, Image.DecompressionBombError):
        return BadPicture(f"more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels that are decoded")
    if isinstance(error, MemoryError):
        return BadPicture("too large for this machine's memory")
    said = " ".join(printable(error).split())
    if isinstance(error, (ImportError, Image.UnidentifiedImageError)) or not said or " at 0x" in said:
        return BadPicture(what)
    return BadPicture(f"{what} ({said[:_LONGEST_REASON]})")
