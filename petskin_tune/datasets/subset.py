"""Fewer images of a data set: stratified by class, whole groups, seeded, as image lists that Ultralytics reads.

Studies of one name share a subset, also those of different databases. Each that is to train from it leaves a mark, and
it is deleted with the last of them. A subset without a mark, which is older than marks, may be anybody's.
"""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import yaml

from petskin_tune.datasets import layout, stratify
from petskin_tune.datasets.folders import write_list
from petskin_tune.datasets.labels.rows import classes_in, label_path
from petskin_tune.datasets.source import absolute
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.atomic import only_one, write_whole
from petskin_tune.files.paths import filling, resolved, typed
from petskin_tune.printable import raw

MARKS = "studies"  # folder of a subset: an empty file for each study that trains from it, called by its uid


def write(
    data_yaml: Path, train: int | None, val: int | None, seed: int, dest: Path, *, whole_groups: bool = True
) -> Path:
    """Write a data set that names a subset of another's images, and return its ``data.yaml``.

    It lies in a folder of its own, named by its content: a training that reads one subset keeps it, whatever is asked
    for next under the same ``dest``.

    Where the data set records groups (AI-Hub's import does), a group is in the subset whole or not at all, so a split
    may end up a few images short. The same seed gives the same images on every machine, in whatever order files lie.

    Args:
        data_yaml: the whole data set, as :func:`petskin_tune.datasets.source.prepare` returns it.
        train: images to keep for training; None keeps all.
        val: images to keep for validation; None keeps all.
        seed: of the draw.
        dest: folder for the folder with ``data.yaml``, ``train.txt`` and ``val.txt``; no image is copied.
        whole_groups: off, images are drawn one by one, for what measures nothing.

    Raises:
        UsageError: more is wanted than there is, no group is so small, or a number is not positive.
    """
    data_set = layout.read(data_yaml)
    group_of = read_groups(data_set) if whole_groups else {}
    asked = {split: wanted for split, wanted in (("train", train), ("val", val)) if wanted is not None}
    chosen = {split: _draw(data_set, split, wanted, seed, group_of) for split, wanted in asked.items()}
    content = absolute(data_set)
    folder = resolved(typed(dest)) / hashlib.sha256(raw(f"{content}|{chosen}")).hexdigest()[:16]
    with filling(folder), only_one(folder):
        for split, images in chosen.items():
            write_list(folder / f"{split}.txt", images)
            content[split] = str(folder / f"{split}.txt")
        write_whole(folder / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return folder / "data.yaml"


# ---- whose it is -----------------------------------------------------------------------------------------------------


def mark(data_yaml: Path, uid: str) -> None:
    """Keep a subset for a study, until :func:`give_up`.

    Args:
        data_yaml: as :func:`write` returned it.
        uid: of the study.

    Raises:
        UsageError: the disk refuses, or the subset was deleted since it was written.
    """
    folder = data_yaml.parent
    with filling(folder), only_one(folder):
        if not data_yaml.is_file():
            raise UsageError(f"{folder} was deleted with another study just now; type the same command again.")
        (folder / MARKS).mkdir(exist_ok=True)
        (folder / MARKS / uid).touch()


def only_of(dest: Path, uid: str) -> list[Path]:
    """The subsets under ``dest`` (see :func:`write`) that no other study is known to train from."""
    return [folder for folder in _subsets(dest) if _marks(folder) == {uid}]


def others_than(dest: Path, uid: str) -> list[Path]:
    """The subsets under ``dest`` from which another study trains, or may train."""
    return [folder for folder in _subsets(dest) if _marks(folder) != {uid}]


def give_up(dest: Path, uid: str) -> None:
    """Let a study train no more from what lies under ``dest``: what was its own alone is deleted.

    Raises:
        OSError: the disk refuses.
    """
    for folder in _subsets(dest):
        with only_one(folder):
            if _marks(folder) == {uid}:
                shutil.rmtree(folder)
            else:
                (folder / MARKS / uid).unlink(missing_ok=True)
    with suppress(OSError):  # something lies in it
        dest.rmdir()


def _subsets(dest: Path) -> Iterator[Path]:
    folders = sorted(dest.iterdir()) if dest.is_dir() and not dest.is_symlink() else []
    return (folder for folder in folders if folder.is_dir() and not folder.is_symlink())


def _marks(folder: Path) -> set[str]:
    marks = folder / MARKS
    return {path.name for path in marks.iterdir()} if marks.is_dir() else set()


# ---- the draw --------------------------------------------------------------------------------------------------------


def read_groups(data_set: layout.DataSet) -> dict[str, str]:
    """The recorded group of each image, by :func:`petskin_tune.datasets.layout.image_name`; empty without a record.

    An image whose row names no group is one of its own.

    Raises:
        UsageError: the record is named but cannot be read.
    """
    if data_set.groups is None:
        return {}
    try:
        rows = csv.DictReader(io.StringIO(regular.read_names(data_set.groups), newline=""))
        return {row["image"]: row["group"] for row in rows if row["group"]}
    except (OSError, KeyError, csv.Error, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise UsageError(f"{data_set.groups}, the record of what belongs together, cannot be read: {said}.") from error


def _draw(data_set: layout.DataSet, split: str, wanted: int, seed: int, group_of: dict[str, str]) -> list[Path]:
    by_name = _by_name(data_set, split)
    if not 0 < wanted <= len(by_name):
        raise UsageError(
            f"The subset asks for {wanted} {split} images and {data_set.yaml} has {len(by_name)}; ask for fewer, or "
            f"leave `{split}` out of `subset:` to use all."
        )
    stratum_of = stratify.strata({name: classes_in(label_path(path)) for name, path in by_name.items()})
    first: dict[Path, str] = {}
    for name, path in by_name.items():
        first.setdefault(path, name)  # an image that is listed again goes with itself
    group = {name: group_of.get(first[path], first[path]) for name, path in by_name.items()}
    groups: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for name, stratum in stratum_of.items():
        groups[group[name]][stratum] += 1
    chosen = stratify.choose(groups, wanted, seed)
    if not chosen:
        least = min(group.total() for group in groups.values())
        raise UsageError(
            f"The subset asks for {wanted} {split} images, and the smallest group of images that belong together "
            f"({data_set.groups}) has {least}; ask for {least} or more."
        )
    return [path for name, path in by_name.items() if group[name] in chosen]


def _by_name(data_set: layout.DataSet, split: str) -> dict[str, Path]:
    """The images of a split by :func:`petskin_tune.datasets.layout.image_name`; a name's second image has a number."""
    found: dict[str, Path] = {}
    seen: Counter[str] = Counter()
    for image in data_set.images[split]:
        name = layout.image_name(data_set, image)
        seen[name] += 1
        found[name if seen[name] == 1 else f"{name}#{seen[name]}"] = image
    return found
