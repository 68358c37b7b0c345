"""Which of the catalogue's images an import takes, and why not the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from petskin_tune.datasets.aihub.catalogue import Catalogue, Entry, place_of
from petskin_tune.datasets.aihub.members import Listing
from petskin_tune.datasets.aihub.options import Options
from petskin_tune.datasets.aihub.taxonomy import ASYMPTOMATIC
from petskin_tune.datasets.stratify import seeded


@dataclass(frozen=True, slots=True)
class Choice:
    """An image to be written."""

    entry: Entry
    place: str  # AI-Hub's split and folder, whatever delivery it came with
    stem: str  # of the file names
    background: bool
    window: tuple[int, int] | None = None  # with --crop: the extent that a background image's window imitates

    @property
    def name(self) -> str:
        """What it is wherever it lies: the order of everything that follows."""
        return f"{self.place}/{self.stem}"


def select(catalogue: Catalogue, listing: Listing, options: Options) -> list[Choice]:
    """Choose images; what is not chosen gets its reason in the catalogue's fates.

    Returns:
        The chosen ones sorted by name. The same for the same seed and files, in whatever order or delivery they lie.
    """
    lesions: list[Choice] = []
    asymptomatic: list[Choice] = []
    for entry in catalogue.entries:
        reason = _refusal(entry, options)
        if reason:
            _drop(catalogue, entry, reason)
        else:
            label, image = listing.members[entry.label], listing.members[entry.image]
            place, stem = place_of(label.folder), image.name.rpartition(".")[0]
            choice = Choice(entry, place, stem, _is_background(entry))
            (asymptomatic if choice.background else lesions).append(choice)
    lesions = _below_maximum(catalogue, lesions, options)
    background = _background(catalogue, asymptomatic, len(lesions), options)
    if options.crop is not None and lesions:
        background = _with_windows(background, lesions, options)
    return sorted([*lesions, *background], key=lambda choice: (choice.name, choice.entry.label))


def _refusal(entry: Entry, options: Options) -> str | None:
    if entry.rejected:
        return "rejected by AI-Hub's inspection"
    if (entry.species or options.species[0]) not in options.species:
        return "species not asked for"
    if options.synthetic == "exclude" and entry.synthetic:
        return "synthetic"
    if options.synthetic == "only" and not entry.synthetic:
        return "not synthetic"
    if options.keep_split and not entry.split:
        return "neither in Training nor in Validation"
    if _is_background(entry):
        return None if options.background else "asymptomatic, and no background asked for"
    if not entry.codes:
        return "no class on image or object" if entry.extent else "label file without objects"
    if not set(entry.codes) & set(options.codes):
        return "class not asked for"
    return None


def _is_background(entry: Entry) -> bool:
    """An asymptomatic image, unless a lesion is drawn on it all the same."""
    return entry.asymptomatic and not set(entry.codes) - {ASYMPTOMATIC}


def _below_maximum(catalogue: Catalogue, lesions: list[Choice], options: Options) -> list[Choice]:
    if options.max_per_class is None:
        return lesions
    images_with: Counter[str] = Counter()
    taken = []
    for choice in _shuffled(lesions, options.seed):
        codes = set(choice.entry.codes) & set(options.codes)
        if all(images_with[code] < options.max_per_class for code in codes):
            images_with.update(codes)
            taken.append(choice)
        else:
            _drop(catalogue, choice.entry, "above --max-per-class")
    return taken


def _background(catalogue: Catalogue, asymptomatic: list[Choice], lesions: int, options: Options) -> list[Choice]:
    share = options.background < 1
    wanted = round(options.background * lesions) if share else int(options.background)
    order = _shuffled(asymptomatic, options.seed)
    for choice in order[wanted:]:
        _drop(catalogue, choice.entry, "more background than asked for")
    return order[:wanted]


def _with_windows(background: list[Choice], lesions: list[Choice], options: Options) -> list[Choice]:
    """Cut background like lesions: whole photographs among close-ups would teach the scale and not the skin."""
    extents = [choice.entry.extent for choice in _shuffled(lesions, options.seed) if choice.entry.extent]
    return [
        replace(choice, window=extents[number % len(extents)] if extents else None)
        for number, choice in enumerate(background)
    ]


def _shuffled(choices: Iterable[Choice], seed: int) -> list[Choice]:
    return sorted(choices, key=lambda choice: (seeded(seed, choice.name), choice.entry.label))


def _drop(catalogue: Catalogue, entry: Entry, reason: str) -> None:
    catalogue.fates[entry.label] = catalogue.fates[entry.image] = reason
