"""Finished pictures to their places, and the records beside them: groups, the fate of every file, ``data.yaml``."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from petskin_tune import faults
from petskin_tune.datasets.aihub.catalogue import Catalogue
from petskin_tune.datasets.aihub.conversion import Converted, pool_file
from petskin_tune.datasets.aihub.members import Listing
from petskin_tune.datasets.aihub.options import Options
from petskin_tune.datasets.aihub.report import Report, SplitCounts, english
from petskin_tune.datasets.aihub.selection import Choice
from petskin_tune.datasets.aihub.splitting import SPLITS
from petskin_tune.datasets.aihub.taxonomy import LESIONS
from petskin_tune.files.atomic import write_csv, write_whole

GROUPS = "groups.csv"
FILES = "import_files.csv"
KEPT = "kept"

_PLAIN = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Placed:
    """An image in its split. ``image`` and ``label`` are relative to the data set."""

    choice: Choice
    converted: Converted
    split: str

    @property
    def stem(self) -> str:
        """The source's name and eight digits of its content: unique, as file names are used twice in AI-Hub."""
        name = _PLAIN.sub("_", self.choice.stem)
        return f"{name}_{self.converted.digest[:8]}"

    @property
    def image(self) -> str:
        """Where the picture lies."""
        return f"images/{self.split}/{self.stem}.jpg"

    @property
    def label(self) -> str:
        """Where the label file lies."""
        return f"labels/{self.split}/{self.stem}.txt"


def place(placed: Sequence[Placed], dest: Path, pool: Path, progress: Callable[[int, int], None]) -> None:
    """Move pictures and label files from the pool to their places; what already lies there stays.

    Raises:
        RuntimeError: two images would get the same name, or a file of the pool was lost.
    """
    names = Counter(item.image for item in placed)
    if twice := [name for name, count in names.items() if count > 1]:
        raise RuntimeError(f"two images would be called {twice[0]}")
    for folder in {(dest / path).parent for item in placed for path in (item.image, item.label)}:
        folder.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(placed, 1):
        for path, suffix in ((item.label, ".txt"), (item.image, ".jpg")):
            waiting = pool_file(pool, item.converted.id, suffix)
            if waiting.exists():
                os.replace(waiting, dest / path)
                faults.reach("image-placed")
            elif not (dest / path).exists():
                raise RuntimeError(f"{path} was lost from {pool} since it was converted; delete {dest} and import anew")
        progress(number, len(placed))


def write_groups(placed: Sequence[Placed], dest: Path) -> None:
    """Record which images belong together: ``subset`` takes whole groups."""
    rows = sorted((item.image, item.choice.entry.group) for item in placed)
    write_csv(dest / GROUPS, ("image", "group"), rows)


def write_files(listing: Listing, fates: Mapping[int, str], placed: Sequence[Placed], dest: Path) -> None:
    """Record the fate of every file of the source, and what was written for it."""
    by_image = {item.choice.entry.image: item for item in placed}
    by_label = {item.choice.entry.label: item for item in placed}

    def written(index: int) -> str:
        if index in by_image:
            return by_image[index].image
        return by_label[index].label if index in by_label else ""

    rows = ((member.path, fates[index], written(index)) for index, member in enumerate(listing.members))
    write_csv(dest / FILES, ("file", "fate", "written"), rows)


def write_data_yaml(options: Options, splits: Iterable[str], dest: Path) -> Path:
    """Write ``data.yaml``, which makes the folder a data set: the last file of an import."""
    korean = {lesion.code: lesion.korean for lesion in LESIONS}
    content = {
        **{split: f"images/{split}" for split in SPLITS if split in splits},
        "names": {number: english(code) for number, code in enumerate(options.codes)},
        "names_ko": {number: korean[code] for number, code in enumerate(options.codes)},
        "groups": GROUPS,
    }
    write_whole(dest / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return dest / "data.yaml"


def count(report: Report, catalogue: Catalogue, listing: Listing, placed: Sequence[Placed]) -> None:
    """Enter into the report what happened to every file and to every object of the images that were kept."""
    fates = Counter(catalogue.fates.values())
    report.files.found = len(listing.members)
    report.files.kept = fates.pop(KEPT, 0)
    report.files.dropped = fates
    groups: dict[str, set[str]] = {}
    for item in placed:
        converted = item.converted
        report.objects.found += converted.found
        report.objects.kept += sum(number for _, number in converted.objects)
        report.objects.dropped.update(dict(converted.dropped))
        report.notes.update(dict(converted.notes))
        counts = report.splits.setdefault(item.split, SplitCounts())
        counts.images += 1
        counts.background += not converted.objects
        groups.setdefault(item.split, set()).add(item.choice.entry.group)
        for code, number in converted.objects:
            counts.objects[english(code)] = counts.objects.get(english(code), 0) + number
    report.splits = {split: report.splits[split] for split in SPLITS if split in report.splits}
    for split, counts in report.splits.items():
        counts.groups = len(groups[split])
        counts.objects = dict(sorted(counts.objects.items()))
        counts.missing = [english(code) for code in report.options["classes"] if english(code) not in counts.objects]
