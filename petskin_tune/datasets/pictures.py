"""Photographs decoded, cut, made smaller and encoded again: by the import and by ``data resize``."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from PIL import Image, ImageOps

JPEG_QUALITY = 90
_END_OF_JPEG = b"\xff\xd9"
_ORIENTATION = 0x0112  # EXIF tag
_SMALLEST = 10  # pixels a side; Ultralytics refuses smaller images

Point = tuple[float, float]  # x, y in pixels
# Where a point of the stored picture is shown, by orientation, for those that turn it by a quarter (EXIF 2.3, 4.6.4 A).
_TURNED: Mapping[int, Callable[[float, float, int, int], Point]] = {
    5: lambda x, y, width, height: (y, x),
    6: lambda x, y, width, height: (height - y, x),
    7: lambda x, y, width, height: (height - y, width - x),
    8: lambda x, y, width, height: (y, width - x),
}

Window = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the image as shown


class BadPicture(Exception):
    """A picture that cannot be used; the text is the reason for a report."""


@dataclass(frozen=True)
class Picture:
    """A picture whose header was read. ``size`` is (width, height) in pixels as shown, EXIF rotation applied."""

    raw: bytes
    image: Image.Image
    size: tuple[int, int]
    stored: tuple[int, int]  # the same before the rotation
    orientation: int = 1  # EXIF

    def shown(self, points: Iterable[Point]) -> tuple[Point, ...]:
        """Points of the stored picture, where a quarter's turn shows them."""
        turn = _TURNED.get(self.orientation, lambda x, y, *_: (x, y))
        return tuple(turn(x, y, *self.stored) for x, y in points)


def open_picture(raw: bytes) -> Picture:
    """Read a picture's header.

    Raises:
        BadPicture: it is empty, no picture, or too small.
    """
    if not raw:
        raise BadPicture("empty file")
    try:
        image = Image.open(io.BytesIO(raw))
        orientation = image.getexif().get(_ORIENTATION, 1)
        turned = orientation in _TURNED
    except (OSError, ValueError, TypeError, SyntaxError, ImportError, Image.DecompressionBombError) as error:
        # ImportError: Ultralytics, where it is loaded, makes PIL look for a HEIF plugin when it knows no better.
        raise BadPicture("no readable picture") from error
    width, height = image.size[::-1] if turned else image.size
    if min(width, height) < _SMALLEST:
        raise BadPicture(f"smaller than {_SMALLEST} pixels")
    return Picture(raw, image, (width, height), image.size, orientation)


def written_size(window: Window, imgsz: int | None) -> tuple[int, int]:
    """Width and height in pixels of a window once its long side is at most ``imgsz`` (None: as it is)."""
    width, height = window[2] - window[0], window[3] - window[1]
    scale = min(1.0, imgsz / max(width, height)) if imgsz else 1.0
    return max(1, round(width * scale)), max(1, round(height * scale))


def render(picture: Picture, window: Window, imgsz: int | None) -> bytes:
    """The window of a picture as the content of a JPEG file, made smaller where it is larger than ``imgsz``.

    A whole JPEG that needs no change keeps its bytes. One with something behind its end mark is encoded again:
    otherwise Ultralytics does so, in place, at the first training.

    Raises:
        BadPicture: the data is cut short or damaged.
    """
    width, height = picture.size
    whole = window == (0, 0, width, height)
    target = written_size(window, imgsz)
    untouched = whole and target == picture.size and picture.image.format == "JPEG"
    try:
        if untouched:
            picture.image.load()
            raw = picture.raw.rstrip(b"\0")
            if raw.endswith(_END_OF_JPEG):
                return raw
        return _encoded(_resized(picture, window, target))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadPicture("cut short or damaged") from error


def verify(picture: Picture) -> None:
    """Decode a picture to see that all of it is there.

    Raises:
        BadPicture: the data is cut short or damaged.
    """
    try:
        picture.image.draft("RGB", (picture.image.width // 8, picture.image.height // 8))  # cheapest; reads all data
        picture.image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadPicture("cut short or damaged") from error


def _resized(picture: Picture, window: Window, target: tuple[int, int]) -> Image.Image:
    """Decode at the coarsest scale that still has a pixel for every one wanted, then cut and resize."""
    image = picture.image
    left, top, right, bottom = window
    width, height = picture.size
    if image.format == "JPEG":
        needed = max(target[0] / (right - left), target[1] / (bottom - top))
        image.draft("RGB", (round(image.width * needed), round(image.height * needed)))
    ImageOps.exif_transpose(image, in_place=True)
    shown = image if image.mode == "RGB" else image.convert("RGB")
    x, y = shown.width / width, shown.height / height
    box = (left * x, top * y, right * x, bottom * y)
    if shown.size == target and box == (0, 0, *target):
        return shown
    return shown.resize(target, Image.Resampling.BILINEAR, box=box)


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
