"""Photographs cut, made smaller and encoded again: by the import and by ``data resize``."""

from __future__ import annotations

import io

from PIL import Image, ImageOps

from petskin_tune.datasets.pictures.reading import END_OF_JPEG, BadPicture, Picture

JPEG_QUALITY = 90

Window = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the image as shown


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
            if raw.endswith(END_OF_JPEG):
                return raw
        return _encoded(_resized(picture, window, target))
    except BadPicture:
        raise
    except Exception as error:
        raise BadPicture("cut short or damaged") from error


def draft(picture: Picture, target: tuple[int, int]) -> Image.Image:
    """The picture as the training sees it, upright and RGB, at the coarsest scale of at least ``target`` pixels.

    A JPEG of 8 bits a channel is decoded at 1/2, 1/4 or 1/8 where that suffices; no other decoder can.

    Raises:
        BadPicture: it cannot be decoded.
    """
    image = picture.image
    if image.format != "JPEG" or image.mode not in ("RGB", "L"):
        return picture.pixels()
    try:
        image.draft("RGB", target)
        ImageOps.exif_transpose(image, in_place=True)
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:
        raise BadPicture("cut short or damaged") from error


def _resized(picture: Picture, window: Window, target: tuple[int, int]) -> Image.Image:
    """Decode at the coarsest scale that still has a pixel for every one wanted, then cut and resize."""
    left, top, right, bottom = window
    width, height = picture.size
    needed = max(target[0] / (right - left), target[1] / (bottom - top))
    shown = draft(picture, (round(picture.image.width * needed), round(picture.image.height * needed)))
    x, y = shown.width / width, shown.height / height
    box = (left * x, top * y, right * x, bottom * y)
    if shown.size == target and box == (0, 0, *target):
        return shown
    return shown.resize(target, Image.Resampling.BILINEAR, box=box)


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
