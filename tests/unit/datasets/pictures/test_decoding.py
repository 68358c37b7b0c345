"""Pixels are those that the trainer's own reader gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from petskin_tune.datasets.pictures.decoding import decode

GREY = np.random.RandomState(0).randint(0, 256, (24, 36)).astype(np.uint8)
COLOUR = np.random.RandomState(1).randint(0, 256, (24, 36, 3)).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 257


def with_pillow(pixels: np.ndarray, mode: str | None = None, **options: object) -> Callable[[Path], object]:
    image = Image.fromarray(pixels)
    return lambda path: (image.convert(mode) if mode else image).save(path, **options)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rgb.png", with_pillow(COLOUR)),
        ("alpha.png", with_pillow(COLOUR, "RGBA")),
        ("palette.png", with_pillow(COLOUR, "P")),
        ("bits.png", with_pillow(GREY, "1")),
        ("grey16.png", with_pillow(DEEP)),
        ("grey16.tif", with_pillow(DEEP)),
        ("rgb16.tif", lambda path: cv2.imwrite(str(path), np.dstack([DEEP] * 3))),
        ("rgba.tif", with_pillow(COLOUR, "RGBA")),
        ("cmyk.tif", with_pillow(COLOUR, "CMYK")),
        ("cmyk.jpg", with_pillow(COLOUR, "CMYK")),
        ("turned.jpg", with_pillow(COLOUR, exif=turned(6))),
        ("turned.png", with_pillow(COLOUR, exif=turned(8))),
        ("pages.tif", with_pillow(GREY, save_all=True, append_images=[Image.fromarray(255 - GREY)])),
        ("lossy.webp", with_pillow(COLOUR)),
        ("picture.avif", with_pillow(COLOUR)),
        ("picture.jp2", with_pillow(COLOUR)),
        ("picture.bmp", with_pillow(GREY)),
    ],
)
def test_a_picture_is_decoded_as_by_the_training(tmp_path: Path, name: str, write: Callable[[Path], object]) -> None:
    from ultralytics.utils.patches import imread

    write(tmp_path / name)
    pixels = decode((tmp_path / name).read_bytes(), Path(name).suffix)
    assert pixels is not None
    np.testing.assert_array_equal(pixels, imread(tmp_path / name))


@pytest.mark.parametrize("kind", ["f4", "f8", "i4"])
def test_numbers_of_another_kind_are_no_pixels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), np.dstack([GREY] * 3).astype(kind))
    assert decode(path.read_bytes(), ".tif") is None
