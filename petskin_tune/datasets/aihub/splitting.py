"""Train, val and test by whole groups, stratified by class; and what leaks between splits, whoever made them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from petskin_tune.datasets import stratify
from petskin_tune.errors import UsageError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Sample:
    """What splitting needs to know of an image."""

    group: str  # stays together
    digests: tuple[str, ...]  # of the image's content, as it was and as it is written
    classes: frozenset[int]


@dataclass(frozen=True)
class Leaks:
    """What lies on two sides of a split: group names, and a digest of each set of identical images."""

    groups: tuple[str, ...]
    images: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.groups or self.images)


def assign(samples: Sequence[Sample], val: float, test: float, seed: int) -> list[str]:
    """Give every sample a split, whole groups at a time.

    Groups are drawn until a split would exceed its share, so it holds at most that share of the images.

    Args:
        samples: in any order; the outcome per group depends on the seed and on what there is only.
        val: share of the images for validation.
        test: share of the images for test.
        seed: of the draw.

    Raises:
        UsageError: no group is small enough to be held out.
    """
    stratum_of = stratify.strata({str(number): sample.classes for number, sample in enumerate(samples)})
    groups: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for number, sample in enumerate(samples):
        groups[sample.group][stratum_of[str(number)]] += 1
    split_of: dict[str, str] = {}
    for split, share in (("val", val), ("test", test)):
        rest = {group: counts for group, counts in groups.items() if group not in split_of}
        chosen = stratify.choose(rest, round(share * len(samples)), seed) if share else set()
        if share and not chosen:
            raise UsageError(
                f"{len(samples)} images in {len(groups)} groups (same species, breed, age, gender and date) leave no "
                f"group small enough to hold out {share:.0%} for {split}; give --{split} a larger share."
            )
        split_of.update(dict.fromkeys(chosen, split))
    return [split_of.get(sample.group, "train") for sample in samples]


def require_lesions(samples: Sequence[Sample], splits: Sequence[str], way_on: str) -> None:
    """Insist that train and val can be used: each needs an image with a lesion.

    Raises:
        UsageError: one of them has none; the sentence ends in ``way_on``.
    """
    for side in ("train", "val"):
        if not any(sample.classes for sample, split in zip(samples, splits, strict=True) if split == side):
            raise UsageError(f"The split leaves no image with a lesion for {side}; {way_on}.")


def find_leaks(samples: Sequence[Sample], splits: Sequence[str]) -> Leaks:
    """What is on more than one side: groups, and identical images."""
    groups: defaultdict[str, set[str]] = defaultdict(set)
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for sample, split in zip(samples, splits, strict=True):
        groups[sample.group].add(split)
        for digest in sample.digests:
            digests[digest].add(split)
    leaking = _on_both_sides(digests)
    images = {next((digest for digest in reversed(sample.digests) if digest in leaking), "") for sample in samples}
    return Leaks(tuple(sorted(_on_both_sides(groups))), tuple(sorted(images - {""})))


def _on_both_sides(places: Mapping[str, set[str]]) -> set[str]:
    return {name for name, splits in places.items() if len(splits) > 1}
