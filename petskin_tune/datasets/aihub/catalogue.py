"""Every label file read once, and joined to its image: what there is, before anything is chosen or written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from petskin_tune.datasets.aihub.members import Listing, Member, MemberReader, Unreadable
from petskin_tune.datasets.aihub.records import Record, Unusable, parse
from petskin_tune.datasets.archives.names import is_litter
from petskin_tune.datasets.parallel import batches, spread

Split = Literal["train", "val", ""]
_Key = TypeVar("_Key")

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".egg", ".alz")
_BATCH = 256  # label files read per message between processes
_LEAST_PER_PROCESS = 5000  # label files; a process takes as long to start as fewer take to read

_SEVERAL = -1  # in place of an index
_REST = "_잔여"  # folders of late deliveries, to be merged with the folder without it
_TRAINING = re.compile(r"(?i)^[\d._ ]*training$|^T[LS]\d+")
_VALIDATION = re.compile(r"(?i)^[\d._ ]*validation$|^V[LS]\d+")
_DELIVERY = re.compile(r"(?i)^[TV][LS](\d+)")
_NO_PLACE = re.compile(r"(?i)라벨링데이터|원천데이터|^[TV][LS]\d+|^[\d._ ]*(training|validation)$")

NO_LABEL = "image without a label file"
NO_IMAGE = "label file without an image"
SECOND_LABEL = "second label file of an image"
AMBIGUOUS = "several label files or images of this name in other folders, and none beside it"
SAME_PATH = "replaced by a later file of the same path in the same zip"
ARCHIVE = "archive that is not looked into"
NO_DATA = "neither label nor image"


@dataclass(frozen=True, slots=True)
class Entry:
    """A label file and its image, with what choosing needs to know. Outlines are read again when they are written."""

    label: int  # index into Listing.members
    image: int  # index into Listing.members
    split: Split  # AI-Hub's own
    species: str
    group: str
    codes: tuple[str, ...]  # classes of the items, sorted
    extent: tuple[int, int] | None  # width and height of what the outlines span, pixels
    asymptomatic: bool
    synthetic: bool
    rejected: bool


@dataclass
class Catalogue:
    """Entries in the order of their label files' paths, and the fate of every member that is in none."""

    entries: list[Entry] = field(default_factory=list)
    fates: dict[int, str] = field(default_factory=dict)  # member index: reason


@dataclass(frozen=True, slots=True)
class _Read:
    """What a process says of a label file: the answer to (index, member)."""

    index: int
    species: str = ""
    group: str = ""
    codes: tuple[str, ...] = ()
    extent: tuple[int, int] | None = None
    asymptomatic: bool = False
    synthetic: bool = False
    rejected: bool = False
    problem: str | None = None


def build(listing: Listing, jobs: int, progress: Callable[[int, int], None]) -> Catalogue:
    """Read all label files and find their images.

    Args:
        listing: the files.
        jobs: processes that read, at most.
        progress: called with (done, all) label files.
    """
    catalogue = Catalogue()
    labels, images = _sorted_out(listing, catalogue.fates)
    pairs = _paired(listing, labels, images, catalogue.fates)
    tasks = [(index, listing.members[index]) for index in pairs]
    known: dict[str, str] = {}  # one copy of each group's name
    jobs = max(1, min(jobs, len(tasks) // _LEAST_PER_PROCESS))
    done = 0
    for answers in spread(_read_batch, batches(tasks, _BATCH), jobs, _open, (listing.containers,)):
        for answer in answers:
            image = pairs[answer.index]
            if answer.problem:
                catalogue.fates[answer.index] = catalogue.fates[image] = answer.problem
            else:
                group = known.setdefault(answer.group, answer.group)
                catalogue.entries.append(_entry(answer, image, group, listing))
        done += len(answers)
        progress(done, len(tasks))
    catalogue.entries.sort(key=lambda entry: entry.label)
    return catalogue


def _entry(answer: _Read, image: int, group: str, listing: Listing) -> Entry:
    return Entry(
        label=answer.index,
        image=image,
        split=own_split(listing.members[answer.index].folder),
        species=answer.species,
        group=group,
        codes=answer.codes,
        extent=answer.extent,
        asymptomatic=answer.asymptomatic,
        synthetic=answer.synthetic,
        rejected=answer.rejected,
    )


def _sorted_out(listing: Listing, fates: dict[int, str]) -> tuple[list[int], list[int]]:
    labels, images = [], []
    for index, member in enumerate(listing.members):
        name = member.name.lower()
        if is_litter(member.path):
            fates[index] = NO_DATA
        elif index + 1 < len(listing.members) and listing.members[index + 1].spelling == member.spelling:
            fates[index] = SAME_PATH
        elif name.endswith(".json"):
            labels.append(index)
        elif name.endswith(_IMAGE_SUFFIXES):
            images.append(index)
        else:
            fates[index] = ARCHIVE if name.endswith(_ARCHIVE_SUFFIXES) else NO_DATA
    return labels, images


def _paired(listing: Listing, labels: list[int], images: list[int], fates: dict[int, str]) -> dict[int, int]:
    """Label to image: the one beside it, else the only free one where the only free label can mean it.

    A label never takes a picture that another one may mean: what was drawn on one photograph is wrong on any other.
    """
    beside: dict[tuple[int, str, str], int] = {}
    for index in images:
        beside.setdefault(_beside(listing.members[index]), index)
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for index in labels:
        image = beside.get(_beside(listing.members[index]))
        if image is not None and image not in taken:
            pairs[index] = image
            taken.add(image)
    for key in (_same_folder, _same_delivery, _same_meaning):
        free = [index for index in images if index not in taken]
        found = _only_ones(listing, [index for index in labels if index not in pairs], free, key)
        pairs.update(found)
        taken.update(found.values())
    fates.update((index, NO_LABEL) for index in images if index not in taken)
    _tell_why(listing, [index for index in labels if index not in pairs], images, taken, fates)
    return pairs


def _only_ones(
    listing: Listing, labels: Iterable[int], images: Iterable[int], key: Callable[[Member], _Key]
) -> dict[int, int]:
    """Label to image, where exactly one of each has the same key. There may be half a million of either."""
    label_of: dict[_Key, int] = {}
    for label in labels:
        place = key(listing.members[label])
        label_of[place] = _SEVERAL if place in label_of else label
    image_of: dict[_Key, int] = {}
    for image in images:
        place = key(listing.members[image])
        if label_of.get(place, _SEVERAL) != _SEVERAL:
            image_of[place] = _SEVERAL if place in image_of else image
    return {label_of[place]: image for place, image in image_of.items() if image != _SEVERAL}


def _tell_why(
    listing: Listing, lost: Iterable[int], images: Iterable[int], taken: set[int], fates: dict[int, str]
) -> None:
    """Enter why labels have no image, and images that might be theirs no label."""
    meant: dict[tuple[str, str], list[int]] = {_same_meaning(listing.members[label]): [] for label in lost}
    for image in images:
        if (place := _same_meaning(listing.members[image])) in meant:
            meant[place].append(image)
    for label in lost:
        candidates = meant[_same_meaning(listing.members[label])]
        rivals = [image for image in candidates if image not in taken]
        fates.update((image, AMBIGUOUS) for image in rivals)
        fates[label] = AMBIGUOUS if rivals else SECOND_LABEL if candidates else NO_IMAGE


def _stem(member: Member) -> str:
    return member.name.rpartition(".")[0]


def _beside(member: Member) -> tuple[int, str, str]:
    """The folder as it is spelt, in one zip or on the disk, and the name."""
    return member.container, member.disk_path.rpartition("/")[0] or member.folder, _stem(member)


def _same_folder(member: Member) -> tuple[str, str]:
    """The folder wherever it lies: a zip and its unpacked copy are one."""
    return member.folder, _stem(member)


def _same_delivery(member: Member) -> tuple[str, str, str]:
    """TL02 and TS02 are the labels and the pictures of one delivery."""
    return delivery_of(member.folder), place_of(member.folder), _stem(member)


def _same_meaning(member: Member) -> tuple[str, str]:
    """Split, folders and name, whatever delivery they came with."""
    return place_of(member.folder), _stem(member)


@cache
def delivery_of(folder: str) -> str:
    """The number of the delivery that a folder belongs to (TL02: 02); empty where nothing says."""
    return next((found.group(1) for part in PurePosixPath(folder).parts if (found := _DELIVERY.match(part))), "")


@cache
def place_of(folder: str) -> str:
    """What a folder means: the split and the names below it, without levels that only say how it was delivered."""
    parts = [part.removesuffix(_REST) for part in PurePosixPath(folder).parts]
    return "/".join([own_split(folder), *(part for part in parts if not _NO_PLACE.search(part))])


@cache
def own_split(folder: str) -> Split:
    """AI-Hub's own split, by the folder's name or that of the zip (TL, TS, VL, VS)."""
    for part in PurePosixPath(folder).parts:
        if _TRAINING.search(part):
            return "train"
        if _VALIDATION.search(part):
            return "val"
    return ""


_reader: MemberReader


def _open(containers: tuple[Path, ...]) -> None:
    global _reader
    _reader = MemberReader(containers)


def _read_batch(tasks: list[tuple[int, Member]]) -> list[_Read]:
    return [_read_one(index, member) for index, member in tasks]


def _read_one(index: int, member: Member) -> _Read:
    try:
        record = parse(_reader.read(member), member.name)
    except Unreadable as error:
        return _Read(index, problem=f"label file: {error}")
    except Unusable as error:
        return _Read(index, problem=f"label file: {error}")
    return _Read(
        index,
        species=record.species,
        group=record.group,
        codes=tuple(sorted({item.code for item in record.items if item.code})),
        extent=_extent(record),
        asymptomatic=record.asymptomatic,
        synthetic=record.synthetic,
        rejected=record.rejected,
    )


def _extent(record: Record) -> tuple[int, int] | None:
    points: Iterable[tuple[float, float]] = [point for item in record.items for point in item.points]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return round(max(xs) - min(xs)), round(max(ys) - min(ys))
