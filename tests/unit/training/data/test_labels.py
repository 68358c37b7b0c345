"""Labels are read as Ultralytics reads them, but strictly, without touching the user's files, and cached safely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petskin_tune.training.data import labels
from petskin_tune.training.data.labels import DataError

SQUARE = "0 0.1 0.1 0.9 0.1 0.9 0.9 0.1 0.9"
TRIANGLE = "2 0.25 0.3 0.5 0.6 0.7 0.2"


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes one image with its labels, and gives back both paths."""

    def make(text: str | None, name: str = "a.jpg", size=(40, 30)):
        image, label = tmp_path / name, tmp_path / f"{name}.txt"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(image)
        if text is not None:
            label.write_text(text, encoding="utf-8")
        return str(image), str(label)

    return make


def read(tmp_path, *pairs, classes=3):
    images, files = zip(*pairs, strict=True)
    return labels.read_labels(images, files, classes, tmp_path / "cache")


@pytest.mark.parametrize(
    "text",
    [
        SQUARE,
        f"{SQUARE}\n{TRIANGLE}\n",
        f"\ufeff{SQUARE}",
        "",
        None,
        f"\n{TRIANGLE}\n\n",
        "0 -0.005 0.1 1.005 0.2 0.4 0.5",
    ],
)
def test_good_labels_are_read_as_ultralytics_reads_them(tmp_path, folder, text):
    from ultralytics.data.utils import verify_image_label

    image, label = folder(text)
    (ours,) = read(tmp_path, (image, label))
    _, rows, shape, segments, *_ = verify_image_label((image, label, "", False, 3, 0, 0, False))
    np.testing.assert_array_equal(ours["cls"], rows[:, 0:1])
    np.testing.assert_array_equal(ours["bboxes"], rows[:, 1:])
    assert ours["shape"] == shape == (30, 40)
    assert len(ours["segments"]) == len(segments)
    for mine, theirs in zip(ours["segments"], segments, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_an_object_listed_twice_counts_once(tmp_path, folder):
    (label,) = read(tmp_path, folder(f"{SQUARE}\n{TRIANGLE}\n{SQUARE}"))
    assert label["cls"].ravel().tolist() == [0, 2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("3 0.1 0.1 0.9 0.1 0.9 0.9", "class 3 is none of the 3 that `names` has"),
        ("0.5 0.1 0.1 0.9 0.1 0.9 0.9", "class 0.5"),
        ("-1 0.1 0.1 0.9 0.1 0.9 0.9", "class -1"),
        ("0 0.1 0.1 1.2 0.1 0.9 0.9", "outside 0 to 1"),
        ("0 0.1 0.1 nan 0.1 0.9 0.9", "outside 0 to 1"),
        ("0 0.5 0.5 0.2 0.2", "line 1: a box without an outline"),
        ("0 0.1 0.1 0.9 0.1 0.9 0.9 0.4", "8 values"),
        ("0 0.1 0.1 0.9 0.1 0.9 zero", "zero"),
    ],
)
def test_a_bad_label_file_is_named_with_its_fault(tmp_path, folder, text, complaint):
    with pytest.raises(DataError, match=complaint) as raised:
        read(tmp_path, folder(text))
    assert "a.jpg.txt" in str(raised.value)


def test_a_truncated_image_is_named_and_left_as_it_is(tmp_path, folder):
    image, label = folder(SQUARE, size=(400, 300))
    with open(image, "r+b") as file:
        file.truncate(20_000)
    before = Path(image).read_bytes()
    with pytest.raises(DataError, match=r"a\.jpg: the image cannot be read .*truncated"):
        read(tmp_path, (image, label))
    assert Path(image).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_a_file_that_is_no_image_is_named(tmp_path, folder, content):
    image, label = folder(SQUARE)
    Path(image).write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg: the image cannot be read"):
        read(tmp_path, (image, label))


def test_bytes_after_a_jpeg_are_harmless_and_stay(tmp_path, folder):
    image, label = folder(SQUARE)
    with open(image, "ab") as file:
        file.write(b"\0\0camera maker's note")
    before = Path(image).read_bytes()
    assert len(read(tmp_path, (image, label))) == 1
    assert Path(image).read_bytes() == before


def test_the_cache_gives_back_what_was_read(tmp_path, folder, monkeypatch):
    pairs = [folder(SQUARE), folder("", "b.jpg"), folder(f"{TRIANGLE}\n{SQUARE}", "c.jpg"), folder(None, "d.jpg")]
    first = read(tmp_path, *pairs)
    monkeypatch.setattr(labels, "_read_one", lambda *_: pytest.fail("read the files again"))
    for ours, cached in zip(first, read(tmp_path, *pairs), strict=True):
        assert ours.keys() == cached.keys()
        for key in ("im_file", "shape", "keypoints", "normalized", "bbox_format"):
            assert ours[key] == cached[key]
        for key in ("cls", "bboxes"):
            np.testing.assert_array_equal(ours[key], cached[key])
            assert ours[key].dtype == cached[key].dtype
        assert [s.tolist() for s in ours["segments"]] == [s.tolist() for s in cached["segments"]]


def test_the_cache_of_a_data_set_without_objects_works(tmp_path, folder):
    pairs = [folder(""), folder(None, "b.jpg")]
    assert [len(label["cls"]) for label in (*read(tmp_path, *pairs), *read(tmp_path, *pairs))] == [0] * 4


def test_a_changed_label_file_is_read_again(tmp_path, folder):
    image, label = folder(SQUARE)
    read(tmp_path, (image, label))
    Path(label).write_text(f"{SQUARE}\n{TRIANGLE}")
    (changed,) = read(tmp_path, (image, label))
    assert len(changed["cls"]) == 2


@pytest.mark.parametrize("left", [100, 0])  # bytes; none: a machine that was lost as it was written
def test_a_damaged_cache_is_read_past(tmp_path, folder, left):
    pair = folder(SQUARE)
    read(tmp_path, pair)
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:left])
    (label,) = read(tmp_path, pair)
    assert len(label["cls"]) == 1
