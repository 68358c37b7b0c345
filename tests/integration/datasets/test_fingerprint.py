import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from petskin_tune.datasets import demo, fingerprint, layout, subset
from petskin_tune.datasets.fingerprint import Fingerprint, difference
from petskin_tune.datasets.labels import rows as labels_of
from petskin_tune.errors import UsageError
from petskin_tune.trial.inputs import require_same_data


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


def test_a_study_begun_when_010_was_read_as_8_goes_on_with_its_own_fingerprint(demo_yaml: Path) -> None:
    content = yaml.safe_load(demo_yaml.read_text())
    as_read_before = {
        "010": "8",
        "1.10": "1.1",
        "0x10": "16",
        "12:30": "750",
        "1_000": "1000",
        "1e3": "1e3",
        "yes": "yes",
    }
    for written, read in as_read_before.items():
        others = ["a", "b", *[f"c{n}" for n in range(len(content["names"]) - 3)]]
        demo_yaml.write_text(f"train: images/train\nval: images/val\nnames: [{', '.join([written, *others])}]\n")
        mine = take(demo_yaml)
        assert mine.names[0] == written
        old_names = (read, *others)
        described = json.dumps([old_names, {split: asdict(summary) for split, summary in mine.splits.items()}])
        stored = replace(mine, names=old_names, digest=hashlib.sha256(described.encode()).hexdigest())
        assert difference(stored, mine) is None
        assert require_same_data(json.loads(json.dumps(stored.to_json())), mine) == stored
        other = replace(stored, names=("9", *others), digest="another")
        assert "the classes are" in str(difference(other, mine))
        fewer = replace(stored, names=stored.names[:-1], digest="another")
        assert "the classes are" in str(difference(fewer, mine))


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
    real = labels_of.label_lines
    monkeypatch.setattr(labels_of, "label_lines", lambda path: read.append(path) or real(path))

    assert take(demo_yaml, tmp_path / "cache") == before
    assert read == []

    labels[0].write_text("")
    assert take(demo_yaml, tmp_path / "cache") != before
    assert read == [labels[0]]


def test_a_label_changed_in_the_instant_after_it_was_read_is_noticed(
    tmp_path: Path, demo_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("petskin_tune.datasets.examined._SETTLED", 300.0)
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


NO_CLASSES = {
    "\n0,0.1,0.1,0.9,0.1,0.9,0.9": r"line 2: '0,0\.1,0\.1.*'…: its values are to be separated by spaces",
    "lesion 0 0 1 0 1 1": "line 1: class lesion is no whole number",
    "0 0 0 1 0 1 1\n<annotation>": "line 2: 1 value, where a class",
    f"{'9' * 5000} 0 0 1 0 1 1": "line 1: class 9{20} is no whole number",
}


@pytest.mark.parametrize("content", NO_CLASSES, ids=lambda content: content[:12])
def test_a_row_without_a_class_is_named_by_its_line(demo_yaml: Path, content: str) -> None:
    label = demo_yaml.parent / "labels/train/train_00000.txt"
    label.write_text(content)
    with pytest.raises(UsageError, match=rf"train_00000\.txt is no YOLO label file: {NO_CLASSES[content]}"):
        take(demo_yaml)


FAULTS = {
    "0 0.5 0.5 0.2 0.2": "line 1: a box without an outline, where a class and 3 or more x y pairs are needed",
    "0 0.1 0.1 0.2 0.2 0.3": "line 1: 6 values, where",
    "0 0 0 1 0 1 1 0": "line 1: 8 values, where",
    "7 0 0 1 0 1 1": "line 1: class 7 is none of the 3 that `names` has",
    "-1 0 0 1 0 1 1": "line 1: class -1 is none of the 3",
    "0 0 0 1 0 1 1\n\n0 0 0 1 0 1 1.2": "line 3: a coordinate outside 0 to 1",
    "0 0 0 1 0 1 nan": "line 1: a coordinate outside 0 to 1",
    "0 0 0 1 0 1 x": "line 1: 'x' is no number",
    "0 0 0 64 0 64 64": "line 1: a coordinate outside 0 to 1",
}
GOOD = ["", "\n\n", "2 0 0 1 0 1 1", "1.0 0 0 1 0 1 1\n", "0 -0.005 0.1 1.005 0.2 0.4 0.5", "0 0 0 1 0 1 1 0 1\r\n"]


def judged_by_the_training(label: Path) -> bool:
    from petskin_tune.training.data.labels import DataError, _read_label_file

    try:
        _read_label_file(str(label), 3)
    except DataError:
        return False
    return True


@pytest.mark.parametrize("text", [*FAULTS, *GOOD])
def test_labels_are_refused_for_a_training_exactly_where_the_training_would_stop_at_them(
    tmp_path: Path, demo_yaml: Path, text: str
) -> None:
    label = demo_yaml.parent / "labels/train/train_00002.txt"
    label.write_text(text)
    os.utime(label, (1e9, 1e9))
    assert judged_by_the_training(label) == (text in GOOD)

    for cache in (None, tmp_path / "cache", tmp_path / "cache"):  # read, read, remembered
        if text in GOOD:
            fingerprint.fingerprint(demo_yaml, cache, for_training=True)
            continue
        with pytest.raises(UsageError) as refused:
            fingerprint.fingerprint(demo_yaml, cache, for_training=True)
        assert str(refused.value).startswith(f"{label}, {FAULTS[text]}")
        assert f"; 1 label file ends every training: petskin-tune data check {demo_yaml}" in str(refused.value)


def test_all_unusable_label_files_are_counted_and_the_first_one_named(demo_yaml: Path) -> None:
    for split, number in (("val", 2), ("train", 5), ("train", 3)):
        (demo_yaml.parent / f"labels/{split}/{split}_{number:05d}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UsageError, match=r"train_00003\.txt, line 1: a box .*; 3 label files end every training"):
        fingerprint.fingerprint(demo_yaml, for_training=True)


def test_fewer_classes_in_the_yaml_are_noticed_although_no_label_file_changed(tmp_path: Path, demo_yaml: Path) -> None:
    for label in (demo_yaml.parent / "labels").rglob("*.txt"):
        os.utime(label, (1e9, 1e9))
    fingerprint.fingerprint(demo_yaml, tmp_path / "cache", for_training=True)
    demo_yaml.write_text(re.sub(r"names:.*", "names: [only]", demo_yaml.read_text(), flags=re.DOTALL))
    with pytest.raises(UsageError, match="is none of the 1 that `names` has"):
        fingerprint.fingerprint(demo_yaml, tmp_path / "cache", for_training=True)


def test_a_cache_of_an_older_version_is_read_over(tmp_path: Path, demo_yaml: Path) -> None:
    label = demo_yaml.parent / "labels/train/train_00000.txt"
    label.write_text("0 0.5 0.5 0.2 0.2\n")
    for path in (demo_yaml.parent / "labels").rglob("*.txt"):
        os.utime(path, (1e9, 1e9))
    before = take(demo_yaml, tmp_path / "cache")
    [file] = (tmp_path / "cache").rglob("*.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({path: entry[:4] for path, entry in content["labels"].items()}))
    assert take(demo_yaml, tmp_path / "cache") == before
    with pytest.raises(UsageError, match="a box without an outline"):
        fingerprint.fingerprint(demo_yaml, tmp_path / "cache", for_training=True)


def test_labels_of_boxes_have_a_fingerprint_too(demo_yaml: Path) -> None:
    for label in (demo_yaml.parent / "labels").rglob("*.txt"):
        label.write_text("0 0.5 0.5 0.2 0.2\n")
    assert take(demo_yaml).splits["train"].objects == {"0": 6}
