import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petskin_tune.datasets import demo, layout, resize, subset
from petskin_tune.datasets.check import check
from petskin_tune.datasets.labels.rows import label_lines, label_path
from petskin_tune.datasets.pictures import contact_sheet, rendering
from petskin_tune.datasets.pictures import reading as pictures
from petskin_tune.errors import UsageError


def jpeg(width: int, height: int, orientation: int | None = None) -> bytes:
    """Left half red, right half blue, as stored."""
    image = Image.new("RGB", (width, height), (220, 30, 30))
    image.paste((30, 30, 220), (width // 2, 0, width, height))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, exif=exif)
    return buffer.getvalue()


def decoded(raw: bytes) -> Image.Image:
    return Image.open(io.BytesIO(raw))


def reddish(image: Image.Image, x: float, y: float) -> bool:
    red, _, blue = image.convert("RGB").getpixel((int(x * image.width), int(y * image.height)))  # type: ignore[misc]
    return red > blue


# ---- pictures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "imgsz", "expected"),
    [
        ((1920, 1080), 640, (640, 360)),
        ((1080, 1920), 640, (360, 640)),
        ((500, 400), 640, (500, 400)),
        ((1001, 333), 250, (250, 83)),
        ((4000, 20), 100, (100, 1)),
    ],
)
def test_the_long_side_is_brought_down_and_never_up(
    size: tuple[int, int], imgsz: int, expected: tuple[int, int]
) -> None:
    picture = pictures.open_picture(jpeg(*size))

    assert decoded(rendering.render(picture, (0, 0, *size), imgsz)).size == expected


@pytest.mark.parametrize("window", [(0, 0, 1920, 1080), (900, 100, 1100, 300), (301, 77, 1619, 1003)])
@pytest.mark.parametrize("imgsz", [None, 160, 640])
def test_a_window_shows_what_it_frames(window: rendering.Window, imgsz: int | None) -> None:
    picture = pictures.open_picture(jpeg(1920, 1080))

    shown = decoded(rendering.render(picture, window, imgsz))

    edge = (960 - window[0]) / (window[2] - window[0])
    assert reddish(shown, edge - 0.05, 0.5)
    assert not reddish(shown, edge + 0.05, 0.5)
    assert shown.size == rendering.written_size(window, imgsz)


@pytest.mark.parametrize("orientation", [6, 8])
@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".TIFF", ".avif"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
def test_whatever_a_picture_is_called_its_size_is_that_of_its_pixels_in_the_training(
    kind: str, suffix: str, orientation: int, tmp_path: Path
) -> None:
    from ultralytics.utils.patches import imread

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"picture{suffix}"
    Image.new("RGB", (40, 24)).save(path, kind, exif=exif)
    picture = pictures.open_picture(path.read_bytes(), suffix)
    assert picture.size == imread(str(path)).shape[1::-1]
    corner = {6: (24, 0), 8: (0, 40)}[orientation] if picture.size != picture.stored else (0, 0)
    assert picture.shown([(0, 0)]) == (corner,)


def test_a_turned_photograph_is_seen_as_it_is_shown() -> None:
    picture = pictures.open_picture(jpeg(640, 480, orientation=6))  # shown turned clockwise: red above blue

    shown = decoded(rendering.render(picture, (0, 0, 480, 640), 200))

    assert picture.size == (480, 640)
    assert shown.size == (150, 200)
    assert reddish(shown, 0.5, 0.2)
    assert not reddish(shown, 0.5, 0.8)
    assert shown.getexif().get(0x0112, 1) == 1


def test_a_jpeg_that_needs_no_change_keeps_its_bytes_less_padding() -> None:
    raw = jpeg(100, 80)

    for given in (raw, raw + bytes(7)):
        assert rendering.render(pictures.open_picture(given), (0, 0, 100, 80), 640) == raw
    trailing = rendering.render(pictures.open_picture(raw + b"trailer"), (0, 0, 100, 80), 640)
    assert trailing.endswith(b"\xff\xd9")
    assert decoded(trailing).size == (100, 80)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "empty"),
        (b"x", "no readable"),
        (jpeg(100, 80)[:30], "no readable|damaged"),
        (jpeg(9, 80), "smaller than 10"),
    ],
)
def test_what_is_no_picture_says_why(raw: bytes, reason: str) -> None:
    with pytest.raises(pictures.BadPicture, match=reason):
        pictures.verify(pictures.open_picture(raw))


def test_a_picture_that_is_cut_short_is_never_written() -> None:
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 255, (300, 400, 3)).astype(np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, "JPEG")
    for imgsz in (None, 100):
        picture = pictures.open_picture(buffer.getvalue()[: len(buffer.getvalue()) * 2 // 3])
        with pytest.raises(pictures.BadPicture, match="cut short"):
            rendering.render(picture, (0, 0, 400, 300), imgsz)


# ---- resize --------------------------------------------------------------------------------------------------------


@pytest.fixture
def demo_yaml(tmp_path: Path) -> Path:
    return demo.make(tmp_path / "demo", train=6, val=3, imgsz=96)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_smaller_copy_has_smaller_images_and_the_same_labels(tmp_path: Path, demo_yaml: Path) -> None:
    resized = resize.resize(demo_yaml, tmp_path / "small", 48, jobs=2)

    whole, small = layout.read(demo_yaml), layout.read(resized.data_yaml)
    assert (resized.images, resized.skipped) == (9, ())
    assert small.names == whole.names
    for split, images in small.images.items():
        assert [image.stem for image in images] == [image.stem for image in whole.images[split]]
        for image, original in zip(images, whole.images[split], strict=True):
            assert Image.open(image).size == (48, 48)
            assert label_path(image).read_bytes() == label_path(original).read_bytes()


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path, demo_yaml: Path) -> None:
    bad = demo_yaml.parent / "images/train/train_00002.bmp"
    bad.write_bytes(b"not a picture")

    resized = resize.resize(demo_yaml, tmp_path / "small", 48)

    assert resized.skipped == ((bad, "no readable picture"),)
    assert len(layout.read(resized.data_yaml).images["train"]) == 5


def test_groups_and_lists_are_carried_along(tmp_path: Path, demo_yaml: Path) -> None:
    demo_yaml.write_text(demo_yaml.read_text() + "groups: groups.csv\n")
    names = [f"images/train/train_{number:05d}.bmp" for number in range(6)]
    (demo_yaml.parent / "groups.csv").write_text("image,group\n" + "".join(f"{name},g{name[-5]}\n" for name in names))
    part = subset.write(demo_yaml, 4, None, 0, tmp_path / "subset")

    small = layout.read(resize.resize(part, tmp_path / "small", 48).data_yaml)

    groups = subset.read_groups(small)
    assert sorted(groups) == [layout.image_name(small, image) for image in small.images["train"]]
    assert len(groups) == 4


@pytest.mark.parametrize("nth", [1, 6, 19, 20])
def test_killed_and_run_again_a_copy_ends_with_the_same_bytes(tmp_path: Path, demo_yaml: Path, nth: int) -> None:
    command = (
        "import sys; from pathlib import Path; from petskin_tune.datasets.resize import resize; "
        "resize(Path(sys.argv[1]), Path(sys.argv[2]), 48)"
    )
    faults = {"TUNE_FAULTS": f"file-written=kill@{nth}", "TUNE_FAULTS_LOG": str(tmp_path / "fired")}
    arguments = [sys.executable, "-c", command, str(demo_yaml), str(tmp_path / "killed")]

    assert subprocess.run(arguments, env={**os.environ, **faults}, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "fired").exists()
    resize.resize(demo_yaml, tmp_path / "killed", 48)
    resize.resize(demo_yaml, tmp_path / "undisturbed", 48)

    assert tree(tmp_path / "killed") == tree(tmp_path / "undisturbed")


def test_a_copy_of_other_data_or_of_another_size_is_refused(tmp_path: Path, demo_yaml: Path) -> None:
    resize.resize(demo_yaml, tmp_path / "small", 48)

    with pytest.raises(UsageError, match="another imgsz"):
        resize.resize(demo_yaml, tmp_path / "small", 64)
    (demo_yaml.parent / "labels/train/train_00000.txt").write_text("")
    with pytest.raises(UsageError, match="another source"):
        resize.resize(demo_yaml, tmp_path / "small", 48)
    shutil.copy(demo_yaml.parent / "images/train/train_00000.bmp", demo_yaml.parent / "images/train/train_00000.png")
    with pytest.raises(UsageError, match="both become"):
        resize.resize(demo_yaml, tmp_path / "twins", 48)


# ---- check and contact sheet ---------------------------------------------------------------------------------------


def test_a_sound_data_set_has_no_problem_and_its_numbers_are_told(demo_yaml: Path) -> None:
    found = check(demo_yaml, jobs=2)

    assert found.problems == {}
    counted = {name: sizes.objects for name, sizes in found.splits["train"].classes.items()}
    rows = [row[0] for image in layout.read(demo_yaml).images["train"] for row in label_lines(label_path(image))]
    assert counted == {name: rows.count(str(number)) for number, name in enumerate(demo.NAMES)}
    sizes = found.splits["train"].classes["papule"]
    assert 0.005 < sizes.smallest <= sizes.median <= sizes.largest < 0.1
    assert "No problem found." in found.summary()


def test_every_kind_of_damage_is_found_and_named(tmp_path: Path, demo_yaml: Path) -> None:
    images, labels = demo_yaml.parent / "images", demo_yaml.parent / "labels"
    (images / "train/train_00000.bmp").write_bytes(b"")
    (labels / "train/train_00000.txt").write_text("0 0 0 1 0 1 1\n")
    (labels / "train/train_00001.txt").write_text("7 0 0 1 0 1 1\n")
    (labels / "train/train_00002.txt").write_text("0 0 0 1 0 1 1.5\n")
    (labels / "train/train_00003.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (labels / "train/train_00004.txt").write_text("")
    (labels / "train/train_00005.txt").write_text("0 0.5 0.5 0.1 0.1\n0 0 0 1 0 1 1\n")
    (labels / "val/val_00001.txt").write_bytes(b"\xff\xfe")
    (labels / "val/val_00002.txt").write_text("inf 0 0 1 0 1 1\n")
    shutil.copy(images / "train/train_00001.bmp", images / "val/val_00000.bmp")
    (demo_yaml.parent / "groups.csv").write_text(
        "image,group\nimages/train/train_00003.bmp,rex\nimages/val/val_00001.bmp,rex\nimages/val/val_00002.bmp,tom\n"
    )
    demo_yaml.write_text(demo_yaml.read_text() + "groups: groups.csv\n")

    found = check(demo_yaml)

    assert found.problems == {
        "damaged image, empty file": ["images/train/train_00000.bmp"],
        "unreadable labels, class 7 is none of the 3 that `names` has": ["images/train/train_00001.bmp"],
        "unreadable labels, a coordinate outside 0 to 1": ["images/train/train_00002.bmp"],
        "unreadable labels, no text, or no file that can be read": ["images/val/val_00001.bmp"],
        "unreadable labels, class inf is no whole number": ["images/val/val_00002.bmp"],
        "boxes without outlines": ["images/train/train_00003.bmp"],
        "unreadable labels, boxes and outlines mixed": ["images/train/train_00005.bmp"],
        "identical images in more than one split": ["images/train/train_00001.bmp = images/val/val_00000.bmp"],
        "groups in more than one split": ["rex"],
    }
    assert found.notes["classes without an object in train"] == ["scale", "ulcer"]
    assert found.notes["empty label files"] == ["images/train/train_00004.bmp"]
    assert "PROBLEM: groups in more than one split (1): rex" in found.summary()


def test_a_lost_label_file_is_a_problem_and_an_empty_one_is_noted(demo_yaml: Path) -> None:
    (demo_yaml.parent / "labels/train/train_00000.txt").unlink()
    for number in (1, 2):
        (demo_yaml.parent / f"labels/train/train_0000{number}.txt").write_text("")

    found = check(demo_yaml)

    missing = {"no label file (that of a background image is empty)": ["images/train/train_00000.bmp"]}
    assert found.problems == missing == found.to_json()["problems"]
    assert found.notes["empty label files"] == ["images/train/train_00001.bmp", "images/train/train_00002.bmp"]
    assert (found.splits["train"].background, found.splits["val"].background) == (3, 0)


def test_labels_that_cannot_be_read_have_their_own_place_on_the_contact_sheet(tmp_path: Path, demo_yaml: Path) -> None:
    (demo_yaml.parent / "labels/train/train_00000.txt").write_text("x y z\n")
    (demo_yaml.parent / "labels/train/train_00001.txt").write_text("0 0.5 what\n")
    (demo_yaml.parent / "labels/train/train_00002.txt").write_text("-1 0 0 1 0 1 1\n")

    page = contact_sheet.contact_sheet(demo_yaml, tmp_path / "sheet.html").read_text()

    assert page.count("<h2>unreadable labels (2 shown)</h2>") == 1
    assert page.count("<h2>background (1 shown)</h2>") == 1


def test_the_contact_sheet_shows_every_class_with_its_masks(tmp_path: Path, demo_yaml: Path) -> None:
    (demo_yaml.parent / "labels/train/train_00004.txt").write_text("")

    sheet = Image.open(contact_sheet.contact_sheet(demo_yaml, tmp_path / "sheet.png", per_class=2))
    page = contact_sheet.contact_sheet(demo_yaml, tmp_path / "sheet.html", per_class=2).read_text()

    colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 24) or []}
    assert set(contact_sheet._COLOURS[:3]) <= colours
    assert [page.count(f"<h2>{name} (") for name in (*demo.NAMES, "background")] == [1, 1, 1, 1]
    assert page.count("data:image/jpeg;base64,") == 7
    assert "http" not in page
    with pytest.raises(UsageError, match=r"\.png or \.html"):
        contact_sheet.contact_sheet(demo_yaml, tmp_path / "sheet.pdf")


# ---- what training and tools see alike -----------------------------------------------------------------------------


def deepened(data_yaml: Path, convert: Callable[[np.ndarray], np.ndarray], suffix: str) -> list[Path]:
    """The training images made grey and of another kind of number."""
    made = []
    for image in sorted((data_yaml.parent / "images/train").glob("*.bmp")):
        grey = np.asarray(Image.open(image).convert("L"))
        image.unlink()
        made.append(image.with_suffix(suffix))
        Image.fromarray(convert(grey)).save(made[-1])
    return made


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pictures_of_16_bits_look_in_the_copy_and_on_the_sheet_as_the_training_sees_them(
    tmp_path: Path, demo_yaml: Path, suffix: str
) -> None:
    images = deepened(demo_yaml, lambda grey: grey.astype(np.uint16) * 257, suffix)
    means = [float((np.asarray(Image.open(image)).astype(float) / 257).mean()) for image in images]

    resize.resize(demo_yaml, tmp_path / "small", 48)
    tile = contact_sheet._tile(layout.read(demo_yaml), images[0]).picture

    copies = [Image.open(tmp_path / f"small/images/train/{image.stem}.jpg") for image in images]
    assert [float(np.asarray(copy).mean()) for copy in copies] == pytest.approx(means, abs=2)
    assert max(means) < 200
    assert len(np.unique(np.asarray(tile))) > 50


def test_pictures_of_floating_point_are_left_out_and_named(tmp_path: Path, demo_yaml: Path) -> None:
    [image, *_] = deepened(demo_yaml, lambda grey: (grey / 255).astype(np.float32), ".tif")
    (demo_yaml.parent / "images/train/x.bmp").write_bytes((demo_yaml.parent / "images/val/val_00000.bmp").read_bytes())
    skipped = resize.resize(demo_yaml, tmp_path / "small", 48).skipped
    assert skipped[0] == (image, "pixels of another kind than 8 or 16 bits (F)")
    assert contact_sheet._tile(layout.read(demo_yaml), image).name.endswith("(damaged)")


def test_classes_of_one_name_are_told_apart_and_named_as_a_problem(tmp_path: Path, demo_yaml: Path) -> None:
    demo_yaml.write_text("train: images/train\nval: images/val\nnames: [lesion, lesion, ulcer]\n")
    found = check(demo_yaml)
    objects = {name: sizes.objects for name, sizes in found.splits["train"].classes.items()}
    assert list(objects) == ["lesion (class 0)", "lesion (class 1)", "ulcer"]
    assert all(objects.values())
    assert found.problems == {"class names given to more than one class": ["lesion"]}
    page = contact_sheet.contact_sheet(demo_yaml, tmp_path / "sheet.html").read_text()
    assert page.count("<h2>lesion (class 1) (") == 1


def test_outlines_without_an_area_are_counted_and_a_hair_outside_is_none(demo_yaml: Path) -> None:
    (demo_yaml.parent / "labels/train/train_00000.txt").write_text("0 .5 .5 .5 .5 .5 .5\n1 0 0 1.0000001 0 1 1\n")
    (demo_yaml.parent / "labels/train/train_00001.txt").write_text("0 .1 .1 .2 .2 .3 .3\n2 .4 .4 .4 .4 .4 .4\n")
    found = check(demo_yaml)
    [(what, images)] = found.problems.items()
    assert what.startswith("outlines without an area, 3 of ")
    assert images == ["images/train/train_00000.bmp", "images/train/train_00001.bmp"]


def test_names_that_are_not_utf_8_are_checked_drawn_and_copied(tmp_path: Path, demo_yaml: Path) -> None:
    name = os.fsdecode("털".encode("cp949"))
    for kind, suffix in (("images", ".bmp"), ("labels", ".txt")):
        (demo_yaml.parent / f"{kind}/train/train_00000{suffix}").rename(
            demo_yaml.parent / f"{kind}/train/{name}{suffix}"
        )
    (demo_yaml.parent / "groups.csv").write_bytes(b"image,group\nimages/train/\xc5\xd0.bmp,rex\n")
    demo_yaml.write_text(demo_yaml.read_text() + "groups: groups.csv\n")
    (demo_yaml.parent / f"images/train/{name}.bmp").write_bytes(b"")
    assert r"images/train/\xc5\xd0.bmp" in check(demo_yaml).summary()
    part = subset.write(demo_yaml, 6, None, 0, tmp_path / "subset")
    assert any(image.stem == name for image in layout.read(part).images["train"])
    contact_sheet.contact_sheet(demo_yaml, tmp_path / "sheet.html").read_text()
    shutil.copy(demo_yaml.parent / "images/val/val_00000.bmp", demo_yaml.parent / f"images/train/{name}.bmp")
    small = layout.read(resize.resize(part, tmp_path / name, 48).data_yaml)
    assert any(image.stem == name for image in small.images["train"])
    assert subset.read_groups(small) == {f"images/train/{name}.jpg": "rex"}
