import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from petskin_tune.datasets import demo, fingerprint, layout, subset
from petskin_tune.datasets.fingerprint import Fingerprint, difference
from petskin_tune.errors import UsageError


@pytest.fixture
def demo_yaml(tmp_path: Path) -> Path:
    return demo.make(tmp_path / "demo", train=6, val=3, imgsz=32)


def take(data_yaml: Path, cache: Path | None = None) -> Fingerprint:
    return fingerprint.fingerprint(data_yaml, cache)


def test_the_same_data_elsewhere_has_the_same_fingerprint(tmp_path: Path, demo_yaml: Path) -> None:
    shutil.copytree(demo_yaml.parent, tmp_path / "images" / "copy")

    assert take(demo_yaml) == take(tmp_path / "images/copy/data.yaml")
    assert difference(take(demo_yaml), take(tmp_path / "images/copy/data.yaml")) is None


def test_a_subset_has_a_fingerprint_of_its_own_that_is_the_same_everywhere(tmp_path: Path, demo_yaml: Path) -> None:
    shutil.copytree(demo_yaml.parent, tmp_path / "copy")

    mine = take(subset.write(demo_yaml, 4, None, 0, tmp_path / "s0"))
    theirs = take(subset.write(tmp_path / "copy/data.yaml", 4, None, 0, tmp_path / "s1"))

    assert mine == theirs != take(demo_yaml)
    assert difference(take(demo_yaml), mine) == "train has 4 images here and 6 in the study"


def relabel(folder: Path) -> None:
    label = folder / "labels/train/train_00000.txt"
    label.write_text(label.read_text() + "2 0 0 1 0 1 1\n")


def move_a_corner(folder: Path) -> None:
    label = folder / "labels/val/val_00000.txt"
    label.write_text(label.read_text()[:-3] + "1\n")


def rename_a_class(folder: Path) -> None:
    data_yaml = folder / "data.yaml"
    data_yaml.write_text(data_yaml.read_text().replace("ulcer", "wound"))


def lose_an_image(folder: Path) -> None:
    (folder / "images/train/train_00003.bmp").unlink()


def rename_an_image(folder: Path) -> None:
    for kind, suffix in (("images", "bmp"), ("labels", "txt")):
        (folder / f"{kind}/val/val_00001.{suffix}").rename(folder / f"{kind}/val/renamed.{suffix}")


def grow_an_image(folder: Path) -> None:
    with open(folder / "images/val/val_00002.bmp", "ab") as file:
        file.write(b"\0")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (relabel, r"^train has other labels \(ulcer \d+ here, \d+ in the study\)$"),
        (move_a_corner, r"^val has other labels, with the same number of objects$"),
        (rename_a_class, r"^the classes are papule, scale, wound here and papule, scale, ulcer in the study$"),
        (lose_an_image, r"^train has 5 images here and 6 in the study$"),
        (rename_an_image, r"^val has 3 images in both places, with other file names$"),
        (grow_an_image, r"^val has the same file names with images of other sizes \(9379 bytes in all here, 9378 "),
    ],
)
def test_what_differs_is_said_in_plain_words(
    tmp_path: Path, demo_yaml: Path, change: Callable[[Path], None], said: str
) -> None:
    cache = tmp_path / "cache"
    stored = Fingerprint.from_json(json.loads(json.dumps(take(demo_yaml, cache).to_json())))
    change(demo_yaml.parent)

    found = difference(stored, take(demo_yaml, cache))

    assert found is not None
    assert re.search(said, found), found


def test_line_ends_and_missing_empty_labels_make_no_difference(demo_yaml: Path) -> None:
    first = demo_yaml.parent / "labels/train/train_00000.txt"
    last = demo_yaml.parent / "labels/train/train_00005.txt"
    last.write_text("")
    before = take(demo_yaml)
    first.write_bytes(b"\xef\xbb\xbf" + first.read_bytes().replace(b"\n", b"\r\n"))
    last.unlink()

    assert take(demo_yaml) == before


def test_labels_that_did_not_change_are_not_read_again(
    tmp_path: Path, demo_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = sorted((demo_yaml.parent / "labels").rglob("*.txt"))
    for label in labels:
        os.utime(label, (1e9, 1e9))
    before = take(demo_yaml, tmp_path / "cache")
    read: list[Path] = []
    real = layout.label_lines
    monkeypatch.setattr(layout, "label_lines", lambda path: read.append(path) or real(path))

    assert take(demo_yaml, tmp_path / "cache") == before
    assert read == []

    labels[0].write_text("")
    assert take(demo_yaml, tmp_path / "cache") != before
    assert read == [labels[0]]


def test_a_label_changed_in_the_instant_after_it_was_read_is_noticed(tmp_path: Path, demo_yaml: Path) -> None:
    label = demo_yaml.parent / "labels/train/train_00000.txt"
    before = take(demo_yaml, tmp_path / "cache")
    times = label.stat()
    text = label.read_text()
    label.write_text(text[:-3] + ("1" if text[-3] != "1" else "2") + text[-2:])
    os.utime(label, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert take(demo_yaml, tmp_path / "cache") != before


def test_a_damaged_cache_is_read_over(tmp_path: Path, demo_yaml: Path) -> None:
    for label in (demo_yaml.parent / "labels").rglob("*.txt"):
        os.utime(label, (1e9, 1e9))
    before = take(demo_yaml, tmp_path / "cache")
    for file in (tmp_path / "cache").rglob("*.json"):
        file.write_text(file.read_text()[:100])

    assert take(demo_yaml, tmp_path / "cache") == before


def test_an_image_that_is_listed_and_not_there_is_refused(tmp_path: Path, demo_yaml: Path) -> None:
    written = subset.write(demo_yaml, 4, None, 0, tmp_path / "subset")
    layout.read(written).images["train"][0].unlink()

    with pytest.raises(UsageError, match="listed and not there"):
        take(written)


def test_it_is_small_enough_for_a_database_column(demo_yaml: Path) -> None:
    assert len(json.dumps(take(demo_yaml).to_json())) < 1000


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x 0 0 1 0 1 1", b"nan 0 0 1 0 1 1", b"0.5 0 0 1 0 1 1"])
def test_what_is_no_label_file_is_refused_by_name(demo_yaml: Path, content: bytes) -> None:
    label = demo_yaml.parent / "labels/train/train_00000.txt"
    label.write_bytes(content)

    with pytest.raises(UsageError, match=r"train_00000\.txt is no YOLO label file"):
        take(demo_yaml)
