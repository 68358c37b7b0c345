"""What a data set is said to hold is what is trained, in an order that does not depend on where it lies."""

from __future__ import annotations

import os
import shutil
import unicodedata
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from petskin_tune.datasets import demo, layout, source, subset
from petskin_tune.datasets.check import check
from petskin_tune.datasets.fingerprint import fingerprint
from petskin_tune.errors import UsageError
from petskin_tune.training.data.labels import DataError
from petskin_tune.training.data.loading import StrictDataset, read_data

NFC = unicodedata.normalize("NFC", "각")
NFD = unicodedata.normalize("NFD", "각")


@pytest.fixture
def demo_yaml(tmp_path: Path) -> Path:
    return demo.make(tmp_path / "demo", train=4, val=2, imgsz=32)


def trained(data_yaml: Path, split: str = "train") -> StrictDataset:
    data = read_data(str(data_yaml))
    return StrictDataset(
        img_path=data[split],
        imgsz=32,
        batch_size=2,
        augment=False,
        hyp=SimpleNamespace(mask_ratio=4, overlap_mask=True, bgr=0.0, deterministic=True),
        task="segment",
        data=data,
        label_cache=data_yaml.parent / "cache of labels",
    )


def say(data_yaml: Path, **content: object) -> None:
    data_yaml.write_text(yaml.safe_dump({"val": "images/val", "names": ["a", "b", "c"], **content}))


def objects(data: StrictDataset) -> int:
    return sum(len(label["cls"]) for label in data.labels)


# ---- lists -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [4, 1])
def test_a_list_of_images_that_are_not_there_says_so(demo_yaml: Path, tmp_path: Path, missing: int) -> None:
    images = sorted((demo_yaml.parent / "images/train").iterdir())
    gone = [image.with_name(f"gone_{number}.bmp") for number, image in enumerate(images[:missing])]
    (demo_yaml.parent / "list.txt").write_text("".join(f"{image}\n" for image in [*gone, *images[missing:]]))
    say(demo_yaml, train="list.txt")
    number = "all 4" if missing == 4 else "1 of the 4"
    with pytest.raises(UsageError, match=f"{number} train images are missing: {gone[0]}, the first"):
        fingerprint(source.prepare(str(demo_yaml), base=tmp_path, cache=tmp_path / "cache"))


@pytest.mark.parametrize("written", ["./images/train", "images/train", "/"])
def test_an_image_listed_twice_is_trained_and_counted_twice(demo_yaml: Path, tmp_path: Path, written: str) -> None:
    names = [f"train_0000{number}.bmp" for number in (0, 1, 1, 2)]
    start = demo_yaml.parent / "images/train" if written == "/" else written
    once, twice = dict.fromkeys(names), names
    prints = []
    for lines in (once, twice):
        (demo_yaml.parent / "list.txt").write_text("".join(f"{start}/{name}\n" for name in lines))
        say(demo_yaml, train="list.txt")
        prepared = source.prepare(str(demo_yaml), base=tmp_path, cache=tmp_path / "cache")
        prints.append(fingerprint(prepared, for_training=True))
        assert len(layout.read(prepared).images["train"]) == len(trained(prepared)) == len(lines)
    found = check(prepared)
    assert found.splits["train"].images == 4
    assert sum(sizes.objects for sizes in found.splits["train"].classes.values()) == objects(trained(prepared))
    (often,) = (
        files for what, files in found.notes.items() if what.startswith("images listed more than once in train")
    )
    assert often == ["images/train/train_00001.bmp"]
    assert prints[0] == prints[1]  # a study that was begun before goes on


def test_folders_that_overlap_are_counted_as_they_are_trained(demo_yaml: Path) -> None:
    say(demo_yaml, train=["images/train", "images"])
    assert len(layout.read(demo_yaml).images["train"]) == len(trained(demo_yaml)) == 4 + 6


# ---- order -----------------------------------------------------------------------------------------------------------


def two_disks(demo_yaml: Path, first: Path, second: Path) -> Path:
    """A data set whose training images lie in two folders outside of it, two of them in each."""
    for disk, numbers in ((first, (0, 1)), (second, (2, 3))):
        for kind, suffix in (("images", "bmp"), ("labels", "txt")):
            (disk / kind).mkdir(parents=True)
            for number in numbers:
                shutil.copy(demo_yaml.parent / kind / f"train/train_0000{number}.{suffix}", disk / kind)
    data_yaml = first.parent / "study/data.yaml"
    data_yaml.parent.mkdir()
    say(data_yaml, train=[str(first / "images"), str(second / "images")], val=str(demo_yaml.parent / "images/val"))
    return data_yaml


@pytest.mark.parametrize("drawn", [False, True])
def test_folders_on_several_disks_are_trained_in_one_order_wherever_they_lie(
    demo_yaml: Path, tmp_path: Path, drawn: bool
) -> None:
    orders = []
    for machine, first, second in (("here", "a", "b"), ("there", "z", "b")):
        data_yaml = two_disks(demo_yaml, tmp_path / machine / first, tmp_path / machine / second)
        if drawn:
            data_yaml = subset.write(data_yaml, 3, None, 0, tmp_path / machine / "drawn")
            prepared = source.prepare(str(data_yaml), base=tmp_path, cache=tmp_path / "cache")
            assert trained(prepared).im_files == trained(data_yaml).im_files
        names = [Path(file).name for file in trained(data_yaml).im_files]
        assert [image.name for image in layout.read(data_yaml).images["train"]] == names
        orders.append(names)
    assert orders[0] == orders[1] == sorted(orders[0])


def test_folders_below_the_root_keep_the_order_of_paths(demo_yaml: Path) -> None:
    say(demo_yaml, train=["images/val", "images/train"])
    files = trained(demo_yaml).im_files
    assert files == sorted(files)


def test_a_way_through_a_link_changes_no_order(demo_yaml: Path, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(demo_yaml.parent)
    say(demo_yaml, train=["images/val", "images/train"])
    plain = [Path(file).name for file in trained(demo_yaml).im_files]
    say(demo_yaml, train=[str(tmp_path / "way/images/val"), "images/train"])
    assert [Path(file).name for file in trained(demo_yaml).im_files] == plain


# ---- links -----------------------------------------------------------------------------------------------------------


def test_labels_beside_the_target_of_a_linked_split_are_found_as_ultralytics_finds_them(
    demo_yaml: Path, tmp_path: Path
) -> None:
    from ultralytics.data.utils import check_det_dataset, img2label_paths

    (tmp_path / "mine/images").mkdir(parents=True)
    (tmp_path / "mine/images/train").symlink_to(demo_yaml.parent / "images/train")
    data_yaml = tmp_path / "mine/data.yaml"
    say(data_yaml, train="images/train", val=str(demo_yaml.parent / "images/val"))
    prepared = source.prepare(str(data_yaml), base=tmp_path, cache=tmp_path / "cache")
    data = trained(prepared)
    assert objects(data) == objects(trained(demo_yaml)) > 0
    stock = Path(check_det_dataset(str(data_yaml), autodownload=False)["train"])
    assert img2label_paths(data.im_files) == img2label_paths([str(stock / Path(file).name) for file in data.im_files])


def test_a_linked_image_has_the_labels_beside_the_link(demo_yaml: Path, tmp_path: Path) -> None:
    image = demo_yaml.parent / "images/train/train_00000.bmp"
    before = objects(trained(demo_yaml))
    (tmp_path / "store/images").mkdir(parents=True)
    image.rename(tmp_path / "store/images/0.bmp")
    image.symlink_to(tmp_path / "store/images/0.bmp")
    assert objects(trained(demo_yaml)) == before
    assert check(demo_yaml).problems == {}


# ---- lost labels -----------------------------------------------------------------------------------------------------


def lost_link(label: Path) -> None:
    label.unlink()
    label.symlink_to("nowhere")


def lost_folder(label: Path) -> None:
    label.unlink()
    label.mkdir()


def lost_disk(label: Path) -> None:
    shutil.rmtree(label.parent)
    label.parent.symlink_to("/no such disk")


def decomposed(label: Path) -> None:
    image = label.parents[2] / "images/train" / f"{label.stem}.bmp"
    image.rename(image.with_name(f"{NFD}.bmp"))
    label.rename(label.with_name(f"{NFC}.txt"))


def decomposed_folder(label: Path) -> None:
    for kind, form in (("images", NFD), ("labels", NFC)):
        place = label.parents[2] / kind / "train"
        (place / form).mkdir()
        for file in place.glob("train_00000.*"):
            file.rename(place / form / file.name)


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (lost_link, "a link to what is not there"),
        (lost_folder, "a folder"),
        (lost_disk, "a link to what is not there"),
        (decomposed, "two Unicode forms .* convmv"),
        (decomposed_folder, "two Unicode forms .* convmv"),
    ],
)
def test_a_lost_label_file_is_no_background_to_anybody(demo_yaml: Path, lose: object, said: str) -> None:
    lose(demo_yaml.parent / "labels/train/train_00000.txt")  # type: ignore[operator]
    with pytest.raises(UsageError, match=said):
        fingerprint(demo_yaml, for_training=True)
    with pytest.raises(DataError, match=said):
        trained(demo_yaml)
    ((problem, files), *others) = check(demo_yaml).problems.items()
    assert not others
    assert problem.startswith("unreadable labels")
    assert not said.startswith("two") or files[0].endswith((" and '\\uac01.txt'", " and '\\uac01'"))


def test_a_label_file_that_was_never_there_is_background(demo_yaml: Path) -> None:
    (demo_yaml.parent / "labels/train/train_00000.txt").unlink()
    fingerprint(demo_yaml, for_training=True)
    assert len(trained(demo_yaml)) == 4
    assert list(check(demo_yaml).problems) == ["no label file (that of a background image is empty)"]


def test_decomposed_names_in_an_archive_are_found_as_it_lists_them(demo_yaml: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mac.zip", "w") as packed:
        for file in demo_yaml.parent.rglob("*.*"):
            name = str(file.relative_to(demo_yaml.parent)).replace("train/", f"{NFD}/")
            if not name.endswith((".yaml", ".json")):
                packed.write(file, name)
        packed.writestr("list.txt", f"images/{NFD}/train_00000.bmp\n./images/{NFD}/train_00001.bmp\n")
        content = {"train": "list.txt", "val": f"images/{NFD}", "names": ["a", "b", "c"]}
        packed.writestr("data.yaml", yaml.safe_dump(content, allow_unicode=True))
    prepared = source.prepare("mac.zip", base=tmp_path, cache=tmp_path / "cache")
    fingerprint(prepared, for_training=True)
    assert len(trained(prepared)) == 2
    assert len(trained(prepared, "val")) == 4
    assert all(os.path.exists(file) for file in trained(prepared).im_files)
