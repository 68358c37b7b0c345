"""What a look at every file of a data set finds: damage, leaks, and what there is to learn from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from petskin_tune.datasets import layout
from petskin_tune.datasets.parallel import batches, spread
from petskin_tune.datasets.pictures import BadPicture, open_picture, verify
from petskin_tune.datasets.subset import read_groups
from petskin_tune.errors import UsageError

_BATCH = 32  # images per message between processes
_NAMED = 10  # files named per finding; their number is always told
SMALL = 0.01  # share of the image below which a lesion counts as small


@dataclass
class ClassSizes:
    """The objects of one class: how many, and how large (shares of the image's area)."""

    objects: int = 0
    images: int = 0
    smallest: float = 0.0
    median: float = 0.0
    largest: float = 0.0
    below_one_percent: int = 0


@dataclass
class SplitCheck:
    """One split."""

    images: int = 0
    background: int = 0  # images whose label file is empty or missing: both are trained as background
    classes: dict[str, ClassSizes] = field(default_factory=dict)


@dataclass
class Check:
    """All that was found. ``problems`` are what spoils a training or its result."""

    splits: dict[str, SplitCheck] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)  # what: which files
    notes: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values, every file named."""
        return asdict(self)

    def summary(self) -> str:
        """The same for a person."""
        lines: list[str] = []
        for split, found in self.splits.items():
            lines.append(f"{split}: {found.images} images, {found.background} of them background")
            lines.extend(_class_line(name, sizes) for name, sizes in found.classes.items())
        for heading, findings in (("PROBLEM", self.problems), ("note", self.notes)):
            for what, files in findings.items():
                more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
                lines.append(f"{heading}: {what} ({len(files)}): {', '.join(files[:_NAMED])}{more}")
        if not self.problems:
            lines.append("No problem found.")
        return "\n".join(lines) + "\n"


def _class_line(name: str, sizes: ClassSizes) -> str:
    if not sizes.objects:
        return f"    {name}: none"
    return (
        f"    {name}: {sizes.objects} objects in {sizes.images} images; share of the image {sizes.smallest:.3%} to "
        f"{sizes.largest:.1%}, median {sizes.median:.2%}; {sizes.below_one_percent / sizes.objects:.0%} below 1%"
    )


@dataclass(frozen=True)
class _Looked:
    """What a process found in one image and its label file."""

    split: str
    name: str
    damage: str  # of the image, or ""
    digest: str  # of its content
    label_problem: str  # or ""
    boxes: int  # rows that are boxes and not outlines
    shares: Mapping[int, tuple[float, ...]]  # by class: areas as shares of the image
    labelled: bool  # it has a label file, be it empty


def check(data_yaml: Path, *, jobs: int = 1, progress: Callable[[str, int, int], None] = lambda *_: None) -> Check:
    """Look at every image and label file of a data set.

    Args:
        data_yaml: the data set, as :func:`petskin_tune.datasets.source.prepare` returns it.
        jobs: processes.
        progress: called with (what, done, all).

    Raises:
        UsageError: the data set cannot be read at all.
    """
    data_set = layout.read(data_yaml)
    tasks = [
        (split, layout.image_name(data_set, image), image, len(data_set.names))
        for split, images in data_set.images.items()
        for image in images
    ]
    looked: list[_Looked] = []
    for answers in spread(_look_at_batch, batches(tasks, _BATCH), jobs):
        looked.extend(answers)
        progress("checking images", len(looked), len(tasks))
    looked.sort(key=lambda found: (found.split, found.name))
    result = Check(splits={split: _split_check(looked, split, data_set.names) for split in data_set.images})
    _find_problems(result, looked, read_groups(data_set))
    return result


def _look_at_batch(tasks: list[tuple[str, str, Path, int]]) -> list[_Looked]:
    return [_look_at(*task) for task in tasks]


def _look_at(split: str, name: str, image: Path, classes: int) -> _Looked:
    damage, digest = "", ""
    try:
        raw = image.read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        verify(open_picture(raw))
    except BadPicture as error:
        damage = str(error)
    except OSError as error:
        damage = f"cannot be read: {error.strerror}"
    label = layout.label_path(image)
    try:
        shares, boxes = _areas(label, classes)
        problem = ""
    except ValueError as error:
        shares, boxes, problem = {}, 0, str(error)
    except UsageError:
        shares, boxes, problem = {}, 0, "no numbers"
    return _Looked(split, name, damage, digest, problem, boxes, shares, label.exists())


def _areas(label: Path, classes: int) -> tuple[dict[int, tuple[float, ...]], int]:
    """Areas by class as shares of the image, and how many rows are boxes.

    Raises:
        ValueError: a row is not what YOLO reads; the text says why.
    """
    areas: defaultdict[int, list[float]] = defaultdict(list)
    boxes = 0
    rows = layout.label_rows(label)
    for number, coordinates in rows:
        if not 0 <= number < classes:
            raise ValueError(f"class {number} of {classes}")
        if not all(0 <= value <= 1 for value in coordinates):
            raise ValueError("coordinates outside 0 to 1")
        if len(coordinates) == 4:
            boxes += 1
            areas[number].append(coordinates[2] * coordinates[3])
        elif len(coordinates) >= 6 and len(coordinates) % 2 == 0:
            areas[number].append(_area(coordinates[::2], coordinates[1::2]))
        else:
            raise ValueError(f"{len(coordinates)} coordinates in a row")
    if 0 < boxes < len(rows):
        raise ValueError("boxes and outlines mixed")
    return {number: tuple(found) for number, found in areas.items()}, boxes


def _area(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The area inside a ring of corners (the shoelace formula)."""
    turned = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x * next_y - next_x * y for x, y, next_x, next_y in turned)) / 2


def _split_check(looked: Iterable[_Looked], split: str, names: Sequence[str]) -> SplitCheck:
    mine = [found for found in looked if found.split == split]
    result = SplitCheck(images=len(mine), background=sum(_is_background(found) for found in mine))
    for number, name in enumerate(names):
        areas = sorted(share for found in mine for share in found.shares.get(number, ()))
        result.classes[name] = (
            ClassSizes()
            if not areas
            else ClassSizes(
                objects=len(areas),
                images=sum(number in found.shares for found in mine),
                smallest=areas[0],
                median=areas[len(areas) // 2],
                largest=areas[-1],
                below_one_percent=sum(area < SMALL for area in areas),
            )
        )
    return result


def _is_background(found: _Looked) -> bool:
    return not found.shares and not found.label_problem


def _find_problems(result: Check, looked: Sequence[_Looked], group_of: Mapping[str, str]) -> None:
    for found in looked:
        if found.damage:
            result.problems.setdefault(f"damaged image, {found.damage}", []).append(found.name)
        if found.label_problem:
            result.problems.setdefault(f"unreadable labels, {found.label_problem}", []).append(found.name)
        if found.boxes:
            result.problems.setdefault("boxes without outlines", []).append(found.name)
        if not found.labelled:
            result.problems.setdefault("no label file (that of a background image is empty)", []).append(found.name)
        elif _is_background(found):
            result.notes.setdefault("empty label files", []).append(found.name)
    for split, counts in result.splits.items():
        if empty := [name for name, sizes in counts.classes.items() if not sizes.objects]:
            result.notes[f"classes without an object in {split}"] = empty
    digests = [(found.digest, found) for found in looked if found.digest]
    if across := _repeated(digests, across=True):
        result.problems["identical images in more than one split"] = across
    if within := _repeated(digests, across=False):
        result.notes["identical images in one split"] = within
    sides: defaultdict[str, set[str]] = defaultdict(set)
    for found in looked:
        if found.name in group_of:
            sides[group_of[found.name]].add(found.split)
    if leaking := sorted(group for group, splits in sides.items() if len(splits) > 1):
        result.problems["groups in more than one split"] = leaking


def _repeated(digests: Iterable[tuple[str, _Looked]], *, across: bool) -> list[str]:
    """Images with the same content, as "this = that": in different splits, or in the same one."""
    seen: dict[str, list[_Looked]] = {}
    for digest, found in digests:
        seen.setdefault(digest, []).append(found)
    return [
        " = ".join(found.name for found in same)
        for same in seen.values()
        if len(same) > 1 and (len({found.split for found in same}) > 1) == across
    ]
