"""Which images a study trains, how often and in which order: by the names of the images, or as studies before did."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from PIL import Image
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset

from petskin_tune.datasets import check as checks
from petskin_tune.datasets import fingerprint as fingerprints
from petskin_tune.datasets import layout
from petskin_tune.datasets.check import check
from petskin_tune.datasets.examined import Examined
from petskin_tune.home.home import resolve_home
from petskin_tune.opening.places import Places
from petskin_tune.opening.study import Opened, open_or_create
from petskin_tune.protocol import Finished, SnapshotWritten
from petskin_tune.study import attributes
from petskin_tune.study.best.repeats import spec_of_repetitions
from petskin_tune.study.spec import SPEC_VERSION, StudySpec, Subset
from petskin_tune.training import trainer
from petskin_tune.training.data.loading import StrictDataset, read_data
from petskin_tune.trial.inputs import Prepared, data_of, prepare_data
from tests.support import training
from tests.support.workers import SMALL_STUDY


def put(folder: Path, *numbers: int, below: str = "") -> None:
    """Images in ``folder/images`` and labels in ``folder/labels``, each with one triangle."""
    for number in numbers:
        image, label = folder / "images" / below / f"{number}.bmp", folder / "labels" / below / f"{number}.txt"
        image.parent.mkdir(parents=True, exist_ok=True)
        label.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (number, 0, len(folder.name))).save(image)
        label.write_text(f"{number % 3} 0 0 1 0 1 0.{len(folder.name)}\n")


def describe(place: Path, train: object) -> Path:
    """A data set's YAML in ``place``, which validates on two images of its own."""
    put(place, 8, 9, below="val")
    (place / "data.yaml").write_text(yaml.safe_dump({"train": train, "val": "images/val", "names": ["a", "b", "c"]}))
    return place / "data.yaml"


def two_disks(place: Path, first: str = "zz", second: str = "b") -> Path:
    """Training images in two folders outside of the data set's own; both have a 3.bmp, which is not the same."""
    put(place / first, 0, 3, 4)
    put(place / second, 1, 2, 3)
    return describe(place / "mine", [str(place / first / "images"), str(place / second / "images")])


def below_each_other(place: Path) -> Path:
    put(place / "mine", 0, 1, below="train")
    return describe(place / "mine", ["images/train", "images"])


def listed(place: Path, written: str) -> Path:
    put(place / "mine", 0, 1, 2, below="train")
    (place / "mine").joinpath("list.txt").write_text("".join(f"{written}/train/{n}.bmp\n" for n in (2, 0, 2, 1, 2)))
    return describe(place / "mine", "list.txt")


def listed_from_the_list(place: Path) -> Path:
    return listed(place, "./images")


def listed_plainly(place: Path) -> Path:
    return listed(place, "images")


def beside_the_target(place: Path) -> Path:
    """A split that is a link, whose labels lie beside what it leads to, and a folder as usual."""
    put(place / "store", 0, 1, below="train")
    put(place / "mine", 2, below="more")
    (place / "mine/images/train").symlink_to(place / "store/images/train")
    return describe(place / "mine", ["images/train", "images/more"])


def prepare(data_yaml: Path, version: int, subset: int | None = None) -> Prepared:
    place = data_yaml.parent.parent
    home = resolve_home(str(place / "home"), None, None, {"XDG_CACHE_HOME": str(place / "cache")}, study="s")
    spec = StudySpec(version=version, study="s", model="m.yaml", data=str(data_yaml), epochs=3)
    if subset is not None:
        spec = spec.model_copy(update={"subset": Subset(train=subset)})
    return prepare_data(spec, home, [place], "")


def trained(prepared: Prepared, place: Path) -> str:
    """The training images in the order of their indices."""
    data = read_data(str(prepared.data))
    files = StrictDataset.get_img_files(SimpleNamespace(data=data), data["train"])
    return " ".join(str(Path(file).relative_to(place).with_suffix("")).replace("images/", "") for file in files)


# ---- studies that were begun before ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "subset", "order", "digest", "images"),
    [  # as the last release before version 3 of the spec had them
        (two_disks, None, "b/1 b/2 b/3 zz/0 zz/3 zz/4", "033c28767853fc45", 6),
        (two_disks, 3, "b/2 b/3 zz/4", "5fdb4f656e8207919", 6),
        (
            below_each_other,
            None,
            "mine/train/0 mine/train/0 mine/train/1 mine/train/1 mine/val/8 mine/val/9",
            "214d55b590f68ba2",
            4,
        ),
        (below_each_other, 3, "mine/train/1 mine/val/8 mine/val/9", "0e196cfbf3a0c9f3", 4),
        (
            listed_from_the_list,
            None,
            "mine/train/0 mine/train/1 mine/train/2 mine/train/2 mine/train/2",
            "c2971b0efebf0b0d",
            3,
        ),
        (listed_from_the_list, 3, "mine/train/0 mine/train/1 mine/train/2", "c2971b0efebf0b0d", 3),
        (listed_plainly, None, "mine/train/0 mine/train/1 mine/train/2", "c2971b0efebf0b0d", 3),
        (beside_the_target, None, "mine/more/2 mine/train/0 mine/train/1", "05ef7f9b275fb29a", 3),
        (beside_the_target, 3, "mine/more/2 mine/train/0 mine/train/1", "05ef7f9b275fb29a", 3),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_study_that_was_begun_before_has_its_order_and_its_fingerprint(
    make: Callable[[Path], Path], subset: int | None, order: str, digest: str, images: int, version: int, tmp_path: Path
) -> None:
    prepared = prepare(make(tmp_path), version, subset)
    assert trained(prepared, tmp_path) == order
    assert prepared.fingerprint.digest.startswith(digest)
    assert prepared.train_images == images


# ---- studies that are begun now --------------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", [None, 3, 5])
def test_a_new_study_trains_one_order_wherever_its_folders_lie(tmp_path: Path, subset: int | None) -> None:
    found = []
    for machine, first, second in (("here", "zz", "b"), ("there", "aa", "c")):
        prepared = prepare(two_disks(tmp_path / machine, first, second), SPEC_VERSION, subset)
        order = trained(prepared, tmp_path / machine).replace(f"{first}/", "first/").replace(f"{second}/", "second/")
        found.append((order, prepared.fingerprint, prepared.train_images))
    assert found[0] == found[1]
    if subset is None:
        assert found[0][0] == "first/0 second/1 second/2 first/3 second/3 first/4"


@pytest.mark.parametrize(
    ("make", "order", "images"),
    [
        (listed_from_the_list, "train/0 train/1 train/2 train/2 train/2", 5),
        (listed_plainly, "train/0 train/1 train/2 train/2 train/2", 5),
        (below_each_other, "train/0 train/0 train/1 train/1 val/8 val/9", 6),
    ],
)
def test_a_new_study_trains_and_counts_an_image_as_often_as_it_is_listed(
    make: Callable[[Path], Path], order: str, images: int, tmp_path: Path
) -> None:
    data_yaml = make(tmp_path)
    prepared = prepare(data_yaml, SPEC_VERSION)
    assert trained(prepared, tmp_path / "mine") == order
    assert prepared.fingerprint.splits["train"].images == prepared.train_images == images
    named = list(map(str, layout.read(data_yaml).places["train"]))
    stock = YOLODataset.get_img_files(SimpleNamespace(prefix="", fraction=1.0), named)
    if make is not listed_plainly:  # whose lines Ultralytics looks up in the current folder
        assert stock == StrictDataset.get_img_files(SimpleNamespace(data=read_data(str(prepared.data))), named)
    found = check(prepared.data)
    assert found.splits["train"].images == images
    (often,) = (names for what, names in found.notes.items() if what.startswith("images that train lists more than"))
    assert sorted(often) == [f"images/{name}.bmp" for name, times in Counter(order.split()).items() if times > 1]
    assert "identical images in one split" not in found.notes


def test_data_in_one_folder_are_read_from_their_own_yaml_by_both_rules(tmp_path: Path) -> None:
    put(tmp_path / "mine", 0, 1, 2, below="train")
    data_yaml = describe(tmp_path / "mine", "images/train")
    before, now = prepare(data_yaml, 2), prepare(data_yaml, SPEC_VERSION)
    assert before == now
    assert now.data == data_yaml


def test_a_new_study_finds_labels_beside_the_target_of_a_linked_folder_as_ultralytics_does(tmp_path: Path) -> None:
    data_yaml = beside_the_target(tmp_path)
    prepared = prepare(data_yaml, SPEC_VERSION)
    assert trained(prepared, tmp_path) == "mine/more/2 store/train/0 store/train/1"
    assert dict(prepared.fingerprint.splits["train"].objects) == {"0": 1, "1": 1, "2": 1}
    stock = check_det_dataset(str(data_yaml), autodownload=False)["train"]
    assert stock == read_data(str(prepared.data))["train"]


@pytest.mark.parametrize("version", [2, SPEC_VERSION])
def test_a_person_s_yaml_does_not_say_by_which_rule_it_is_read(tmp_path: Path, version: int) -> None:
    data_yaml = two_disks(tmp_path)
    before = prepare(data_yaml, version)
    order = trained(before, tmp_path)
    data_yaml.write_text(data_yaml.read_text() + yaml.safe_dump(layout.BY_NAME))
    after = prepare(data_yaml, version)
    assert trained(after, tmp_path) == order
    assert after.fingerprint == before.fingerprint


# ---- the whole way ---------------------------------------------------------------------------------------------------


def begin(place: Path, monkeypatch: pytest.MonkeyPatch) -> Opened:
    """A study of two disks as ``init`` makes it, or opens it."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    (place / "s.yaml").write_text(yaml.safe_dump({**SMALL_STUDY, "study": "s", "data": "mine/data.yaml"}))
    return open_or_create(Places("s.yaml", home="home"), lambda line: None)


def test_a_study_keeps_the_rule_that_it_was_begun_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_disks(tmp_path)
    opened = begin(tmp_path, monkeypatch)
    assert opened.prepared is not None
    by_name = trained(opened.prepared, tmp_path)
    assert by_name == "zz/0 b/1 b/2 zz/3 b/3 zz/4"
    stored = {**opened.study.attributes[attributes.SPEC], "version": 2}  # as an older release would have begun it
    before = prepare(tmp_path / "mine/data.yaml", 2).fingerprint.to_json()
    opened.study.optuna.set_user_attr(attributes.SPEC, stored)
    opened.study.optuna.set_user_attr(attributes.FINGERPRINT, before)

    again = begin(tmp_path, monkeypatch)
    found = data_of(again.study, again.home)
    assert trained(found, tmp_path) == "b/1 b/2 b/3 zz/0 zz/3 zz/4"
    assert found.fingerprint.to_json() == before
    repeated = spec_of_repetitions(again.study.spec, "s-repeat-0", 3)
    assert not repeated.images_by_name
    assert trained(prepare_data(repeated, again.home, [tmp_path], ""), tmp_path) == trained(found, tmp_path)


@pytest.mark.parametrize("version", [2, SPEC_VERSION])
def test_a_training_that_is_killed_in_mid_epoch_goes_on_bit_for_bit(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either rule, and by the new one with data that lie elsewhere by then, in folders of another order."""
    here, there = tmp_path / "here", tmp_path / "there"
    mine = prepare(two_disks(here), version)
    moved = prepare(two_disks(there, *(("aa", "c") if version > 2 else ("zz", "b"))), version)
    assert mine.fingerprint == moved.fingerprint
    settings = {"batch": 2, "epochs": 2, "imgsz": 32, "nbs": 2}
    whole = training.job(tmp_path, "whole", data=str(mine.data), arguments=settings)
    assert isinstance(training.run_here(whole)[-1], Finished)
    killed = training.job(
        tmp_path, "killed", data=str(mine.data), arguments=settings, snapshot_every=training.EVERY_BATCH
    )
    monkeypatch.setattr(trainer, "SnapshotKeeper", training.waiting_keeper())
    events = training.run_here(killed, "batch-done", 5)
    snapshot = [event for event in events if isinstance(event, SnapshotWritten)][-1]
    assert snapshot.position.batch not in (0, 3), "it was not killed in mid epoch"
    events = training.run_here(replace(killed, data=str(moved.data), snapshot=snapshot.path))
    assert isinstance(events[-1], Finished), events[-1]
    left, right = (training.final_state(job.run_folder) for job in (whole, killed))
    assert training.differences(left, right) == []


# ---- images that are listed more than once ---------------------------------------------------------------------------


def oversampled(place: Path) -> Path:
    """Six images, of which three are listed again, in two groups of three."""
    put(place / "mine", *range(6), below="train")
    rows = "".join(f"./images/train/{number}.bmp\n" for number in (0, 1, 2, 3, 4, 5, 0, 0, 3))
    (place / "mine/list.txt").write_text(rows)
    groups = "".join(f"images/train/{number}.bmp,{'ab'[number // 3]}\n" for number in range(6))
    (place / "mine/groups.csv").write_text(f"image,group\n{groups}")
    data_yaml = describe(place / "mine", "list.txt")
    data_yaml.write_text(f"{data_yaml.read_text()}groups: groups.csv\n")
    return data_yaml


@pytest.mark.parametrize("wanted", [4, 5])
def test_a_group_is_in_a_subset_whole_or_not_at_all_however_often_its_images_are_listed(
    tmp_path: Path, wanted: int
) -> None:
    drawn = trained(prepare(oversampled(tmp_path), SPEC_VERSION, wanted), tmp_path).split()
    whole = {"a": ["0", "0", "0", "1", "2"], "b": ["3", "3", "4", "5"]}
    assert [Path(image).name for image in drawn] in [images for images in whole.values() if len(images) <= wanted]


def test_an_image_that_is_listed_again_is_not_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(oversampled(tmp_path), SPEC_VERSION)
    data_set = layout.read(prepared.data)
    looked: Counter[str] = Counter()
    stat = os.stat

    def counting(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        looked[str(path)] += 1
        return stat(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", counting)
        examined = Examined(prepared.data, None)
        summary = fingerprints._summary(data_set, "train", examined)
    assert summary.images == 9
    images = [image for image in looked if image.endswith(".bmp")]
    assert len(images) == 6
    assert {looked[image] for image in images} == {1}

    pictures: list[Path] = []
    read = checks._picture
    monkeypatch.setattr(checks, "_picture", lambda image: (pictures.append(image), read(image))[1])
    found = check(prepared.data)
    assert len([image for image in pictures if "train" in str(image)]) == 6
    assert found.splits["train"].images == 9
    assert sum(sizes.objects for sizes in found.splits["train"].classes.values()) == 9
