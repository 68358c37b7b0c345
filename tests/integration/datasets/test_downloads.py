"""The import of AI-Hub 561 from downloads that are not as they should be: links, twins, turned pictures, odd text."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import unicodedata
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from shapely import Polygon

from petskin_tune.datasets import layout
from petskin_tune.datasets.aihub import importing, members
from petskin_tune.datasets.aihub.importing import Imported, import_aihub
from petskin_tune.datasets.aihub.options import Options
from petskin_tune.datasets.check import check
from petskin_tune.datasets.labels.rows import label_rows
from petskin_tune.errors import UsageError
from tests.support.aihub_tree import Builder, box, polygon

SMALL = (480, 270)
BELOW = "반려견/피부/일반카메라/유증상/A4_농포_여드름"
FIRST = f"1.Training/2_라벨링데이터/TL01/{BELOW}"


@pytest.fixture
def make() -> Builder:
    """Twenty sound images of twenty animals, which any import takes."""
    builder = Builder()
    for animal in range(20):
        builder.add("A4", animal=animal, size=SMALL, meta={"resolution": "480X270"})
    return builder


def run(make: Builder, tmp_path: Path, options: Options | None = None, jobs: int = 1) -> Imported:
    return import_aihub(
        [make.tree.write_folder(tmp_path / "download")], tmp_path / "data", options or Options(), jobs=jobs
    )


def fates(imported: Imported) -> dict[str, tuple[str, str]]:
    with open(imported.data_yaml.parent / "import_files.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: (row["fate"], row["written"]) for row in csv.DictReader(file)}


def outline(imported: Imported, label: str) -> Polygon:
    """The one outline written for a label file, in pixels of the written image."""
    written = imported.data_yaml.parent / fates(imported)[label][1]
    ((_, values),) = label_rows(written)
    image = Image.open(str(written).replace("/labels/", "/images/").replace(".txt", ".jpg"))
    turned = image.getexif().get(0x0112, 1) >= 5
    return Polygon(np.array(values).reshape(-1, 2) * (image.size[::-1] if turned else image.size))


# ---- which picture belongs to which label ----------------------------------------------------------------------------


def test_a_label_does_not_take_the_picture_of_another_delivery(make: Builder, tmp_path: Path) -> None:
    mine, theirs = make.outline(SMALL), make.outline(SMALL)
    lone = make.add("A4", [("A4", mine)], size=SMALL, picture=None)
    label = lone.replace("TL01", "TL02")
    image = label.replace("2_라벨링데이터/TL02", "1_원천데이터/TS02").replace(".json", ".jpg")
    content = json.loads(make.tree.files[lone])
    make.tree.files[label] = json.dumps({**content, "labelingInfo": [polygon("A4", theirs)]}).encode()
    make.tree.files[image] = make.picture([("A4", theirs)], SMALL)

    found = run(make, tmp_path)

    assert fates(found)[lone] == ("second label file of an image", "")
    assert outline(found, label).hausdorff_distance(Polygon(theirs)) < 1


def test_labels_and_pictures_of_one_name_that_nothing_joins_are_dropped_as_ambiguous(
    make: Builder, tmp_path: Path
) -> None:
    lone = make.add("A4", size=SMALL, picture=None)
    other = lone.replace("TL01", "TL02")
    image = lone.replace("2_라벨링데이터/TL01", "1_원천데이터/TS03").replace(".json", ".jpg")
    make.tree.files[other] = make.tree.files[lone]
    make.tree.files[image] = make.picture([], SMALL)

    found = fates(run(make, tmp_path))

    assert {found[name][0] for name in (lone, other, image)} == {
        "several label files or images of this name in other folders, and none beside it"
    }


def test_a_zip_beside_its_own_unpacked_folder_is_imported_once(make: Builder, tmp_path: Path) -> None:
    download = make.tree.write_folder(tmp_path / "download")
    folder = download / "1.Training/2_라벨링데이터/TL01"
    with zipfile.ZipFile(f"{folder}.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    cut = next(folder.rglob("*.jpg"))
    cut.write_bytes(cut.read_bytes()[:3000])  # unpacking was interrupted: the zip has the sound one

    found = import_aihub([download], tmp_path / "data", Options())

    assert found.report["files"] == {
        "found": 80,
        "kept": 40,
        "dropped": {"identical to another image": 38, "image: cut short or damaged": 2},
    }


def test_a_folder_in_composed_and_in_decomposed_spelling_is_two_folders(make: Builder, tmp_path: Path) -> None:
    download = make.tree.write_folder(tmp_path / "download")
    twin = Builder(seed=1)
    label = twin.add("A4", size=SMALL)
    twin.tree.write_folder(download, form="NFD")

    found = import_aihub([download], tmp_path / "data", Options())

    assert unicodedata.normalize("NFC", label) in fates(found)
    assert found.report["files"] == {"found": 42, "kept": 42, "dropped": {}}


def test_the_later_of_two_files_of_one_path_in_a_zip_counts(make: Builder, tmp_path: Path) -> None:
    label, image = list(make.tree.files)[:2]
    (tmp_path / "download").mkdir()
    with zipfile.ZipFile(tmp_path / "download/TL01.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the second entry
        archive.writestr(image, b"cut short")
        for name, content in make.tree.files.items():
            archive.writestr(name, content)
        archive.writestr(label, make.tree.files[label])

    found = import_aihub([tmp_path / "download"], tmp_path / "data", Options())

    dropped = {"replaced by a later file of the same path in the same zip": 2}
    assert found.report["files"] == {"found": 42, "kept": 40, "dropped": dropped}


# ---- splits ----------------------------------------------------------------------------------------------------------


def twins(make: Builder, count: int) -> None:
    """The same photographs once more, of other animals, with padding that is not written."""
    for number in range(count):
        objects = [("A4", make.outline(SMALL))]
        picture = make.picture(objects, SMALL)
        make.add("A4", objects, picture=picture, animal=20 + number, size=SMALL)
        make.add("A4", objects, picture=picture + bytes(5), animal=28 + number, size=SMALL)


def test_photographs_that_are_written_alike_are_one(make: Builder, tmp_path: Path) -> None:
    twins(make, 8)

    found = run(make, tmp_path, Options(val=0.4))

    assert found.report["files"]["dropped"] == {"identical to another image": 16}
    assert not check(found.data_yaml).problems


def test_a_leak_that_was_overlooked_ends_the_import(
    make: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    twins(make, 8)
    monkeypatch.setattr(importing, "_distinct", lambda outcome, *_: outcome)

    with pytest.raises(RuntimeError, match="the split leaks"):
        run(make, tmp_path, Options(val=0.4))


def in_groups(classes: str, groups: int, images: int) -> Builder:
    make = Builder()
    for code in classes.split():
        for group in range(groups):
            for _ in range(images):
                make.add(code, size=(200, 150), animal=group, meta={"breed": f"{code} {group}"})
    return make


def test_groups_larger_than_a_class_deserves_are_still_split(tmp_path: Path) -> None:
    found = run(in_groups("A1 A4 A5", 4, 10), tmp_path, Options(val=0.1))

    assert found.report["splits"]["val"]["images"] == 10
    assert len(found.report["splits"]["val"]["missing"]) == 5
    assert "WARNING: no object in val of" in found.summary


def test_shares_and_seed_may_change_until_images_are_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = in_groups("A1 A4", 4, 5)
    for animal in range(4):
        make.add("A7", items=[], animal=10 + animal, size=(200, 150))
    with monkeypatch.context() as patched:
        patched.setattr(importing, "_placed", lambda *_: (_ for _ in ()).throw(UsageError("no such split")))
        with pytest.raises(UsageError, match="no such split"):
            run(make, tmp_path, Options(val=0.2, seed=1, crop=0.2, background=4))
    made = ((path, path.stat()) for path in (tmp_path / "data/.import").rglob("*.jpg"))
    lesions = {status.st_ino: status.st_mtime_ns for _, status in made}
    assert len(lesions) == 44

    with pytest.raises(UsageError, match="another crop"):
        run(make, tmp_path, Options(val=0.3, crop=0.3, background=4))
    other = Options(val=0.3, seed=2, test=0.2, crop=0.2, background=4)
    found = run(make, tmp_path, other)

    undisturbed = import_aihub([tmp_path / "download"], tmp_path / "undisturbed", other)
    placed = sorted((tmp_path / "data/images").rglob("*.jpg"))
    assert {path.stat().st_mtime_ns for path in placed if "_A7_" not in path.name} <= {
        *lesions.values()
    }  # not converted again
    assert [path.read_bytes() for path in placed] == [
        path.read_bytes() for path in sorted((tmp_path / "undisturbed/images").rglob("*.jpg"))
    ]
    assert found.report == undisturbed.report
    with pytest.raises(UsageError, match="another seed"):
        run(make, tmp_path, Options(val=0.3, seed=3, test=0.2, crop=0.2, background=4))


@pytest.mark.parametrize(
    ("images", "background", "options", "side"),
    [(2, 0, Options(val=0.5, test=0.49), "train"), (3, 6, Options(val=0.2, background=6), "val")],
)
def test_a_split_without_lesions_is_refused_before_anything_is_converted(
    tmp_path: Path, images: int, background: int, options: Options, side: str
) -> None:
    make = in_groups("A4", 2, images // 2 if background == 0 else images)
    for animal in range(background):
        make.add("A7", items=[], animal=10 + animal, size=(200, 150))

    with pytest.raises(UsageError, match=f"no image with a lesion for {side}"):
        run(make, tmp_path, options)

    assert not (tmp_path / "data").exists()


# ---- outlines --------------------------------------------------------------------------------------------------------


def stored_turned(make: Builder, orientation: int, objects: list[tuple[str, list[tuple[float, float]]]]) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.open(io.BytesIO(make.picture(objects, SMALL))).save(buffer, "JPEG", quality=90, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_outlines_drawn_before_exif_turned_the_picture_are_turned_with_it(
    make: Builder, tmp_path: Path, orientation: int
) -> None:
    objects = [("A4", make.outline(SMALL))]
    picture = stored_turned(make, orientation, objects)
    label = make.add("A4", objects, picture=picture, meta={"resolution": "480X270"})

    found = run(make, tmp_path, Options(imgsz=400))

    shape = outline(found, label).buffer(-4)
    written = found.data_yaml.parent / fates(found)[label.replace(".json", ".jpg")][1]
    image = Image.open(written).convert("RGB")
    assert image.size == (225, 400)
    colours = [image.getpixel((int(x), int(y))) for x, y in shape.exterior.coords]
    assert all(green > 150 > red and green > 150 > blue for red, green, blue in colours)  # type: ignore[misc]
    assert found.report["notes"]["outlines turned with the photograph, as its EXIF says"] == 1


def test_outlines_that_fit_neither_frame_of_a_turned_picture_are_dropped(make: Builder, tmp_path: Path) -> None:
    low = [(100, 300), (200, 300), (200, 400)]  # below the stored picture, which is 270 high
    picture = stored_turned(make, 6, [])
    label = make.add("A4", items=[polygon("A4", low)], picture=picture, meta={"resolution": "480X270"})

    assert fates(run(make, tmp_path))[label][0] == "outlines drawn on a picture of another size"


def test_a_box_stands_in_for_an_outline_that_cannot_be_used(make: Builder, tmp_path: Path) -> None:
    square = [(100, 100), (200, 100), (200, 200), (100, 200)]
    broken = make.add("A4", items=[polygon("A4", square[::2]), box("A4", square)], size=SMALL)
    other = make.add("A4", items=[polygon("A5", square), box("A4", square)], size=SMALL)
    sound = make.add("A4", items=[box("A4", square), polygon("A4", square)], size=SMALL)

    found = run(make, tmp_path, Options(classes=("A4",), boxes="polygon"))

    for label in (broken, other, sound):
        assert outline(found, label).hausdorff_distance(Polygon(square)) < 1
    assert found.report["objects"]["dropped"]["fewer than three points"] == 1


# ---- files that are counted ------------------------------------------------------------------------------------------


def test_linked_folders_are_read_and_links_in_circles_are_not(make: Builder, tmp_path: Path) -> None:
    download = make.tree.write_folder(tmp_path / "download")
    shutil.move(download / "1.Training", tmp_path / "elsewhere")
    (download / "1.Training").symlink_to(tmp_path / "elsewhere")
    (download / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/out").symlink_to(tmp_path)
    (download / "self").symlink_to(download)

    found = import_aihub([download], tmp_path / "data", Options())

    assert found.report["files"] == {"found": 40, "kept": 40, "dropped": {}}


def test_a_folder_that_cannot_be_listed_ends_the_import(
    make: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("TL01"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)

    with pytest.raises(UsageError, match=r"TL01 cannot be listed \(Permission denied\)"):
        run(make, tmp_path)


def test_archives_in_archives_and_folders_of_windows_are_told_for_what_they_are(make: Builder, tmp_path: Path) -> None:
    (tmp_path / "download").mkdir()
    with zipfile.ZipFile(tmp_path / "download/TL01.zip", "w") as archive:
        for name in ("1.Training\\TL01\\", "1.Training\\TL01\\deeper\\"):
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            archive.writestr(entry, b"")
        archive.writestr("TL02.zip", b"PK")
        for name, content in make.tree.files.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name.replace("/", "\\")
            archive.writestr(entry, content)

    found = import_aihub([tmp_path / "download"], tmp_path / "data", Options())

    assert found.report["files"] == {"found": 41, "kept": 40, "dropped": {"archive that is not looked into": 1}}


def test_what_macos_leaves_beside_a_zip_does_not_pass_for_one(make: Builder, tmp_path: Path) -> None:
    for name in ("._TL01.zip", "._TL01.zip.part0"):
        make.add_other(f"1.Training/{name}", b"\0\5\x16\7" + bytes(100), "neither label nor image")

    found = fates(run(make, tmp_path))

    assert {path: found[path][0] for path in make.tree.fates} == make.tree.fates


# ---- reading that fails ----------------------------------------------------------------------------------------------


class FailingDisk:
    """A disk that cannot read one file for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
        self.left = times
        self.pauses: list[float] = []
        read_bytes = Path.read_bytes

        def read(path: Path) -> bytes:
            if path.name == name and self.left:
                self.left -= 1
                raise OSError(5, "Input/output error")
            return read_bytes(path)

        monkeypatch.setattr(Path, "read_bytes", read)
        monkeypatch.setattr(members, "time", SimpleNamespace(sleep=self.pauses.append))


def test_a_read_that_fails_once_is_tried_again(make: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FailingDisk(monkeypatch, "IMG_D_A4_000003.jpg", times=2)

    found = run(make, tmp_path)

    assert disk.left == 0
    assert disk.pauses == [0.2, 1.0]
    assert found.report["files"]["kept"] == 40


def test_a_file_that_cannot_be_read_now_ends_the_import_and_is_never_counted_as_damaged(
    make: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        disk = FailingDisk(patched, "IMG_D_A4_000012.jpg", times=1000)
        with pytest.raises(UsageError, match=r"IMG_D_A4_000012.jpg cannot be read \(Input/output error\)"):
            run(make, tmp_path)
        assert disk.left < 1000

    found = run(make, tmp_path)

    assert found.report["files"] == {"found": 40, "kept": 40, "dropped": {}}


# ---- odd text and odd arguments --------------------------------------------------------------------------------------


def test_numbers_without_end_and_half_characters_are_read_as_what_they_are(make: Builder, tmp_path: Path) -> None:
    huge = make.add("A4", size=SMALL, fate="no object left: broken coordinates")
    make.tree.files[huge] = make.tree.files[huge].replace(b'"x1": ', b'"x1": 1' + b"0" * 400)
    long = make.add("A4", size=SMALL, meta={"resolution": "1" * 5000 + "X1080"})
    half = make.add("A4", size=SMALL, meta={"breed": "cut"})
    make.tree.files[half] = make.tree.files[half].replace(b'"cut"', b'"\\ud800x"')

    found = run(make, tmp_path, jobs=2)

    assert Counter(fates(found)[label][0] for label in (huge, long, half)) == {
        "kept": 2,
        "no object left: broken coordinates": 1,
    }
    assert " ?x " in (tmp_path / "data/groups.csv").read_text()


def test_a_destination_that_is_a_file_is_refused(make: Builder, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")

    with pytest.raises(UsageError, match=r"data cannot be a folder \(File exists\)"):
        run(make, tmp_path)

    assert (tmp_path / "data").read_text() == "mine"


def test_data_yaml_has_the_korean_names_too(make: Builder, tmp_path: Path) -> None:
    content = layout.load_yaml(run(make, tmp_path).data_yaml)

    assert content["names"][3] == "pustule_acne"
    assert content["names_ko"] == {
        0: "구진_플라크",
        1: "비듬_각질_상피성잔고리",
        2: "태선화_과다색소침착",
        3: "농포_여드름",
        4: "미란_궤양",
        5: "결절_종괴",
    }
