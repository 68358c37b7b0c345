import os
from pathlib import Path

import pytest

from petskin_tune.datasets import demo, folders, layout
from petskin_tune.datasets.labels.rows import label_path
from petskin_tune.datasets.names import class_names
from petskin_tune.errors import UsageError


@pytest.fixture
def demo_yaml(tmp_path: Path) -> Path:
    return demo.make(tmp_path / "demo", train=6, val=3, imgsz=32)


def test_the_image_suffixes_are_ultralytics_own() -> None:
    from ultralytics.data.utils import IMG_FORMATS

    assert {f".{suffix}" for suffix in IMG_FORMATS} == folders.IMAGE_SUFFIXES


def test_label_paths_are_ultralytics_own() -> None:
    from ultralytics.data.utils import img2label_paths

    images = ["/a/images/train/x.y.jpg", "/images/images/x.png", "/a/pictures/x.jpg", "/images.v2/images/val/z.JPG"]

    assert [str(label_path(Path(image))) for image in images] == img2label_paths(images)


def test_a_relative_path_is_relative_to_the_yaml_and_not_to_the_current_folder(
    tmp_path: Path, demo_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    demo.make(elsewhere / "demo", train=2, val=1, imgsz=32)
    moved = tmp_path / "data.yaml"
    moved.write_text("path: demo\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n")
    monkeypatch.chdir(elsewhere)

    data_set = layout.read(moved)

    assert len(data_set.images["train"]) == 6
    assert data_set.images["train"][0].is_relative_to(tmp_path / "demo")


def test_a_yaml_that_travelled_is_read_where_it_lies(demo_yaml: Path) -> None:
    demo_yaml.write_text("path: /content/elsewhere\n" + demo_yaml.read_text())

    assert layout.read(demo_yaml).root == demo_yaml.parent


def test_hidden_files_and_other_suffixes_are_no_images(demo_yaml: Path) -> None:
    (demo_yaml.parent / "images/train/.hidden.jpg").touch()
    (demo_yaml.parent / "images/train/notes.txt").touch()

    assert len(layout.read(demo_yaml).images["train"]) == 6


def test_lists_of_images_are_relative_to_the_list(demo_yaml: Path) -> None:
    lists = demo_yaml.parent / "lists"
    lists.mkdir()
    (lists / "train.txt").write_text("../images/train/train_00000.bmp\n\n./../images/train/train_00001.bmp\n")
    demo_yaml.write_text("train: lists/train.txt\nval: images/val\nnames: [a, b, c]\n")

    names = [image.name for image in layout.read(demo_yaml).images["train"]]

    assert names == ["train_00000.bmp", "train_00001.bmp"]
    assert all(image.exists() for image in layout.read(demo_yaml).images["train"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("train: [1\nval: x\n", "line 2"),
        ("- just\n- a list\n", "no data set"),
        ("val: images/val\nnames: [a]\n", "no `train:`"),
        ("train: images/train\nnames: [a]\n", "no `val:`"),
        ("train: images/train\nval: images/val\n", "names"),
        ("train: images/train\nval: images/val\nnames: {1: a, 2: b}\n", "names"),
        ("train: images/nowhere\nval: images/val\nnames: [a]\n", "images/nowhere"),
        ("train: images/train\nval: empty\nnames: [a]\n", "no images for val"),
        ("train: 5\nval: images/val\nnames: [a]\n", "`train:`"),
    ],
)
def test_a_broken_yaml_is_refused_with_one_clear_sentence(demo_yaml: Path, content: str, said: str) -> None:
    (demo_yaml.parent / "empty").mkdir()
    demo_yaml.write_text(content)

    with pytest.raises(UsageError, match=said) as refused:
        layout.read(demo_yaml)

    assert str(demo_yaml) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_class_names_come_from_a_list_a_mapping_or_a_number(demo_yaml: Path) -> None:
    here = Path("data.yaml")

    assert class_names(here, {"names": ["a", "b"]}) == ("a", "b")
    assert class_names(here, {"names": {1: "b", 0: "a"}}) == ("a", "b")
    assert class_names(here, {"nc": 2}) == ("class_0", "class_1")


SPLITS = "train: images/train\nval: images/val\n"


@pytest.mark.parametrize(
    "test", ["../test/images", "nowhere", "empty", "false", "5", "[1, 2]", "/dev/zero", "''", "images/val"]
)
def test_a_split_that_no_trial_looks_at_is_not_required(demo_yaml: Path, test: str) -> None:
    (demo_yaml.parent / "empty").mkdir()
    demo_yaml.write_text(f"{SPLITS}test: {test}\nnames: [a, b, c]\n")

    data_set = layout.read(demo_yaml)

    assert ("test" in data_set.images) == (test == "images/val")
    assert bool(data_set.notes) == (test not in ("images/val", "false", "''"))
    assert all("no trial looks at it" in note for note in data_set.notes)


def test_a_path_that_is_not_there_is_named_with_what_it_was_to_hold(demo_yaml: Path) -> None:
    demo_yaml.write_text("path: /data/petskin_v2\ntrain: train/images\nval: images/val\nnames: [a, b, c]\n")
    with pytest.raises(UsageError, match=r"names train/images, .*; its `path: /data/petskin_v2` is not there either"):
        layout.read(demo_yaml)


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/urandom", "/", "/proc", "pipe"])
def test_devices_pipes_and_the_whole_machine_are_no_data(demo_yaml: Path, place: str) -> None:
    os.mkfifo(demo_yaml.parent / "pipe")
    for key in ("train", "val"):
        demo_yaml.write_text(f"{SPLITS}names: [a, b, c]\n".replace(f"images/{key}", place))
        with pytest.raises(UsageError, match=r"cannot be read as a list|is no folder of images"):
            layout.read(demo_yaml)


def test_a_yaml_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.yaml")
    with pytest.raises(UsageError, match=r"cannot be read as YAML: it is a (device|FIFO|socket)"):
        layout.read(tmp_path / "data.yaml")


def test_aliases_that_say_a_billion_names_are_refused_at_their_line(demo_yaml: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    demo_yaml.write_text("\n".join([*lines, f"{SPLITS}names: [*a9]"]))
    with pytest.raises(UsageError, match=r"is not valid YAML: line \d+: more than 200000 values"):
        layout.read(demo_yaml)


@pytest.mark.parametrize("channels", [4, "true", "x", 0, "[3]"])
def test_channels_that_no_picture_is_read_with_are_refused(demo_yaml: Path, channels: object) -> None:
    demo_yaml.write_text(f"{SPLITS}names: [a, b, c]\nchannels: {channels}\n")
    with pytest.raises(UsageError, match=r"`channels:` must be 3, or 1"):
        layout.read(demo_yaml)


def test_a_path_of_windows_is_refused_with_how_to_write_it(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("train: images\\train\nval: images\\val\nnames: [a]\n")
    with pytest.raises(UsageError, match=r"is not there: .*; write / between folders, not \\\.$"):
        layout.read(tmp_path / "data.yaml")


def test_of_a_linked_yaml_the_images_lie_beside_the_link_or_beside_what_it_leads_to(
    tmp_path: Path, demo_yaml: Path
) -> None:
    blob = tmp_path / "blobs" / "0123"
    blob.parent.mkdir()
    demo_yaml.rename(blob)
    demo_yaml.symlink_to(blob)
    assert len(layout.read(demo_yaml).images["train"]) == 6
    elsewhere = tmp_path / "pets.yaml"
    blob.rename(demo_yaml)
    elsewhere.symlink_to(demo_yaml)
    assert len(layout.read(elsewhere).images["train"]) == 6


def test_of_a_linked_yaml_that_can_be_read_beside_neither_both_places_are_named(
    tmp_path: Path, demo_yaml: Path
) -> None:
    link = tmp_path / "pets.yaml"
    link.symlink_to(demo_yaml)
    images = demo_yaml.parent / "images" / "val"
    for image in images.iterdir():
        image.unlink()
    with pytest.raises(UsageError) as refused:
        layout.read(link)
    assert str(refused.value) == (
        f"{demo_yaml}: no images for val in images/val. {link} is a link to it; read beside the link: {link} names "
        f"images/train, which is not there: looked for {tmp_path}/images/train."
    )


def test_what_is_wrong_in_a_linked_yaml_itself_is_said_once(tmp_path: Path, demo_yaml: Path) -> None:
    link = tmp_path / "pets.yaml"
    link.symlink_to(demo_yaml)
    demo_yaml.write_text(SPLITS)
    with pytest.raises(UsageError) as refused:
        layout.read(link)
    assert str(refused.value).count("names") == 1
    assert str(refused.value).startswith(f"{link} ")


def test_a_folder_that_cannot_be_listed_is_no_smaller_data_set(
    demo_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = demo_yaml.parent / "images" / "train" / "more"
    inside.mkdir()
    scandir = os.scandir

    def refused(path: Path) -> object:
        if Path(path) == inside:
            raise OSError(5, "Input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UsageError, match="more cannot be listed: Input/output error"):
        layout.read(demo_yaml)
    inside.rename(inside.with_name("lost+found"))
    inside = inside.with_name("lost+found")
    assert len(layout.read(demo_yaml).images["train"]) == 6
