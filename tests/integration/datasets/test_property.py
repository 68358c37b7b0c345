"""Whatever stands in a data.yaml, a label file or a picture: an answer, or one refusal no longer than a screen.

``PETSKIN_TUNE_FUZZING=10000`` tries more, see ``tests.support.fuzzing``.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petskin_tune.datasets import demo, layout, source
from petskin_tune.datasets.labels.outlines import read_outlines
from petskin_tune.datasets.labels.rows import first_fault, label_rows
from petskin_tune.datasets.pictures import reading as pictures
from petskin_tune.datasets.pictures.rendering import render
from petskin_tune.errors import UsageError
from petskin_tune.printable import LONGEST_SENTENCE, printable
from tests.support.fuzzing import cases

EXAMPLES = cases(200)
KINDS = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "AVIF": ".avif", "BMP": ".bmp"}
KINDS |= {"JPEG2000": ".jp2", "GIF": ".jpg", "PPM": ".jpg"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.make(tmp_path_factory.mktemp("property") / "demo", train=2, val=1, imgsz=32).parent


def require_a_sentence(refused: UsageError | pictures.BadPicture, longest: int = LONGEST_SENTENCE) -> None:
    said = str(refused)
    assert said
    assert "\n" not in said
    assert printable(said) == said
    assert len(said) <= longest


WORDS = st.sampled_from(
    [
        "images/train",
        "images/val",
        "../images/train",
        "/dev/zero",
        "/proc/self",
        "nowhere",
        "",
        "\0",
        "~",
        "yes",
        "\udcc7",
        ".",
        "..",
        "/",
        "a" * 5000,
        "images",
        "data.yaml",
        "3",
        "\x1b[2J",
        "labels/train/train_00000.txt",
    ]
)
SCALARS = WORDS | st.none() | st.booleans() | st.integers(-3, 10**20) | st.floats() | st.dates() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4), max_leaves=8
)
KEYS = st.sampled_from(["train", "val", "validation", "test", "names", "nc", "path", "groups", "channels", "download"])
SOUND = {"train": "images/train", "val": "images/val", "names": ["a", "b", "c"]}


@EXAMPLES
@given(changes=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_values_in_a_data_yaml_are_read_or_refused_in_a_sentence(folder: Path, changes: dict) -> None:
    try:
        text = yaml.safe_dump({**SOUND, **changes}, allow_unicode=True)
    except (yaml.YAMLError, TypeError):  # nothing that a YAML file could say
        return
    (folder / "odd.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        source.prepare(str(folder / "odd.yaml"), base=folder, cache=folder.parent / "cache")
    except UsageError as refused:
        require_a_sentence(refused)


@EXAMPLES
@given(content=st.binary(max_size=200) | st.text("&*ab[]{},:-? \n'\"|>!<#019.~%@\t", max_size=200).map(str.encode))
def test_any_bytes_as_a_data_yaml_are_refused_in_a_sentence(folder: Path, content: bytes) -> None:
    (folder / "odd.yaml").write_bytes(content)
    with pytest.raises(UsageError) as refused:
        layout.read(folder / "odd.yaml")
    require_a_sentence(refused.value)


@EXAMPLES
@given(at=st.integers(0, 200), cut=st.integers(0, 200), put=st.binary(max_size=20))
def test_a_data_yaml_that_was_damaged_is_read_or_refused_in_a_sentence(
    folder: Path, at: int, cut: int, put: bytes
) -> None:
    sound = (folder / "data.yaml").read_bytes()
    (folder / "odd.yaml").write_bytes(sound[:at] + put + sound[at + cut :])
    try:
        layout.read(folder / "odd.yaml")
    except UsageError as refused:
        require_a_sentence(refused)


NUMBERS = [
    "0",
    "2",
    "-1",
    "1.5",
    "nan",
    "inf",
    "1e400",
    "x",
    "0.5",
    "1.0000001",
    "-0.005",
    "9" * 400,
    "0x1",
    "１",
    "1_0",
]
ROWS = st.lists(st.sampled_from([*NUMBERS, "\udcc7"]), max_size=9).map(" ".join)


@EXAMPLES
@given(
    content=st.binary(max_size=100)
    | st.lists(ROWS, max_size=4).map("\n".join).map(lambda text: text.encode("utf-8", "surrogateescape"))
)
def test_any_label_file_is_judged_alike_by_all_who_read_it(folder: Path, content: bytes) -> None:
    label = folder / "odd.txt"
    label.write_bytes(content)
    try:
        fault = first_fault(label, 3)
    except UsageError as refused:
        require_a_sentence(refused)
        fault = str(refused)
    if fault is None:
        assert len(label_rows(label)) == sum(map(len, read_outlines(label, 3).areas.values()))
    else:
        assert len(fault) < LONGEST_SENTENCE


@lru_cache
def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (24, 30, 3)).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, str]:
    """A picture with some bytes changed, most of them in its header, or cut short; and the suffix of its name."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    raw = bytearray(picture(kind))
    for at, value in draw(
        st.lists(st.tuples(st.integers(0, 120) | st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=6)
    ):
        raw[min(at, len(raw) - 1)] = value
    return bytes(raw[: draw(st.integers(0, len(raw)) | st.just(len(raw)))]), draw(
        st.sampled_from(sorted({*KINDS.values()}))
    )


@EXAMPLES
@given(odd=damaged() | st.tuples(st.binary(max_size=100), st.just(".png")))
def test_any_picture_is_taken_or_refused_with_a_reason(odd: tuple[bytes, str]) -> None:
    raw, suffix = odd
    for read in (
        lambda: pictures.require_trainable(raw, suffix),
        lambda: pictures.verify(pictures.open_picture(raw, suffix)),
        lambda: render(opened := pictures.open_picture(raw, suffix), (0, 0, *opened.size), 16),
    ):
        try:
            read()
        except pictures.BadPicture as refused:
            require_a_sentence(refused, longest=200)
