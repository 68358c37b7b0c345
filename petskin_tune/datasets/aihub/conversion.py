"""Chosen images to a pool of finished pictures and label files, in several processes, resumable at any image."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from petskin_tune import faults
from petskin_tune.datasets.aihub import outlines
from petskin_tune.datasets.aihub.members import Listing, Member, MemberReader, Unreadable
from petskin_tune.datasets.aihub.options import Options
from petskin_tune.datasets.aihub.records import Record, Unusable, parse
from petskin_tune.datasets.aihub.selection import Choice
from petskin_tune.datasets.parallel import batches, spread
from petskin_tune.datasets.pictures.reading import BadPicture, Picture, open_picture
from petskin_tune.datasets.pictures.rendering import Window, render, written_size
from petskin_tune.datasets.stratify import seeded
from petskin_tune.files.atomic import write_whole

_BATCH = 8  # images per message between processes
_SMALLEST_WINDOW = 64.0  # pixels a side of what --crop cuts
_FOREIGN = 0.1  # share of the image's size beyond which an outline was drawn on a picture of another size


@dataclass(frozen=True, slots=True)
class Task:
    """One image to convert; ``id`` names its files in the pool."""

    id: str
    label: Member
    image: Member
    name: str
    background: bool
    window: tuple[int, int] | None


Counted = tuple[tuple[str, int], ...]  # sorted by name


@dataclass(frozen=True, slots=True)
class Converted:
    """What became of a task: dropped for a reason, or two files in the pool. There may be half a million of them."""

    id: str
    reason: str | None = None
    digest: str = ""  # of the source image
    written: str = ""  # digest of the picture as written: others may become the same
    rows: str = ""  # digest of the label rows
    objects: Counted = ()  # written, by class code
    found: int = 0  # items in the label file; found = objects + dropped
    dropped: Counted = ()  # items, by reason
    notes: Counted = ()


def task_id(choice: Choice, listing: Listing, options: Options) -> str:
    """An id of an image and of what is made of it, whatever the seed and the other images are."""
    label, image = listing.members[choice.entry.label], listing.members[choice.entry.image]
    made = choice.window and (choice.window, options.seed)  # where a window lies is drawn; all else is the options'
    return hashlib.sha256(repr((label.spelling, image.spelling, made)).encode()).hexdigest()[:24]


def _task(choice: Choice, task_id: str, listing: Listing) -> Task:
    label, image = listing.members[choice.entry.label], listing.members[choice.entry.image]
    return Task(task_id, label, image, choice.name, choice.background, choice.window)


def pool_file(pool: Path, task_id: str, suffix: str) -> Path:
    """Where a task's picture (.jpg) or label file (.txt) waits for its place."""
    return pool / task_id[:2] / (task_id + suffix)


def convert(
    choices: Sequence[Choice],
    listing: Listing,
    options: Options,
    work: Path,
    jobs: int,
    progress: Callable[[int, int], None],
) -> list[Converted]:
    """Convert what the journal in ``work`` does not hold yet, and return what became of every choice, in their order.

    An image enters the journal once its files are whole; killed in between, it is converted again with the same result.
    """
    work.mkdir(exist_ok=True)
    journal = work / "converted.jsonl"
    ids = {task_id(choice, listing, options): choice for choice in choices}
    shared: dict[Any, Any] = {}
    done = {one.id: _compact(one, shared) for one in _read_journal(journal) if one.id in ids}
    rest = (_task(choice, name, listing) for name, choice in ids.items() if name not in done)
    progress(len(done), len(ids))
    with open(journal, "a", encoding="utf-8") as file:
        for answers in spread(
            _convert_batch, batches(rest, _BATCH), jobs, _prepare, (listing.containers, options, work / "pool")
        ):
            for converted in answers:
                done[converted.id] = _compact(converted, shared)
                file.write(json.dumps(asdict(converted), ensure_ascii=False) + "\n")
                faults.reach("image-converted")
            file.flush()
            progress(len(done), len(ids))
    return [done[name] for name in ids]


def _read_journal(journal: Path) -> list[Converted]:
    """The journal's whole lines; a last one that was cut short by a death is cut off.

    A line that a power cut has left without its content is no line: its image is converted again.
    """
    if not journal.exists():
        return []
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        write_whole(journal, whole)
    return [found for line in whole.splitlines() if (found := _from_journal(line)) is not None]


def _from_journal(line: bytes) -> Converted | None:
    try:
        entry = json.loads(line)
        counted = {key: tuple((name, number) for name, number in entry[key]) for key in ("objects", "dropped", "notes")}
        return Converted(**{**entry, **counted})
    except (ValueError, KeyError, TypeError):
        return None


def _compact(converted: Converted, shared: dict[Any, Any]) -> Converted:
    """The same, with one copy in memory of what many have in common."""
    common = {key: getattr(converted, key) for key in ("reason", "objects", "dropped", "notes")}
    return replace(converted, **{key: shared.setdefault(value, value) for key, value in common.items()})


@dataclass(frozen=True)
class _Workshop:
    """What a process needs for every image."""

    reader: MemberReader
    options: Options
    pool: Path


_workshop: _Workshop


def _prepare(containers: tuple[Path, ...], options: Options, pool: Path) -> None:
    global _workshop
    _workshop = _Workshop(MemberReader(containers), options, pool)


def _convert_batch(tasks: list[Task]) -> list[Converted]:
    return [_convert(task, _workshop) for task in tasks]


def _convert(task: Task, workshop: _Workshop) -> Converted:
    try:
        record = parse(workshop.reader.read(task.label), task.label.name)
        raw = workshop.reader.read(task.image)
    except (Unreadable, Unusable) as error:
        return Converted(task.id, reason=f"image: {error}")
    try:
        return _converted(task, record, raw, workshop)
    except BadPicture as error:
        return Converted(task.id, reason=f"image: {error}")


def _converted(task: Task, record: Record, raw: bytes, workshop: _Workshop) -> Converted:
    options = workshop.options
    picture = open_picture(raw, Path(task.image.name).suffix)
    if _drawn_elsewhere(record, picture):
        return Converted(task.id, reason="outlines drawn on a picture of another size")
    turned = _drawn_as_stored(record, picture)
    items = [replace(item, points=picture.shown(item.points)) if turned else item for item in record.items]
    found = outlines.clean(items, options.codes, *picture.size, boxes=options.boxes)
    if not task.background and not found.shapes:
        return Converted(task.id, reason=f"no object left: {_most(found.dropped)}")
    window = _window(task, found.bounds(), picture.size, options)
    size = written_size(window, options.imgsz)
    scale = max(size) / max(window[2] - window[0], window[3] - window[1])
    written = outlines.label_rows(found.shapes, options.codes, window, scale, options.min_area)
    if not task.background and not written.rows:
        return Converted(task.id, reason="no object left: smaller than --min-area")
    if written.too_small:
        found.dropped["smaller than --min-area"] += written.too_small
    if turned:
        found.notes["outlines turned with the photograph, as its EXIF says"] += 1
    elif record.stated_size not in (None, picture.size):
        found.notes["image of another size than its label file states"] += 1
    text = "".join(f"{row}\n" for row in written.rows)
    content = render(picture, window, options.imgsz)
    write_whole(pool_file(workshop.pool, task.id, ".jpg"), content)
    write_whole(pool_file(workshop.pool, task.id, ".txt"), text)
    return Converted(
        id=task.id,
        digest=hashlib.sha256(raw).hexdigest()[:32],
        written=hashlib.sha256(content).hexdigest()[:32],
        rows=hashlib.sha256(text.encode()).hexdigest()[:16],
        objects=_counted(written.objects),
        found=found.found,
        dropped=_counted(found.dropped),
        notes=_counted(found.notes),
    )


def _counted(counts: Mapping[str, int]) -> Counted:
    return tuple(sorted(counts.items()))


def _most(dropped: Mapping[str, int]) -> str:
    """The commonest reason, the first by name among equals; a box's only where no outline has one."""
    of_boxes = (outlines.BOX_OF_OUTLINE, outlines.BOX_ONLY)
    return min(dropped, key=lambda reason: (reason in of_boxes, -dropped[reason], reason), default="none in the file")


def _drawn_as_stored(record: Record, picture: Picture) -> bool:
    """Whether outlines were drawn on the picture as it is stored, before EXIF turns it: its size is the one stated."""
    return picture.size != picture.stored == record.stated_size


def _drawn_elsewhere(record: Record, picture: Picture) -> bool:
    """Whether outlines reach far beyond the picture, though they fit the size that the label file states."""
    as_stored = _drawn_as_stored(record, picture)
    width, height = picture.stored if as_stored else picture.size
    if record.stated_size is None or record.stated_size == picture.size:
        return False
    points = [point for item in record.items for point in item.points]
    far = any(x > width * (1 + _FOREIGN) or y > height * (1 + _FOREIGN) for x, y in points)
    return far and (as_stored or all(x <= record.stated_size[0] and y <= record.stated_size[1] for x, y in points))


def _window(task: Task, bounds: Window | None, size: tuple[int, int], options: Options) -> Window:
    """What is cut out, in whole pixels: everything, or the lesions and their margin, or what imitates them."""
    width, height = size
    if options.crop is None:
        return 0.0, 0.0, float(width), float(height)
    if bounds is not None:
        left, top, right, bottom = bounds
    elif task.window is not None:
        draw = seeded(options.seed, task.name)
        across, down = (min(extent, side) for extent, side in zip(task.window, size, strict=True))
        left = int.from_bytes(draw[:4], "big") / 2**32 * (width - across)
        top = int.from_bytes(draw[4:8], "big") / 2**32 * (height - down)
        right, bottom = left + across, top + down
    else:
        return 0.0, 0.0, float(width), float(height)
    margin = options.crop * max(right - left, bottom - top)
    left, right = _stretched(left - margin, right + margin, width)
    top, bottom = _stretched(top - margin, bottom + margin, height)
    return left, top, right, bottom


def _stretched(low: float, high: float, limit: int) -> tuple[float, float]:
    """At least the smallest window, inside 0..limit, in whole pixels."""
    lack = max(0.0, _SMALLEST_WINDOW - (high - low))
    low, high = low - lack / 2, high + lack / 2
    if lack:
        shift = max(0.0, -low) + min(0.0, limit - high)
        low, high = low + shift, high + shift
    return max(0.0, float(math.floor(low))), min(float(limit), float(math.ceil(high)))
