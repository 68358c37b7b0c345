"""What a look at every file of a data set finds: damage, leaks, and what there is to learn from."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from petskin_tune.datasets import layout
from petskin_tune.datasets.labels.outlines import Outlines, read_outlines
from petskin_tune.datasets.labels.rows import label_path
from petskin_tune.datasets.names import repeated, told_apart
from petskin_tune.datasets.parallel import batches, spread
from petskin_tune.datasets.pictures.reading import BadPicture, require_trainable, verify
from petskin_tune.datasets.subset import read_groups
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.printable import printable

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
        return printable("\n".join(lines) + "\n")


def _class_line(name: str, sizes: ClassSizes) -> str:
    if not sizes.objects:
        return f"    {name}: none"
    return (
        f"    {name}: {sizes.objects} objects in {sizes.images} images; share of the image {sizes.smallest:.3%} to "
        f"{sizes.largest:.1%}, median {sizes.median:.2%}; {sizes.below_one_percent / sizes.objects:.0%} below 1%"
    )


@dataclass(frozen=True)
class _Task:
    split: str
    name: str
    image: Path
    classes: int
    times: int  # that the split lists it


@dataclass(frozen=True)
class _Looked:
    """What a process found in one image and its label file."""

    split: str
    name: str
    damage: str  # of the image, or ""
    digest: str  # of its content
    label_problem: str  # or ""
    labels: Outlines
    labelled: bool  # it has a label file, be it empty
    times: int  # that its split lists it: it counts as often, and what is found of it is said once


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
    tasks = list(_tasks(data_set))
    looked: list[_Looked] = []
    for answers in spread(_look_at_batch, batches(tasks, _BATCH), jobs):
        looked.extend(answers)
        progress("checking images", len(looked), len(tasks))
    looked.sort(key=lambda found: (found.split, found.name))
    listed = [found for found in looked for _ in range(found.times)]
    result = Check(splits={split: _split_check(listed, split, data_set.names) for split in data_set.images})
    if twice := repeated(data_set.names):
        result.problems["class names given to more than one class"] = twice
    if data_set.notes:
        result.notes["passed over in the YAML"] = list(data_set.notes)
    for split in data_set.images:
        if often := sorted({found.name for found in looked if found.times > 1 and found.split == split}):
            result.notes[f"images that {split} lists more than once, and that are trained as often"] = often
    _find_problems(result, looked, read_groups(data_set))
    return result


def _tasks(data_set: layout.DataSet) -> Iterator[_Task]:
    for split, images in data_set.images.items():
        for image, times in Counter(images).items():
            yield _Task(split, layout.image_name(data_set, image), image, len(data_set.names), times)


def _look_at_batch(tasks: list[_Task]) -> list[_Looked]:
    return [_look_at(task) for task in tasks]


def _look_at(task: _Task) -> _Looked:
    digest, damage, pixels = _picture(task.image)
    label = label_path(task.image)
    try:
        outlines, problem = read_outlines(label, task.classes, pixels), ""
    except ValueError as error:
        outlines, problem = Outlines(), str(error)
    except UsageError:
        outlines, problem = Outlines(), "no text, or no file that can be read"
    return _Looked(task.split, task.name, damage, digest, problem, outlines, label.exists(), task.times)


def _picture(image: Path) -> tuple[str, str, int]:
    """A picture's digest, what is wrong with it or "", and its pixels: judged as by a training, and decoded."""
    digest = ""
    try:
        raw = regular.read_bytes(image, regular.LARGEST_PICTURE)
        digest = hashlib.sha256(raw).hexdigest()
        picture = require_trainable(raw, image.suffix)
        verify(picture)
        return digest, "", picture.size[0] * picture.size[1]
    except BadPicture as error:
        return digest, str(error), 0
    except OSError as error:
        return digest, f"cannot be read: {error.strerror or error}", 0


def _split_check(looked: Iterable[_Looked], split: str, names: Sequence[str]) -> SplitCheck:
    mine = [found for found in looked if found.split == split]
    result = SplitCheck(images=len(mine), background=sum(_is_background(found) for found in mine))
    for number, heading in enumerate(told_apart(names)):
        areas = sorted(share for found in mine for share in found.labels.areas.get(number, ()))
        with_it = sum(number in found.labels.areas for found in mine)
        result.classes[heading] = _sizes(areas, with_it) if areas else ClassSizes()
    return result


def _sizes(areas: Sequence[float], images: int) -> ClassSizes:
    return ClassSizes(
        objects=len(areas),
        images=images,
        smallest=areas[0],
        median=areas[len(areas) // 2],
        largest=areas[-1],
        below_one_percent=sum(area < SMALL for area in areas),
    )


def _is_background(found: _Looked) -> bool:
    return not found.labels.areas and not found.label_problem


def _find_problems(result: Check, looked: Sequence[_Looked], group_of: Mapping[str, str]) -> None:
    for found in looked:
        for what in _problems(found):
            result.problems.setdefault(what, []).append(found.name)
        for what in _notes(found):
            result.notes.setdefault(what, []).append(found.name)
    _count_flat(result, looked)
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


def _problems(found: _Looked) -> Iterator[str]:
    if found.damage:
        yield f"damaged image, {found.damage}"
    if found.label_problem:
        yield f"unreadable labels, {found.label_problem}"
    if found.labels.boxes:
        yield "boxes without outlines"
    if not found.labelled:
        yield "no label file (that of a background image is empty)"


def _notes(found: _Looked) -> Iterator[str]:
    if found.labelled and _is_background(found):
        yield "empty label files"
    if found.labels.beyond:
        yield "outlines that reach outside of their image, where they are cut off"
    if found.labels.repeated:
        yield "outlines listed twice in their label file, trained and counted once"
    if found.labels.below_a_pixel:
        yield "outlines smaller than a pixel of their image"


def _count_flat(result: Check, looked: Sequence[_Looked]) -> None:
    """Say how many outlines have no area, and in which images: no mask comes of one, nothing is ever found there."""
    flat = {found.name: found.labels.flat for found in looked if found.labels.flat}
    if flat:
        all_of_them = sum(len(areas) for found in looked for areas in found.labels.areas.values())
        result.problems[f"outlines without an area, {sum(flat.values())} of {all_of_them}"] = list(flat)


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
