"""What an import is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from petskin_tune.datasets.aihub.taxonomy import LESIONS, SPECIES, class_code, lesions_of
from petskin_tune.errors import UsageError


@dataclass(frozen=True)
class Options:
    """What decides every byte of an import, besides its source. The defaults keep all lesions at full size."""

    species: str = "DC"  # letters: D dog, C cat
    classes: tuple[str, ...] = ()  # codes A1 … A6; empty: all that the species have
    synthetic: Literal["include", "exclude", "only"] = "include"  # AI-Hub's 합성유무
    background: float = 0  # asymptomatic images: a number, or below 1 a share of the lesion images
    max_per_class: int | None = None  # images that show a class, at most
    imgsz: int | None = None  # long side of what is written, pixels; smaller images stay as they are
    crop: float | None = None  # cut to the lesions and a margin of this share of their long side
    boxes: Literal["drop", "polygon"] = "drop"  # a box without an outline
    min_area: float = 16.0  # of an object, in square pixels as written
    val: float = 0.1  # share of the images
    test: float = 0.0  # share of the images
    keep_split: bool = False  # AI-Hub's own: Training to train, Validation to val
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UsageError: with one clear sentence.
        """
        if not self.species or set(self.species) - set(SPECIES):
            raise UsageError(f"Species are D (dog) and C (cat), not {self.species!r}.")
        if strange := [code for code in self.classes if code not in lesions_of(self.species)]:
            have = ", ".join(lesions_of(self.species))
            raise UsageError(f"The classes of species {self.species} are {have}, not {', '.join(strange)}.")
        if not (0 <= self.val < 1 and 0 <= self.test < 1 and self.val + self.test < 1):
            raise UsageError("The shares for val and test must be from 0 to below 1, and leave something for train.")
        if self.val == 0 and not self.keep_split:
            raise UsageError("A data set without validation images cannot be tuned on; give --val above 0.")
        if self.keep_split and self.test:
            raise UsageError("AI-Hub's own split has no test images; give either --keep-split or --test.")
        if not all(math.isfinite(number) for number in (self.background, self.crop or 0, self.min_area)):
            raise UsageError("--background, --crop and --min-area must be finite numbers.")
        if self.background < 0 or (self.background > 1 and self.background != int(self.background)):
            raise UsageError("--background is a number of images, or a share of the lesion images below 1.")
        if self.imgsz is not None and self.imgsz < 32:
            raise UsageError("--imgsz must be at least 32 pixels.")
        if self.crop is not None and self.crop < 0:
            raise UsageError("--crop is the margin as a share of the lesions' size, 0 or more.")
        if self.max_per_class is not None and self.max_per_class < 1:
            raise UsageError("--max-per-class must be at least 1.")
        if self.min_area < 0:
            raise UsageError("--min-area must be 0 or more square pixels.")

    @property
    def codes(self) -> tuple[str, ...]:
        """The classes that are learned, in the order of their numbers."""
        wanted = self.classes or lesions_of(self.species)
        return tuple(lesion.code for lesion in LESIONS if lesion.code in wanted)

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the record in the data set."""
        return {**asdict(self), "classes": list(self.codes)}


def codes_of(names: Sequence[str]) -> tuple[str, ...]:
    """The codes of classes given as codes, English or Korean names.

    Raises:
        UsageError: one of them is no class.
    """
    by_english = {lesion.english: lesion.code for lesion in LESIONS}
    found = []
    for name in names:
        code = by_english.get(name.strip().lower()) or class_code(name)
        if code is None or code not in by_english.values():
            known = ", ".join(f"{lesion.code} {lesion.english}" for lesion in LESIONS)
            raise UsageError(f"{name!r} is no class; there are {known}.")
        found.append(code)
    return tuple(found)
