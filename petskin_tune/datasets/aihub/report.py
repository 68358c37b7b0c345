"""The account of an import: every file and every object counted once, as kept or with the reason why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from petskin_tune.datasets.aihub.taxonomy import LESIONS

VERSION = 1
_NAMED = 20  # leaks named in the report; their number is always told

_ENGLISH = {lesion.code: lesion.english for lesion in LESIONS}


@dataclass
class Counts:
    """So many found; each of them kept or dropped."""

    found: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def check(self, what: str) -> None:
        """Insist that nothing is missing.

        Raises:
            RuntimeError: the numbers do not add up.
        """
        if self.found != self.kept + self.dropped.total():
            raise RuntimeError(f"{what}: {self.found} found, {self.kept} kept and {self.dropped.total()} dropped")

    def to_json(self) -> dict[str, Any]:
        """The commonest reasons first."""
        dropped = dict(sorted(self.dropped.items(), key=lambda item: (-item[1], item[0])))
        return {"found": self.found, "kept": self.kept, "dropped": dropped}


@dataclass
class SplitCounts:
    """What one split holds."""

    images: int = 0
    background: int = 0  # of them without an object
    groups: int = 0
    objects: dict[str, int] = field(default_factory=dict)  # by English class name
    missing: list[str] = field(default_factory=list)  # classes without an object


@dataclass
class Report:
    """An import, told to people and programs."""

    options: Mapping[str, Any]
    archives: int  # zips read, besides the files in them
    files: Counts = field(default_factory=Counts)
    objects: Counts = field(default_factory=Counts)  # in the images that were kept
    notes: Counter[str] = field(default_factory=Counter)
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    leaking_groups: tuple[str, ...] = ()
    leaking_images: tuple[str, ...] = ()

    def check(self) -> None:
        """Insist that every file and every object is accounted for.

        Raises:
            RuntimeError: the numbers do not add up.
        """
        self.files.check("files")
        self.objects.check("objects")

    def to_json(self) -> dict[str, Any]:
        """Plain values, the same for the same import."""
        return {
            "version": VERSION,
            "options": dict(self.options),
            "archives": self.archives,
            "files": self.files.to_json(),
            "objects": self.objects.to_json(),
            "notes": dict(sorted(self.notes.items())),
            "splits": {split: asdict(counts) for split, counts in self.splits.items()},
            "leaks": {
                "groups": len(self.leaking_groups),
                "images": len(self.leaking_images),
                "named": [*self.leaking_groups[:_NAMED], *self.leaking_images[:_NAMED]],
            },
        }


def english(code: str) -> str:
    """A class's name in ``data.yaml``."""
    return _ENGLISH[code]


def summary(content: Mapping[str, Any]) -> str:
    """A report's JSON as text for a person."""
    lines = []
    for split, counts in content["splits"].items():
        background = f", {counts['background']} of them background" if counts["background"] else ""
        lines.append(f"{split}: {counts['images']} images{background}, from {counts['groups']} groups")
        lines.extend(f"    {number:>7}  {name}" for name, number in counts["objects"].items())
        if counts["missing"]:
            lines.append(f"    WARNING: no object in {split} of {', '.join(counts['missing'])}")
    for what in ("files", "objects"):
        counts = content[what]
        lines.append(f"{what}: {counts['found']} found, {counts['kept']} kept")
        lines.extend(_table(counts["dropped"], "dropped: "))
    if content["notes"]:
        lines.append("noted:")
        lines.extend(_table(content["notes"], ""))
    lines.append(_leaks(content["leaks"]))
    return "\n".join(lines) + "\n"


def _table(counts: Mapping[str, int], prefix: str) -> Iterable[str]:
    return (f"    {number:>7}  {prefix}{reason}" for reason, number in counts.items())


def _leaks(leaks: Mapping[str, Any]) -> str:
    if not leaks["groups"] and not leaks["images"]:
        return "No group and no identical image is in more than one split."
    return (
        f"LEAKS: {leaks['groups']} groups and {leaks['images']} identical images are in more than one split; results "
        "on val will be too good. Import without --keep-split to avoid it."
    )
