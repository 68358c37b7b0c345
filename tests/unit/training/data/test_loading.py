"""A training reads what was judged: the image files alone, through the same layout as every command."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from petskin_tune.datasets import demo
from petskin_tune.training.data.labels import DataError
from petskin_tune.training.data.loading import StrictDataset, read_data


@pytest.fixture
def demo_yaml(tmp_path: Path) -> Path:
    return demo.make(tmp_path / "demo", train=4, val=2, imgsz=32)


def dataset(data_yaml: Path, cache: str | None = None) -> StrictDataset:
    data = read_data(str(data_yaml))
    return StrictDataset(
        img_path=data["train"],
        imgsz=32,
        batch_size=2,
        augment=False,
        hyp=SimpleNamespace(mask_ratio=4, overlap_mask=True, bgr=0.0, deterministic=True),
        cache=cache,
        task="segment",
        data=data,
        label_cache=data_yaml.parents[1] / "labels",
    )


def pixels(data: StrictDataset) -> list[np.ndarray]:
    return [data.load_image(index)[0] for index in range(len(data))]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("cache", [None, "ram", "disk"])
def test_arrays_beside_images_are_neither_trained_nor_written_nor_deleted(demo_yaml: Path, cache: str | None) -> None:
    without = pixels(dataset(demo_yaml))
    images = sorted((demo_yaml.parent / "images/train").glob("*.bmp"))
    np.save(images[0].with_suffix(".npy"), np.zeros((32, 32, 3), np.uint8))  # somebody's black picture
    np.save(images[1].with_suffix(".npy"), np.ones(512, np.float32))  # an embedding
    np.save(images[2].with_suffix(".npy"), np.zeros((32, 32), np.uint16))  # a depth map
    images[3].with_suffix(".npy").write_bytes(b"no array")
    before = contents(demo_yaml.parent)

    for ours, theirs in zip(pixels(dataset(demo_yaml, cache)), without, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert contents(demo_yaml.parent) == before


def test_a_cache_on_disk_writes_nothing_beside_the_images(demo_yaml: Path) -> None:
    before = contents(demo_yaml.parent)
    pixels(dataset(demo_yaml, "disk"))
    assert contents(demo_yaml.parent) == before


def test_images_are_ordered_as_ultralytics_orders_them(demo_yaml: Path) -> None:
    from ultralytics.data.dataset import YOLODataset

    folder = demo_yaml.parent / "images/train"
    for name in ("a/x.bmp", "a-b/x.bmp", "B.bmp", "a.bmp"):
        (folder / name).parent.mkdir(exist_ok=True)
        os.link(folder / "train_00000.bmp", folder / name)
    ours = dataset(demo_yaml)
    stock = YOLODataset.get_img_files(SimpleNamespace(prefix="", fraction=1.0), [str(folder)])
    assert ours.im_files == stock


def test_a_linked_folder_of_images_has_the_labels_beside_the_link(demo_yaml: Path, tmp_path: Path) -> None:
    images = demo_yaml.parent / "images/train"
    images.rename(tmp_path / "large disk")
    images.symlink_to(tmp_path / "large disk")
    assert sum(len(label["cls"]) for label in dataset(demo_yaml).labels) > 0


def test_one_level_off_is_forgiven_in_lists_as_in_plain_text(demo_yaml: Path) -> None:
    demo_yaml.write_text("train: [../images/train]\nval: ../images/val\ntest: false\nnames: [yes, no, on]\n")
    data = read_data(str(demo_yaml))
    assert data["train"] == [str(demo_yaml.parent / "images/train")]
    assert data["names"] == {0: "yes", 1: "no", 2: "on"}


def test_what_init_refuses_a_training_refuses_in_the_same_words(demo_yaml: Path) -> None:
    demo_yaml.write_text("train: images/train\nval: images/val\nnames: [a, b, c]\nnc: 80\n")
    with pytest.raises(DataError, match="`nc: 80` and the 3 `names` do not agree"):
        read_data(str(demo_yaml))


def test_names_that_are_not_utf_8_are_trained(demo_yaml: Path) -> None:
    name = os.fsdecode("피부".encode("cp949"))
    for kind, suffix in (("images", ".bmp"), ("labels", ".txt")):
        place = demo_yaml.parent / kind / "train"
        (place / f"train_00000{suffix}").rename(place / f"{name}{suffix}")
    data = dataset(demo_yaml)
    assert any(name in file for file in data.im_files)
    assert all(len(label["cls"]) for label in data.labels)
    assert len(pixels(data)) == 4
