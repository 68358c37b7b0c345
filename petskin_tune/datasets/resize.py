"""A smaller copy of a data set: images of 1920 x 1080 decode about nine times slower than the 640 pixels wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

from petskin_tune.datasets import layout
from petskin_tune.datasets.fingerprint import fingerprint
from petskin_tune.datasets.folders import write_list
from petskin_tune.datasets.labels.rows import label_path
from petskin_tune.datasets.parallel import batches, spread
from petskin_tune.datasets.pictures.reading import BadPicture, open_picture
from petskin_tune.datasets.pictures.rendering import render
from petskin_tune.datasets.source import absolute
from petskin_tune.datasets.subset import read_groups
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.atomic import claim, only_one, write_csv, write_whole
from petskin_tune.files.paths import filling, resolved, typed

_RECORD = "resize.json"
_BATCH = 16  # images per message between processes


@dataclass(frozen=True)
class Resized:
    """The outcome. ``skipped`` holds what could not be read, with the reason; it is not in the copy."""

    data_yaml: Path
    images: int
    skipped: tuple[tuple[Path, str], ...]


@dataclass(frozen=True)
class _Task:
    image: Path
    target: Path  # of the picture
    label: Path  # of the copy
    imgsz: int


def resize(
    data_yaml: Path,
    dest: Path,
    imgsz: int,
    *,
    jobs: int = 1,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> Resized:
    """Copy a data set with the long side of every image at most ``imgsz`` pixels; labels are shares and stay.

    Killed and called again it goes on. Images become JPEG; those that are small enough JPEGs already keep their bytes.

    Args:
        data_yaml: the data set, as :func:`petskin_tune.datasets.source.prepare` returns it.
        dest: folder of the copy.
        imgsz: pixels.
        jobs: processes.
        progress: called with (what, done, all).

    Raises:
        UsageError: ``dest`` lies among the images or holds something else, two images would share a name, or nothing is
            left of a split.
    """
    if imgsz < 32:
        raise UsageError("--imgsz must be at least 32 pixels.")
    dest = resolved(typed(dest))
    data_set = layout.read(data_yaml)
    _refuse_inside(data_set, dest)
    with filling(dest), only_one(dest, wait=False):
        claim(dest, _RECORD, {"imgsz": imgsz, "source": fingerprint(data_yaml).digest})
        tasks = _tasks(data_set, dest, imgsz)
        skipped: list[tuple[Path, str]] = []
        done = 0
        for answers in spread(_resize_batch, batches(tasks, _BATCH), jobs):
            skipped.extend((image, reason) for image, reason in answers if reason)
            done += len(answers)
            progress("resizing images", done, len(tasks))
        _write_records(data_set, tasks, {image for image, _ in skipped}, dest)
    return Resized(dest / "data.yaml", len(tasks) - len(skipped), tuple(sorted(skipped)))


def _refuse_inside(data_set: layout.DataSet, dest: Path) -> None:
    """Refuse a folder whose images would become images of the data set itself: a split has all below its folders.

    Raises:
        UsageError: names the folder that it lies in.
    """
    folders = {resolved(place) for places in data_set.places.values() for place in places if place.is_dir()}
    if within := next((folder for folder in sorted(folders) if dest.is_relative_to(folder)), None):
        raise UsageError(f"{dest} lies inside {within}, whose images are the data set's; give a folder elsewhere.")


def _tasks(data_set: layout.DataSet, dest: Path, imgsz: int) -> list[_Task]:
    tasks = []
    for split, images in data_set.images.items():
        for image in dict.fromkeys(images):
            inside = Path(layout.image_name(data_set, image).removeprefix("images/").removeprefix(f"{split}/"))
            place = Path(split) / inside.with_suffix("")
            picture, label = dest / "images" / f"{place}.jpg", dest / "labels" / f"{place}.txt"
            tasks.append(_Task(image, picture, label, imgsz))
    twice = [target for target, count in Counter(task.target for task in tasks).items() if count > 1]
    if twice:
        raise UsageError(f"Two images would both become {twice[0].relative_to(dest)}; rename one.")
    return tasks


def _resize_batch(tasks: list[_Task]) -> list[tuple[Path, str]]:
    return [(task.image, _resize_one(task)) for task in tasks]


def _resize_one(task: _Task) -> str:
    """Write one image and its labels, the image last; returns why not, or nothing."""
    if task.target.exists():
        return ""
    try:
        raw = regular.read_bytes(task.image, regular.LARGEST_PICTURE)
        picture = open_picture(raw, task.image.suffix)
        width, height = picture.size
        content = render(picture, (0, 0, width, height), task.imgsz)
    except BadPicture as error:
        return str(error)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    with suppress(FileNotFoundError):
        write_whole(task.label, regular.read_bytes(label_path(task.image), regular.LARGEST_TEXT))
    write_whole(task.target, content)
    return ""


def _write_records(data_set: layout.DataSet, tasks: list[_Task], skipped: set[Path], dest: Path) -> None:
    written = [task for task in tasks if task.image not in skipped]
    group_of = read_groups(data_set)
    content = {key: value for key, value in absolute(data_set).items() if key not in ("path", *layout.BY_NAME)}
    if group_of:
        names = ((task, layout.image_name(data_set, task.image)) for task in written)
        rows = [(task.target.relative_to(dest).as_posix(), group_of[name]) for task, name in names if name in group_of]
        write_csv(dest / "groups.csv", ("image", "group"), rows)
        content["groups"] = "groups.csv"
    left = {task.target.relative_to(dest / "images").parts[0] for task in written}
    for split in data_set.images:
        if split not in left:
            raise UsageError(f"None of the {split} images of {data_set.yaml} can be read.")
        content[split] = _split(data_set, split, {task.image: task.target for task in written}, dest)
    write_whole(dest / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _split(data_set: layout.DataSet, split: str, target_of: Mapping[Path, Path], dest: Path) -> str:
    """The folder of a split in the copy, or where the data set names an image more than once, a list that does so."""
    if all(place.is_dir() for place in data_set.places[split]):
        return f"images/{split}"
    named = [target_of[image] for image in layout.listed(data_set, split) if image in target_of]
    if len(named) == len(set(named)):
        return f"images/{split}"
    write_list(dest / f"{split}.txt", (f"./{target.relative_to(dest)}" for target in named))
    return f"{split}.txt"
