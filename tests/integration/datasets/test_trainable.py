"""What is called ready can be trained: the judgement of init and the training's own reading agree."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFile, PngImagePlugin

from petskin_tune.commands.data import data
from petskin_tune.datasets import demo
from petskin_tune.datasets.check import check
from petskin_tune.datasets.fingerprint import fingerprint
from petskin_tune.datasets.pictures import reading as pictures
from petskin_tune.errors import UsageError

NOISE = Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype(np.uint8))


def encoded(kind: str, image: Image.Image = NOISE, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def long_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 3_000_000, zip=True)
    return encoded("PNG", pnginfo=info)


def bomb() -> bytes:
    """A PNG that says that it has 900 million pixels."""
    raw = bytearray(encoded("PNG", NOISE.convert("1")))
    raw[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    raw[29:33] = zlib.crc32(bytes(raw[12:29])).to_bytes(4, "big")
    return bytes(raw)


def heic(brand: bytes = b"heic") -> bytes:
    """The beginning of what an iPhone writes."""
    return b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(200)


BAD: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty": (".png", lambda: b"", "empty file"),
    "text": (".jpg", lambda: b"no picture at all", "no readable picture"),
    "an LFS pointer": (
        ".png",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
        "git lfs pull",
    ),
    "a web page": (".jpg", lambda: b"<!DOCTYPE html><title>Sign in</title>", "a web page"),
    "a GIF": (".jpg", lambda: encoded("GIF", NOISE.convert("P")), "GIF is no image format"),
    "a PPM": (".jpg", lambda: encoded("PPM"), "PPM is no image format"),
    "an odd PPM": (".png", lambda: b"P6\n99999999999999999999 3\n255\n", "no readable picture"),
    "floating point": (".tif", lambda: encoded("TIFF", NOISE.convert("F")), "pixels of another kind"),
    "32 bits": (".tif", lambda: encoded("TIFF", NOISE.convert("I")), "pixels of another kind"),
    "a small one": (".png", lambda: encoded("PNG", NOISE.resize((9, 40))), "smaller than 10"),
    "a bomb": (".png", bomb, "more than the 178,956,970 pixels"),
    "a long text": (".png", long_text, "MAX_TEXT_CHUNK"),
    "a short header": (".png", lambda: encoded("PNG")[:20], "no readable picture"),
    "half a PNG": (".png", lambda: encoded("PNG")[:3000], "cut short or damaged"),
    "a PNG of a flipped byte": (".png", lambda: encoded("PNG")[:900] + b"\0" + encoded("PNG")[901:], "damaged"),
    "half a JPEG": (".jpg", lambda: encoded("JPEG")[:1500], "cut short or damaged"),
    "half a WebP": (".webp", lambda: encoded("WEBP")[:1500], "cut short or damaged|no readable"),
    "half an AVIF": (".avif", lambda: encoded("AVIF")[:700], "cut short or damaged|no readable"),
    "half a JPEG 2000": (".jp2", lambda: encoded("JPEG2000")[:3000], "cut short or damaged"),
    "a HEIC called JPEG": (".jpg", heic, r"a HEIC picture, .* under the name of a \.jpg: save it as JPEG"),
    "another HEIC called PNG": (".PNG", lambda: heic(b"mif1"), r"under the name of a \.PNG: save it as JPEG"),
    "half a BMP": (".bmp", lambda: encoded("BMP")[:3000], "cut short or damaged"),
}
MISNAMED = ("AVIF", "BMP", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP")
GOOD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "bytes after a JPEG": (".jpg", lambda: encoded("JPEG") + b"\0\0a camera's note"),
    "16 bits": (".png", lambda: encoded("PNG", Image.fromarray(np.asarray(NOISE.convert("L")).astype("u2") * 257))),
    "a JPEG called PNG": (".png", lambda: encoded("JPEG")),
    "broken EXIF": (".jpg", lambda: encoded("JPEG", exif=b"Exif\0\0nonsense")),
    "grey, CMYK": (".jpg", lambda: encoded("JPEG", NOISE.convert("CMYK"))),
    **{f"{kind} called JPEG": (".jpg", lambda kind=kind: encoded(kind)) for kind in MISNAMED},
}


@pytest.fixture
def demo_yaml(tmp_path: Path) -> Path:
    return demo.make(tmp_path / "demo", train=4, val=2, imgsz=32)


def put(data_yaml: Path, suffix: str, raw: bytes) -> Path:
    (data_yaml.parent / "images/train/train_00001.bmp").unlink()
    image = data_yaml.parent / f"images/train/train_00001{suffix}"
    image.write_bytes(raw)
    return image


def judged_by_the_training(image: Path) -> bool:
    """Whether a training reads the picture, at its start and when it comes to it."""
    from ultralytics.utils.patches import imread

    from petskin_tune.training.data.labels import DataError, _image_shape

    try:
        height, width = _image_shape(str(image))
    except DataError:
        return False
    pixels = imread(image)
    return pixels is not None and pixels.shape == (height, width, 3) and pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", BAD)
def test_a_picture_that_ends_every_training_is_named_by_init_and_check(demo_yaml: Path, kind: str) -> None:
    suffix, make, reason = BAD[kind]
    image = put(demo_yaml, suffix, make())

    with pytest.raises(UsageError, match=reason) as refused:
        fingerprint(demo_yaml, for_training=True)
    assert str(refused.value).startswith(f"{image}: ")
    assert "1 picture ends every training" in str(refused.value)
    assert not judged_by_the_training(image)
    found = check(demo_yaml).problems
    assert [names for what, names in found.items() if what.startswith("damaged image")] == [
        [f"images/train/{image.name}"]
    ]


@pytest.mark.parametrize("kind", ["a bomb", "a short header", "an odd PPM", "a long text", "half an AVIF"])
def test_a_sheet_is_drawn_of_a_data_set_with_a_picture_that_is_none(demo_yaml: Path, kind: str) -> None:
    suffix, make, reason = BAD[kind]
    image, sheet = put(demo_yaml, suffix, make()), demo_yaml.parent / "sheet.html"

    checked = CliRunner().invoke(data, ["check", str(demo_yaml), "--sheet", str(sheet), "--jobs", "1"])

    assert checked.exit_code == 1, checked.output
    assert isinstance(checked.exception, SystemExit)
    assert re.search(rf"^PROBLEM: damaged image, .*({reason}).*: images/train/{image.name}$", checked.stdout, re.M)
    assert checked.stdout.endswith(f"contact sheet: {sheet}\n")
    drawn = sheet.read_text()
    assert drawn.count("<img ") >= 6
    assert f">train/{image.name} (damaged)</figcaption>" in drawn


@pytest.mark.parametrize("kind", GOOD)
def test_an_odd_picture_that_can_be_trained_is_ready(demo_yaml: Path, kind: str) -> None:
    suffix, make = GOOD[kind]
    image = put(demo_yaml, suffix, make())
    fingerprint(demo_yaml, for_training=True)
    assert judged_by_the_training(image)
    assert check(demo_yaml).problems == {}


def test_a_pipe_or_a_folder_in_a_pictures_place_is_named(demo_yaml: Path) -> None:
    image = demo_yaml.parent / "images/train/train_00001.bmp"
    image.unlink()
    os.mkfifo(image)
    with pytest.raises(UsageError, match=r"train_00001\.bmp: cannot be read: it is a (device|FIFO|socket)"):
        fingerprint(demo_yaml, for_training=True)


def test_pictures_that_did_not_change_are_judged_once(
    tmp_path: Path, demo_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in demo_yaml.parent.rglob("*.bmp"):
        os.utime(path, (1e9, 1e9))
    fingerprint(demo_yaml, tmp_path / "cache", for_training=True)
    fingerprint(demo_yaml, tmp_path / "cache")  # which asks for no pictures
    judged: list[Path] = []
    monkeypatch.setattr("petskin_tune.datasets.examined.picture_fault", lambda path: judged.append(path) or "")
    fingerprint(demo_yaml, tmp_path / "cache", for_training=True)
    assert judged == []
    put(demo_yaml, ".png", encoded("PNG"))
    fingerprint(demo_yaml, tmp_path / "cache", for_training=True)
    assert [path.name for path in judged] == ["train_00001.png"]


def test_the_formats_are_those_that_ultralytics_trains_on() -> None:
    from ultralytics.data.utils import IMG_FORMATS

    named = {kind.lower() for kind in pictures._FORMATS} | {"jp2", "jpg", "tif", "heic", "dng"}
    assert named - {"jpeg2000"} == set(IMG_FORMATS)


def test_a_heic_that_pillow_reads_but_no_training_does_is_told_apart_from_a_damaged_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._mode, self._size, self.tile = "RGB", (40, 40), []

        def load(self) -> None:
            self.im = Image.core.fill("RGB", self.size)

    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN})
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    opener = SimpleNamespace(
        register_heif_opener=lambda: Image.register_open("HEIF", Heif, lambda head: head[4:12] == b"ftypheic")
    )
    monkeypatch.setitem(sys.modules, "pi_heif", opener)
    pictures.require_trainable(heic(), ".heic")
    with pytest.raises(pictures.BadPicture, match=r"a HEIC picture, .* under the name of a \.jpg: save it as JPEG"):
        pictures.require_trainable(heic(), ".jpg")
