import csv
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petskin_tune.datasets import demo, layout, stratify, subset
from petskin_tune.datasets.check import check
from petskin_tune.datasets.resize import resize
from petskin_tune.errors import UsageError


def make_data_set(folder: Path, classes: list[int | None], groups: list[str] | None = None) -> Path:
    """Images that are empty files: a subset reads names and labels only."""
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number, label in enumerate(classes):
            (folder / f"images/{split}/{number:04d}.jpg").touch()
            if label is not None:
                (folder / f"labels/{split}/{number:04d}.txt").write_text(f"{label} 0 0 1 0 1 1\n")
    text = "train: images/train\nval: images/val\nnames: [a, b, c, d]\n"
    if groups is not None:
        with open(folder / "groups.csv", "w", newline="") as file:
            rows = ((f"images/train/{number:04d}.jpg", group) for number, group in enumerate(groups))
            csv.writer(file).writerows([("image", "group"), *rows])
        text += "groups: groups.csv\n"
    (folder / "data.yaml").write_text(text)
    return folder / "data.yaml"


def chosen(data_yaml: Path, split: str = "train") -> list[int]:
    return [int(image.stem) for image in layout.read(data_yaml).images[split]]


def test_every_class_and_the_background_keep_their_share(tmp_path: Path) -> None:
    classes: list[int | None] = [0] * 600 + [1] * 300 + [2] * 90 + [3] * 3 + [None] * 7
    data_yaml = make_data_set(tmp_path / "data", classes)

    written = subset.write(data_yaml, 100, 50, 0, tmp_path / "subset")
    numbers = chosen(written)

    assert Counter(classes[number] for number in numbers) == {0: 59, 1: 30, 2: 9, 3: 1, None: 1}
    assert len(chosen(written, "val")) == 50


def test_the_choice_depends_on_the_seed_and_not_on_where_the_data_lies(tmp_path: Path) -> None:
    classes: list[int | None] = [number % 4 for number in range(200)]
    data_yaml = make_data_set(tmp_path / "data", classes)
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere" / "images" / "copy")

    here = chosen(subset.write(data_yaml, 40, None, 0, tmp_path / "s0"))
    there = chosen(subset.write(tmp_path / "elsewhere/images/copy/data.yaml", 40, None, 0, tmp_path / "s1"))
    other = chosen(subset.write(data_yaml, 40, None, 1, tmp_path / "s2"))

    assert here == there
    assert here != other


def test_recorded_groups_are_in_whole_or_not_at_all(tmp_path: Path) -> None:
    draw = random.Random(0)
    groups = [f"animal {draw.randrange(60)}" for _ in range(600)]
    classes: list[int | None] = [int(group.split()[1]) % 4 for group in groups]
    data_yaml = make_data_set(tmp_path / "data", classes, groups)

    numbers = chosen(subset.write(data_yaml, 200, None, 0, tmp_path / "subset"))

    inside = {groups[number] for number in numbers}
    assert not inside & {group for number, group in enumerate(groups) if number not in numbers}
    assert 185 <= len(numbers) <= 200
    share = Counter(classes[number] for number in numbers)
    assert all(40 <= share[number] <= 60 for number in range(4))


def test_where_no_group_is_small_enough_it_is_said_and_images_can_be_drawn_one_by_one(tmp_path: Path) -> None:
    data_yaml = make_data_set(tmp_path / "data", [0] * 40, [f"animal {number // 20}" for number in range(40)])
    with pytest.raises(UsageError, match=r"asks for 10 train images.* has 20; ask for 20 or more"):
        subset.write(data_yaml, 10, None, 0, tmp_path / "subset")
    assert len(chosen(subset.write(data_yaml, 10, None, 0, tmp_path / "subset", whole_groups=False))) == 10


def test_an_image_without_a_recorded_group_is_one_of_its_own(tmp_path: Path) -> None:
    data_yaml = make_data_set(tmp_path / "data", [0] * 4, ["a", "", "b", "a"])
    with open(tmp_path / "data" / "groups.csv", "a") as file:
        file.write("images/val/0000.jpg\n")
    assert subset.read_groups(layout.read(data_yaml)) == {
        "images/train/0000.jpg": "a",
        "images/train/0002.jpg": "b",
        "images/train/0003.jpg": "a",
    }


def test_groups_larger_than_a_class_deserves_are_in_a_subset_all_the_same(tmp_path: Path) -> None:
    groups = [f"animal {number // 18}" for number in range(24 * 18)]
    classes: list[int | None] = [number // 18 % 4 for number in range(24 * 18)]
    data_yaml = make_data_set(tmp_path / "data", classes, groups)

    numbers = chosen(subset.write(data_yaml, 54, None, 0, tmp_path / "subset"))

    assert sorted(Counter(classes[number] for number in numbers).values()) == [18, 18, 18]


def test_ultralytics_reads_the_subset(tmp_path: Path) -> None:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data_yaml = demo.make(tmp_path / "demo", train=9, val=4, imgsz=32)
    data = check_det_dataset(str(subset.write(data_yaml, 6, None, 0, tmp_path / "subset")), autodownload=False)

    assert len(YOLODataset(img_path=data["train"], data=data, task="segment", augment=False).labels) == 6
    assert len(YOLODataset(img_path=data["val"], data=data, task="segment", augment=False).labels) == 4


def test_written_again_it_is_the_same_file(tmp_path: Path) -> None:
    data_yaml = make_data_set(tmp_path / "data", [0, 1, 2, 3] * 5)
    written = subset.write(data_yaml, 8, 4, 0, tmp_path / "subset")
    first = {path.name: path.read_bytes() for path in written.parent.iterdir()}

    assert subset.write(data_yaml, 8, 4, 0, tmp_path / "subset") == written

    assert {path.name: path.read_bytes() for path in written.parent.iterdir()} == first
    assert sorted(first) == ["data.yaml", "train.txt", "val.txt"]


def test_another_subset_in_the_same_place_leaves_the_first_one_as_it_is(tmp_path: Path) -> None:
    """A worker trains on the first; somebody names other data, and is refused only afterwards."""
    mine = make_data_set(tmp_path / "mine", [0, 1, 2, 3] * 5)
    theirs = make_data_set(tmp_path / "theirs", [0, 1, 2, 3] * 5)
    written = subset.write(mine, 8, 4, 0, tmp_path / "subset")
    before = {path: path.read_bytes() for path in written.parent.iterdir()}
    assert subset.write(theirs, 8, 4, 0, tmp_path / "subset") != written
    assert subset.write(mine, 8, 4, 1, tmp_path / "subset") != written
    assert {path: path.read_bytes() for path in written.parent.iterdir()} == before


def test_images_of_one_name_in_two_folders_are_all_drawn_from(tmp_path: Path) -> None:
    """As in two exports that were merged."""
    for place in ("a", "b"):
        make_data_set(tmp_path / place, [0, 1, 2, 3] * 2)
    merged = tmp_path / "data.yaml"
    merged.write_text("train: [a/images/train, b/images/train]\nval: a/images/val\nnames: [a, b, c, d]\n")
    drawn = layout.read(subset.write(merged, 16, None, 0, tmp_path / "all")).images["train"]
    assert len(set(drawn)) == 16
    drawn = layout.read(subset.write(merged, 8, None, 0, tmp_path / "half")).images["train"]
    assert {image.relative_to(tmp_path).parts[0] for image in drawn} == {"a", "b"}


@pytest.mark.parametrize(
    ("groups", "said"),
    [("/dev/zero", "a device"), ("pipe", "a FIFO"), (".", "a folder"), ("none.csv", "No such file")],
)
def test_a_record_of_groups_that_is_no_file_is_refused_and_not_waited_for(
    tmp_path: Path, groups: str, said: str
) -> None:
    data_yaml = demo.make(tmp_path / "data", train=2, val=1, imgsz=32)
    os.mkfifo(data_yaml.parent / "pipe")
    data_yaml.write_text(f"{data_yaml.read_text()}groups: {groups}\n")

    for read in (
        lambda: subset.write(data_yaml, 1, None, 0, tmp_path / "subset"),
        lambda: check(data_yaml),
        lambda: resize(data_yaml, tmp_path / "small", 32),
    ):
        with pytest.raises(UsageError, match=f"the record of what belongs together, cannot be read: .*{said}"):
            read()


def test_more_than_there_is_is_refused(tmp_path: Path) -> None:
    data_yaml = make_data_set(tmp_path / "data", [0, 1, 2, 3] * 5)

    with pytest.raises(UsageError, match=r"asks for 21 train images and .* has 20"):
        subset.write(data_yaml, 21, None, 0, tmp_path / "subset")
    with pytest.raises(UsageError, match="asks for 0 val images"):
        subset.write(data_yaml, None, 0, 0, tmp_path / "subset")


def test_an_image_counts_for_the_rarest_class_it_shows() -> None:
    classes = {"x": [0], "y": [0, 1], "z": [0, 1, 2], "w": []}

    found = stratify.strata({image: frozenset(numbers) for image, numbers in classes.items()})

    assert found == {"x": 0, "y": 1, "z": 2, "w": stratify.BACKGROUND}


group_maps = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.dictionaries(st.integers(-1, 5), st.integers(1, 6), min_size=1, max_size=3).map(Counter),
    min_size=1,
    max_size=40,
)


@settings(max_examples=60)
@given(group_maps, st.data())
def test_a_choice_never_exceeds_what_was_wanted_and_ignores_the_order(
    groups: dict[str, Counter[int]], data: st.DataObject
) -> None:
    total = sum(group.total() for group in groups.values())
    wanted = data.draw(st.integers(1, total))
    shuffled = dict(data.draw(st.permutations(list(groups.items()))))

    picked = stratify.choose(groups, wanted, 0)

    taken = sum(groups[name].total() for name in picked)
    assert taken <= wanted
    assert all(group.total() > wanted - taken for name, group in groups.items() if name not in picked)
    assert stratify.choose(shuffled, wanted, 0) == picked


@settings(max_examples=60)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=80), st.data())
def test_single_images_meet_the_number_and_every_class_is_kept_where_there_is_room(
    classes: list[int], data: st.DataObject
) -> None:
    wanted = data.draw(st.integers(1, len(classes)))
    groups = {str(number): Counter([stratum]) for number, stratum in enumerate(classes)}

    picked = stratify.choose(groups, wanted, 0)

    assert len(picked) == wanted
    if wanted >= len(set(classes)):
        assert {classes[int(name)] for name in picked} == set(classes)
