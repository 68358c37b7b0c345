"""The import of AI-Hub 561, on a generated download whose truth is known."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw
from shapely import Polygon

from petskin_tune.datasets import layout, source, subset
from petskin_tune.datasets.aihub import importing
from petskin_tune.datasets.aihub.importing import Imported, import_aihub
from petskin_tune.datasets.aihub.options import Options
from petskin_tune.datasets.check import check
from petskin_tune.datasets.labels.rows import label_lines, label_path
from petskin_tune.errors import UsageError
from tests.support.aihub_tree import COLOURS, Tree, build
from tests.support.places import PROJECT
from tests.support.soak import first

RUN = """
import sys
from pathlib import Path
from petskin_tune.datasets.aihub import conversion
from petskin_tune.datasets.aihub.importing import import_aihub
from petskin_tune.datasets.aihub.options import Options
conversion._BATCH = 1  # more pieces than are handed out ahead: there is work wherever it is stopped
if __name__ == "__main__":
    import_aihub([Path(sys.argv[1])], Path(sys.argv[2]), Options(imgsz=320), jobs=int(sys.argv[3]))
"""


@pytest.fixture(scope="session")
def tree() -> Tree:
    return build()


@pytest.fixture(scope="session")
def folder(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree.write_folder(tmp_path_factory.mktemp("aihub") / "download")


@pytest.fixture(scope="session")
def imported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    return import_aihub([folder], tmp_path_factory.mktemp("imported") / "data", Options(val=0.2))


def digests(place: Path, below: str = "") -> dict[str, str]:
    files = (path for path in sorted((place / below).rglob("*")) if path.is_file())
    return {path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fates(data_yaml: Path) -> dict[str, tuple[str, str]]:
    """By source file: its fate, and what was written for it."""
    with open(data_yaml.parent / "import_files.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: (row["fate"], row["written"]) for row in csv.DictReader(file)}


def rows(label: Path) -> list[tuple[int, np.ndarray]]:
    return [(int(row[0]), np.array(row[1:], float).reshape(-1, 2)) for row in label_lines(label)]


def codes(data_yaml: Path) -> list[str]:
    return json.loads((data_yaml.parent / "import_report.json").read_text())["options"]["classes"]


def assert_labels_are_the_truth(tree: Tree, data_yaml: Path) -> int:
    """Every outline of the truth has a row of its class within a pixel of the source image, and no row is left over."""
    compared = 0
    for file, (fate, written) in fates(data_yaml).items():
        truth = tree.truths.get(file)
        if truth is None or fate != "kept":
            continue
        found = [
            (codes(data_yaml)[number], Polygon(points * truth.size))
            for number, points in rows(data_yaml.parent / written)
        ]
        assert len(found) == len(truth.objects), file
        for code, points in truth.objects:
            near = [shape for other, shape in found if other == code and shape.hausdorff_distance(Polygon(points)) < 1]
            assert len(near) == 1, (file, code)
            compared += 1
    return compared


# ---- truth ---------------------------------------------------------------------------------------------------------


def test_every_label_equals_the_truth_to_within_a_pixel(tree: Tree, imported: Imported) -> None:
    expected = sum(len(truth.objects) for truth in tree.truths.values() if truth.fate == "kept")

    assert assert_labels_are_the_truth(tree, imported.data_yaml) == expected > 140


def test_every_file_is_accounted_for_with_its_reason(tree: Tree, imported: Imported) -> None:
    found = fates(imported.data_yaml)
    expected = {**tree.fates, **{label: truth.fate for label, truth in tree.truths.items()}}

    assert found.keys() == tree.files.keys()
    assert {file: found[file][0] for file in expected} == expected
    for label, truth in tree.truths.items():  # an image shares the fate of its label file
        for image in {f"{label[:-5]}.jpg", f"{label[:-5]}.JPG"} & found.keys():
            assert found[image][0] == truth.fate

    counts = imported.report["files"]
    assert counts["found"] == len(tree.files) == counts["kept"] + sum(counts["dropped"].values())
    assert counts["dropped"] == Counter(fate for fate, _ in found.values() if fate != "kept")
    objects = imported.report["objects"]
    assert objects["found"] == objects["kept"] + sum(objects["dropped"].values())
    assert (imported.data_yaml.parent / "import_report.txt").read_text() == imported.summary


@pytest.mark.parametrize("names", ["cp949", "NFD", "utf-8"])
def test_zips_read_in_place_give_the_same_bytes_as_folders(
    tree: Tree, imported: Imported, tmp_path: Path, names: str
) -> None:
    zips = tree.write_zips(tmp_path / "zips", names)

    again = import_aihub([zips], tmp_path / "data", Options(val=0.2), jobs=2)

    assert again.report["archives"] == 5
    for below in ("images", "labels"):
        assert digests(tmp_path / "data", below) == digests(imported.data_yaml.parent, below)
    assert fates(again.data_yaml) == fates(imported.data_yaml)
    assert not list(zips.rglob("*.jpg"))


def test_decomposed_names_on_disk_give_the_same_bytes(tree: Tree, imported: Imported, tmp_path: Path) -> None:
    download = tree.write_folder(tmp_path / "download", form="NFD")

    import_aihub([download], tmp_path / "data", Options(val=0.2))

    assert digests(tmp_path / "data") == digests(imported.data_yaml.parent)


def test_several_sources_can_be_given(tree: Tree, imported: Imported, tmp_path: Path) -> None:
    zips = sorted(tree.write_zips(tmp_path / "zips", "cp949").rglob("*.zip"))
    training = [path for path in zips if "Training" in str(path)]

    part = import_aihub(training, tmp_path / "data", Options(val=0.2))

    assert part.report["files"]["found"] == sum(name.startswith("1.Training") for name in tree.files)
    assert (
        assert_labels_are_the_truth(
            Tree(truths={name.split("/", 2)[2]: truth for name, truth in tree.truths.items()}), part.data_yaml
        )
        > 50
    )


# ---- splits --------------------------------------------------------------------------------------------------------


def test_no_group_and_no_identical_image_is_on_both_sides(tree: Tree, imported: Imported) -> None:
    groups: defaultdict[str, set[str]] = defaultdict(set)
    images: defaultdict[bytes, set[str]] = defaultdict(set)
    recorded = {}
    for file, (fate, written) in fates(imported.data_yaml).items():
        if fate == "kept" and file in tree.truths:
            groups[tree.truths[file].group].add(written.split("/")[1])
            recorded[written.replace("labels/", "images/").replace(".txt", ".jpg")] = tree.truths[file].group
        elif fate == "kept":
            images[tree.files[file]].add(written.split("/")[1])

    assert len(groups) > 40
    assert len(images) == len(recorded) > 100
    assert all(len(splits) == 1 for splits in [*groups.values(), *images.values()])
    assert subset.read_groups(layout.read(imported.data_yaml)) == recorded
    assert not check(imported.data_yaml).problems


def test_every_class_is_in_every_split_near_its_share(imported: Imported) -> None:
    splits = imported.report["splits"]
    total = sum(split["images"] for split in splits.values())

    assert 0.15 * total <= splits["val"]["images"] <= 0.2 * total
    assert all(len(split["objects"]) == 6 for split in splits.values())


def test_another_seed_gives_another_split_and_the_same_labels(folder: Path, imported: Imported, tmp_path: Path) -> None:
    other = import_aihub([folder], tmp_path / "data", Options(val=0.2, test=0.1, seed=1))

    def by_split(data_yaml: Path) -> dict[str, set[str]]:
        return {split: {image.name for image in images} for split, images in layout.read(data_yaml).images.items()}

    mine, theirs = by_split(imported.data_yaml), by_split(other.data_yaml)
    assert set.union(*mine.values()) == set.union(*theirs.values())
    assert mine["val"] != theirs["val"]
    assert theirs["test"]


def test_aihubs_own_split_is_kept_on_request_and_its_leaks_are_reported(
    tree: Tree, folder: Path, tmp_path: Path
) -> None:
    kept = import_aihub([folder], tmp_path / "data", Options(keep_split=True))

    for label, (fate, written) in fates(kept.data_yaml).items():
        if label in tree.truths and fate == "kept":
            assert written.split("/")[1] == tree.truths[label].split
    leaks = kept.report["leaks"]
    assert leaks["images"] == 1
    assert leaks["groups"] > 1
    assert "LEAKS" in kept.summary
    problems = check(kept.data_yaml).problems
    assert len(problems["identical images in more than one split"]) == 1
    assert len(problems["groups in more than one split"]) == leaks["groups"]


def test_a_source_of_a_single_animal_is_refused_before_anything_is_converted(tmp_path: Path, tree: Tree) -> None:
    one = next(label for label, truth in tree.truths.items() if truth.fate == "kept")
    for name in (one, f"{one[:-5]}.jpg"):
        path = tmp_path / "download" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tree.files[name])

    with pytest.raises(UsageError, match=r"1 images in 1 groups .* leave no group small enough"):
        import_aihub([tmp_path / "download"], tmp_path / "data", Options())

    assert not (tmp_path / "data").exists()


# ---- options -------------------------------------------------------------------------------------------------------


def kept_truths(tree: Tree, data_yaml: Path) -> list[str]:
    return [label for label, (fate, _) in fates(data_yaml).items() if fate == "kept" and label in tree.truths]


def test_options_that_leave_no_lesion_are_refused_and_the_folder_is_given_back(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"No image with a lesion is left; .* no object left: smaller than --min-area"):
        import_aihub([folder], tmp_path / "data", Options(min_area=1e7, max_per_class=2, val=0.5))

    assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()  # it was there: it stays
    with pytest.raises(UsageError, match="No image with a lesion is left"):
        import_aihub([folder], tmp_path / "data", Options(min_area=1e7, max_per_class=2, val=0.5))
    assert list((tmp_path / "data").iterdir()) == []


def test_species_comes_from_the_label_file_and_not_from_the_folder(tree: Tree, folder: Path, tmp_path: Path) -> None:
    cats = import_aihub([folder], tmp_path / "data", Options(species="C", val=0.2))

    expected = [name for name, truth in tree.truths.items() if truth.fate == "kept" and truth.group.startswith("C ")]
    assert sorted(kept_truths(tree, cats.data_yaml)) == sorted(expected)
    assert any("반려견" in name for name in expected)
    assert codes(cats.data_yaml) == ["A2", "A4", "A6"]
    assert layout.read(cats.data_yaml).names == ("dandruff_scale_epidermal_collarette", "pustule_acne", "nodule_mass")


def test_classes_not_asked_for_are_left_out_of_images_too(tree: Tree, folder: Path, tmp_path: Path) -> None:
    some = import_aihub([folder], tmp_path / "data", Options(classes=("A5", "A1"), val=0.2))

    assert codes(some.data_yaml) == ["A1", "A5"]
    only = Tree(
        truths={
            name: type(truth)(truth.fate, [shape for shape in truth.objects if shape[0] in ("A1", "A5")], truth.size)
            for name, truth in tree.truths.items()
        }
    )
    assert assert_labels_are_the_truth(only, some.data_yaml) > 30


@pytest.mark.parametrize(("synthetic", "images"), [("exclude", 139), ("only", 2), ("include", 141)])
def test_synthetic_images_are_in_out_or_alone(folder: Path, tmp_path: Path, synthetic: str, images: int) -> None:
    result = import_aihub([folder], tmp_path / "data", Options(synthetic=synthetic, val=0.5))  # type: ignore[arg-type]

    assert sum(split["images"] for split in result.report["splits"].values()) == images


@pytest.mark.parametrize(("background", "images"), [(3, 3), (0.05, 8), (1000, 9)])
def test_asymptomatic_images_become_background(folder: Path, tmp_path: Path, background: float, images: int) -> None:
    result = import_aihub([folder], tmp_path / "data", Options(background=background))

    empty = [label for label in (tmp_path / "data/labels").rglob("*.txt") if not label.read_text()]
    assert len(empty) == images == sum(split["background"] for split in result.report["splits"].values())
    assert all("_A7_" in label.name for label in empty)


def test_max_per_class_bounds_the_images_that_show_a_class(tree: Tree, folder: Path, tmp_path: Path) -> None:
    result = import_aihub([folder], tmp_path / "data", Options(max_per_class=9, val=0.2))

    shown: Counter[str] = Counter()
    for label in kept_truths(tree, result.data_yaml):
        shown.update({code for code, _ in tree.truths[label].objects})
    assert max(shown.values()) <= 9
    assert min(shown.values()) >= 8


def test_boxes_without_an_outline_become_their_four_corners_on_request(
    tree: Tree, folder: Path, tmp_path: Path
) -> None:
    result = import_aihub([folder], tmp_path / "data", Options(boxes="polygon"))

    boxed = next(name for name, truth in tree.truths.items() if truth.fate == "no object left: box without an outline")
    ((_, corners),) = rows(result.data_yaml.parent / fates(result.data_yaml)[boxed][1])
    item = json.loads(tree.files[boxed])["labelingInfo"][0]["box"]["location"][0]
    assert corners[0] * (1920, 1080) == pytest.approx((item["x"], item["y"]), abs=1)
    assert np.ptp(corners, 0) * (1920, 1080) == pytest.approx((item["width"], item["height"]), abs=1)


def test_min_area_is_in_pixels_as_written(tree: Tree, folder: Path, tmp_path: Path) -> None:
    result = import_aihub([folder], tmp_path / "data", Options(imgsz=640, min_area=2000))

    for label, (fate, written) in fates(result.data_yaml).items():
        if label in tree.truths and fate == "kept":
            scale = 640 / max(tree.truths[label].size)
            large = [1 for _, points in tree.truths[label].objects if Polygon(points).area * scale**2 >= 2000]
            assert len(rows(result.data_yaml.parent / written)) == len(large)
    assert result.report["files"]["dropped"]["no object left: smaller than --min-area"] > 10


# ---- pictures ------------------------------------------------------------------------------------------------------


def assert_masks_lie_on_lesions(data_yaml: Path) -> int:
    """Inside an outline the picture has the colour of its class, and a ring around it has not."""
    compared = 0
    for image in layout.read(data_yaml).images["train"]:
        picture = Image.open(image).convert("RGB")
        labelled = rows(label_path(image))
        for number, points in labelled:
            shape = Polygon(points * picture.size)
            if shape.area < 150:
                continue
            left, top = (int(max(0, low - 8)) for low in shape.bounds[:2])
            right, bottom = (
                int(min(side, high + 8)) for side, high in zip(picture.size, shape.bounds[2:], strict=True)
            )
            near = np.asarray(picture.crop((left, top, right, bottom))).astype(int)
            masks = [_mask(shape.buffer(margin), (left, top), near.shape) for margin in (-2, 3, 6)]
            colour = np.array(COLOURS[codes(data_yaml)[number]])
            assert np.abs(near[masks[0]] - colour).mean() < 25, image
            ring = masks[2] & ~masks[1]
            assert len(labelled) > 1 or np.abs(near[ring] - colour).sum(1).mean() > 60, image
            compared += 1
    return compared


def _mask(shape: Polygon, origin: tuple[int, int], extent: tuple[int, ...]) -> np.ndarray:
    mask = Image.new("1", (extent[1], extent[0]))
    for part in getattr(shape, "geoms", [shape]):
        if part.area:
            ImageDraw.Draw(mask).polygon([(x - origin[0], y - origin[1]) for x, y in part.exterior.coords], fill=1)
    return np.asarray(mask)


def test_untouched_images_keep_their_bytes(tree: Tree, imported: Imported) -> None:
    sources = {hashlib.sha256(content).hexdigest() for content in tree.files.values()}

    assert set(digests(imported.data_yaml.parent, "images").values()) <= sources
    assert assert_masks_lie_on_lesions(imported.data_yaml) > 80


def test_resized_images_carry_their_masks_along(tree: Tree, folder: Path, tmp_path: Path) -> None:
    small = import_aihub([folder], tmp_path / "data", Options(imgsz=640))

    assert {Image.open(image).size for image in layout.read(small.data_yaml).images["train"]} <= {
        (640, 360),
        (480, 640),
    }
    assert_labels_are_the_truth(tree, small.data_yaml)
    assert assert_masks_lie_on_lesions(small.data_yaml) > 60


@pytest.mark.parametrize("imgsz", [None, 256])
def test_cropped_images_show_all_lesions_and_their_masks(folder: Path, tmp_path: Path, imgsz: int | None) -> None:
    options = Options(crop=0.25, imgsz=imgsz, background=4)
    cropped = import_aihub([folder], tmp_path / "data", options, jobs=2)

    assert assert_masks_lie_on_lesions(cropped.data_yaml) > 60
    objects = sum(sum(split["objects"].values()) for split in cropped.report["splits"].values())
    assert objects == cropped.report["objects"]["kept"]
    sizes = [Image.open(image).size for image in layout.read(cropped.data_yaml).images["train"]]
    assert all(max(size) <= (imgsz or 1919) for size in sizes)
    for label in (tmp_path / "data/labels").rglob("*_A7_*.txt"):
        image = Image.open(str(label).replace("/labels/", "/images/").replace(".txt", ".jpg"))
        assert max(image.size) < 1920
        assert label.read_text() == ""


def test_ultralytics_finds_nothing_corrupt_and_changes_no_file(folder: Path, tmp_path: Path) -> None:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data_yaml = import_aihub([folder], tmp_path / "data", Options(imgsz=320, background=4)).data_yaml
    before = digests(tmp_path / "data", "images")
    data = check_det_dataset(str(data_yaml), autodownload=False)
    for split in ("train", "val"):
        data_set = YOLODataset(img_path=data[split], data=data, task="segment", augment=False)
        cache = YOLODataset.cache_labels(data_set, tmp_path / f"{split}.cache")
        _, missing, _, corrupt, total = cache["results"]
        assert (missing, corrupt, cache["msgs"]) == (0, 0, [])
        assert total == len(layout.read(data_yaml).images[split])
    assert digests(tmp_path / "data", "images") == before


# ---- interruptions -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ordinary=1).write_folder(tmp_path_factory.mktemp("small") / "download")


@pytest.fixture(scope="session")
def undisturbed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of an import that was left alone."""
    place = tmp_path_factory.mktemp("undisturbed")
    assert run_import(small, place, 2).wait() == 0
    return digests(place / "data")


def run_import(folder: Path, place: Path, jobs: int, **environment: str) -> subprocess.Popen[bytes]:
    (place / "run.py").write_text(RUN)
    command = [sys.executable, str(place / "run.py"), str(folder), str(place / "data"), str(jobs)]
    return subprocess.Popen(command, env={**os.environ, **environment})


@pytest.mark.slow
def test_killed_at_ten_random_instants_it_ends_with_the_same_bytes(
    small: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    draw = random.Random(6)
    for attempt in range(10):
        place = tmp_path / str(attempt)
        place.mkdir()
        point, most = draw.choice([("image-converted", 63), ("image-placed", 102)])
        fault = {"TUNE_FAULTS": f"{point}=kill@{draw.randint(1, most)}", "TUNE_FAULTS_LOG": str(place / "fired")}

        assert run_import(small, place, 2, **fault).wait() == -signal.SIGKILL  # its two processes are wherever they are
        assert (place / "fired").read_text().startswith(point)
        assert run_import(small, place, 2).wait() == 0
        assert digests(place / "data") == undisturbed


def test_its_processes_end_with_it(small: Path, tmp_path: Path) -> None:
    process = stopped_import(small, tmp_path, "image-converted=stop@5")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2

    process.kill()

    assert process.wait() == -signal.SIGKILL
    assert psutil.wait_procs(children, timeout=240)[1] == []


def stopped_import(folder: Path, place: Path, fault: str) -> subprocess.Popen[bytes]:
    process = run_import(folder, place, 2, TUNE_FAULTS=fault, TUNE_FAULTS_LOG=str(place / "fired"))
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert process.poll() is None
        time.sleep(0.01)
    return process


def test_a_process_of_it_that_is_killed_ends_it_and_the_next_run_goes_on(
    small: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    process = stopped_import(small, tmp_path, "image-converted=stop@5")
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.send_signal(signal.SIGCONT)

    assert process.wait() == 1
    assert run_import(small, tmp_path, 2).wait() == 0
    assert digests(tmp_path / "data") == undisturbed


FAULTS = [
    "image-converted=kill@40",
    "image-placed=kill@60",
    "file-written=kill@112",  # data.yaml
    *(f"file-written=kill@{nth}" for nth in (1, 2, 3, 108, 109, 110, 111)),
    *(f"image-converted=kill@{nth}" for nth in (1, 63)),
    *(f"image-placed=kill@{nth}" for nth in (1, 102)),
]


@pytest.mark.parametrize("fault", first(3, FAULTS))
def test_killed_at_the_instants_that_matter_it_ends_with_the_same_bytes(
    small: Path, tmp_path: Path, undisturbed: dict[str, str], fault: str
) -> None:
    fired = tmp_path / "fired"

    process = run_import(small, tmp_path, 1, TUNE_FAULTS=fault, TUNE_FAULTS_LOG=str(fired))

    assert process.wait() == -signal.SIGKILL
    assert fired.read_text().startswith(fault.partition("=")[0])
    assert not (tmp_path / "data/data.yaml").exists()
    assert run_import(small, tmp_path, 1).wait() == 0
    assert digests(tmp_path / "data") == undisturbed


def test_a_complete_import_is_not_done_again(folder: Path, tmp_path: Path) -> None:
    first = import_aihub([folder], tmp_path / "data", Options(imgsz=320))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}

    again = import_aihub([folder], tmp_path / "data", Options(imgsz=320))

    assert again.already_there
    assert not first.already_there
    assert (again.report, again.summary) == (first.report, first.summary)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == times


@pytest.mark.parametrize("content", [b"", bytes(500)])
def test_a_report_that_a_power_cut_has_emptied_is_written_again(small: Path, tmp_path: Path, content: bytes) -> None:
    first = import_aihub([small], tmp_path / "data", Options(imgsz=320))
    before = digests(tmp_path / "data")
    (tmp_path / "data" / importing.REPORT).write_bytes(content)

    again = import_aihub([small], tmp_path / "data", Options(imgsz=320))

    assert (again.report, again.summary, again.already_there) == (first.report, first.summary, False)
    assert digests(tmp_path / "data") == before


def test_an_image_whose_line_of_the_journal_a_power_cut_has_emptied_is_converted_again(
    small: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    fault = {"TUNE_FAULTS": "image-placed=kill@1", "TUNE_FAULTS_LOG": str(tmp_path / "fired")}
    assert run_import(small, tmp_path, 1, **fault).wait() == -signal.SIGKILL
    journal = tmp_path / "data" / importing._WORK / "converted.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[1:3] = [bytes(len(lines[1])) + b"\n", bytes(len(lines[2])) + lines[3]]
    journal.write_bytes(b"".join(lines))

    assert run_import(small, tmp_path, 1).wait() == 0
    assert digests(tmp_path / "data") == undisturbed


def test_other_options_other_files_and_other_folders_are_refused(folder: Path, tree: Tree, tmp_path: Path) -> None:
    import_aihub([folder], tmp_path / "data", Options(imgsz=320))
    before = digests(tmp_path / "data")
    smaller = Tree(files=dict(list(tree.files.items())[:-2])).write_folder(tmp_path / "smaller")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")

    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: import_aihub([folder], tmp_path / "data", Options(imgsz=320, seed=1)), "another seed"),
        (lambda: import_aihub([smaller], tmp_path / "data", Options(imgsz=320)), "another source"),
        (lambda: import_aihub([folder], tmp_path / "mine", Options()), "not empty"),
        (lambda: import_aihub([folder], folder / "data", Options()), "inside the source"),
        (lambda: import_aihub([tmp_path / "nowhere"], tmp_path / "new", Options()), "neither a folder nor a zip"),
        (lambda: import_aihub([tmp_path / "mine"], tmp_path / "new", Options()), "no image of"),
    ]
    for call, said in refusals:
        with pytest.raises(UsageError, match=said):
            call()
    assert digests(tmp_path / "data") == before


def test_a_second_import_to_the_same_place_is_refused_while_the_first_is_at_work(small: Path, tmp_path: Path) -> None:
    first = stopped_import(small, tmp_path, "image-converted=stop@3")

    with pytest.raises(UsageError, match="Another process is at work"):
        import_aihub([small], tmp_path / "data", Options(imgsz=320))

    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0


# ---- what follows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.zip", "data/inside.tar", "a file/data.tar"])
def test_an_archive_that_cannot_be_written_is_refused_before_hours_of_work(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setattr(importing, "list_sources", lambda _: pytest.fail("the sources were read"))
    with pytest.raises(UsageError, match=r"must end in \.tar|lies inside|cannot be written"):
        import_aihub([folder], tmp_path / "data", Options(imgsz=320), archive=tmp_path / name)
    assert not (tmp_path / "data").exists()


def test_a_refusal_after_the_images_were_placed_keeps_what_there_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last image and data.yaml; then a label file cannot be read once."""

    def refuse(*_: object) -> None:
        raise UsageError("a label cannot be read")

    with monkeypatch.context() as broken:
        broken.setattr(importing, "_write_records", refuse)
        with pytest.raises(UsageError):
            import_aihub([folder], tmp_path / "data", Options(imgsz=320))
    shutil.rmtree(tmp_path / "data" / ".import" / "pool", ignore_errors=True)
    with monkeypatch.context() as broken:
        broken.setattr(importing.catalogues, "build", refuse)
        with pytest.raises(UsageError, match="cannot be read"):
            import_aihub([folder], tmp_path / "data", Options(imgsz=320))
    assert (tmp_path / "data" / "import.json").exists()


@pytest.mark.slow
def test_an_archive_of_it_is_a_data_set_wherever_it_is_unpacked(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        import_aihub([folder], tmp_path / name, Options(imgsz=320), archive=tmp_path / f"{name}.tar")

    prepared = source.prepare(str(tmp_path / "one.tar"), base=tmp_path, cache=tmp_path / "cache")

    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert digests(prepared.parent) == digests(tmp_path / "one")


def test_a_subset_of_it_takes_whole_groups(imported: Imported, tmp_path: Path) -> None:
    data_set = layout.read(imported.data_yaml)
    group_of = subset.read_groups(data_set)

    part = layout.read(subset.write(imported.data_yaml, 60, 20, 0, tmp_path))

    for split in ("train", "val"):
        inside = {group_of[layout.image_name(part, image)] for image in part.images[split]}
        whole = [image for image in data_set.images[split] if group_of[layout.image_name(data_set, image)] in inside]
        assert list(part.images[split]) == whole
    assert 50 <= len(part.images["train"]) <= 60


STUDY = """
study: tiny
model: {models}/demo-seg.yaml
data: data.tar
subset: {{train: 60, val: 20}}
epochs: 1
train: {{imgsz: 64, batch: 8, nbs: 8, optimizer: AdamW, amp: false, workers: 0, warmup_epochs: 0}}
search:
  lr0: {{low: 1.0e-4, high: 1.0e-2, log: true}}
sampler: {{name: random}}
pruner: {{name: none}}
target_trials: 1
"""


@pytest.mark.slow
def test_a_worker_trains_on_an_archive_of_it(folder: Path, tmp_path: Path) -> None:
    import_aihub([folder], tmp_path / "data", Options(imgsz=128, crop=0.5, val=0.2), archive=tmp_path / "data.tar")
    models = PROJECT / "studies" / "models"
    (tmp_path / "tiny.yaml").write_text(STUDY.format(models=models))

    command = "from petskin_tune.cli import tune_worker; tune_worker()"
    arguments = [sys.executable, "-c", command, "--study", "tiny.yaml", "--home", "home"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "trial 0 finished" in done.stdout + done.stderr
    assert "study done" in done.stdout + done.stderr
