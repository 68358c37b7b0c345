"""From annotated outlines to the polygons that are written: valid, inside the picture, none lost without a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import shapely
from shapely import Polygon

from petskin_tune.datasets.aihub.records import Item, Point
from petskin_tune.datasets.aihub.taxonomy import ASYMPTOMATIC

Window = tuple[float, float, float, float]  # left, top, right, bottom in pixels

BOX_OF_OUTLINE = "box of an outline"  # the reason that loses nothing
BOX_ONLY = "box without an outline"

_SAME_OBJECT = 0.5  # intersection over union from which a box is the box of an outline


@dataclass(frozen=True)
class Shape:
    """One object: its class and its polygons, more than one where clipping or a repair cut it in pieces."""

    code: str
    parts: tuple[Polygon, ...]


@dataclass
class Outlines:
    """What is left of the items of one image, and what became of the others."""

    shapes: list[Shape] = field(default_factory=list)
    found: int = 0  # items looked at
    dropped: Counter[str] = field(default_factory=Counter)  # items, by reason; found = shapes + dropped
    notes: Counter[str] = field(default_factory=Counter)  # repairs of items that were kept

    def bounds(self) -> Window | None:
        """What all shapes together span."""
        if not self.shapes:
            return None
        left, top, right, bottom = shapely.total_bounds([part for shape in self.shapes for part in shape.parts])
        return float(left), float(top), float(right), float(bottom)


def clean(items: Sequence[Item], codes: Iterable[str], width: int, height: int, *, boxes: str) -> Outlines:
    """Turn the items of one image into clean polygons in its pixels.

    Args:
        items: as annotated.
        codes: classes asked for.
        width: of the image, in pixels; polygons are clipped to it.
        height: of the image, in pixels.
        boxes: what a box without an outline becomes: "drop" it, or "polygon" (its four corners).
    """
    result = Outlines(found=len(items))
    asked = frozenset(codes)
    frames: list[tuple[str | None, Window]] = []  # class and bounds of the outlines that are kept
    seen: set[tuple[str | None, tuple[Point, ...]]] = set()
    for item in sorted(items, key=lambda item: item.kind == "box"):  # outlines first, each kind in its order
        reason = _refusal(item, asked, frames, boxes) or ("the same outline twice" if _key(item) in seen else None)
        seen.add(_key(item))
        if reason is None:
            try:
                reason = _add(result, item, width, height)
            except shapely.GEOSException:
                reason = "outline beyond repair"
        if reason is not None:
            result.dropped[reason] += 1
        elif item.kind == "polygon":
            frames.append((item.code, _bounds(item.points)))
    return result


def _key(item: Item) -> tuple[str | None, tuple[Point, ...]]:
    return item.code, item.points


def _refusal(item: Item, asked: frozenset[str], frames: Sequence[tuple[str | None, Window]], boxes: str) -> str | None:
    if item.problem:
        return item.problem
    if item.code is None:
        return "no class"
    if item.code == ASYMPTOMATIC:
        return "labelled asymptomatic"
    if item.code not in asked:
        return "class not asked for"
    if item.kind == "polygon":
        return None
    if any(code == item.code and _overlap(_bounds(item.points), frame) for code, frame in frames):
        return BOX_OF_OUTLINE
    return BOX_ONLY if boxes == "drop" else None


def _add(result: Outlines, item: Item, width: int, height: int) -> str | None:
    """Add an item's polygons; returns the reason if nothing is left of it."""
    assert item.code is not None
    ring = _without_repeats(item.points)
    if len(ring) < 3:
        return "fewer than three points"
    polygon = Polygon(ring)
    parts = [polygon]
    if not polygon.is_valid:
        repaired = shapely.make_valid(polygon, method="structure")
        parts = _parts(repaired)
        if not parts:
            return "outline without an area"
        result.notes["self-intersection repaired"] += 1
    left, top, right, bottom = _bounds(ring)
    if left < 0 or top < 0 or right > width or bottom > height:
        frame = shapely.box(0, 0, width, height)
        parts = [piece for part in parts for piece in _parts(part.intersection(frame))]
        if not parts:
            return "outside the image"
        result.notes["clipped to the image"] += 1
    result.shapes.append(Shape(item.code, tuple(parts)))
    return None


def _without_repeats(points: Sequence[Point]) -> list[Point]:
    """The ring without points that repeat the one before, and without the closing one."""
    ring = [point for number, point in enumerate(points) if number == 0 or point != points[number - 1]]
    while len(ring) > 1 and ring[0] == ring[-1]:
        ring.pop()
    return ring


def _parts(geometry: shapely.Geometry) -> list[Polygon]:
    """The polygons in whatever an operation gave, without holes (YOLO's labels know none), in a fixed order."""
    pieces = [Polygon(piece.exterior) for piece in shapely.get_parts(geometry) if piece.geom_type == "Polygon"]
    return sorted((piece for piece in pieces if piece.area > 0), key=lambda piece: piece.bounds)


def _bounds(points: Sequence[Point]) -> Window:
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _overlap(one: Window, other: Window) -> bool:
    """Whether two frames show the same object."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return False
    areas = [(frame[2] - frame[0]) * (frame[3] - frame[1]) for frame in (one, other)]
    return width * height >= _SAME_OBJECT * (sum(areas) - width * height)


@dataclass(frozen=True)
class Rows:
    """The label file of one image, and what was too small for it."""

    rows: tuple[str, ...]
    objects: Counter[str]  # shapes written, by class code
    too_small: int  # shapes of which nothing was written


def label_rows(shapes: Sequence[Shape], codes: Sequence[str], window: Window, scale: float, min_area: float) -> Rows:
    """Write shapes as YOLO rows: class number, then x and y as shares of the window; one row a piece.

    Args:
        shapes: inside the image, in its pixels.
        codes: the classes in the order of their numbers.
        window: the part of the image that is written.
        scale: pixels written per pixel of the image.
        min_area: smaller pieces are left out, in square pixels as written.
    """
    frame = shapely.box(*window)
    rows: list[str] = []
    objects: Counter[str] = Counter()
    for shape in shapes:
        written = [
            f"{codes.index(shape.code)} {numbers}"
            for part in shape.parts
            for piece in ([part] if frame.covers(part) else _parts(part.intersection(frame)))
            if (numbers := _numbers(piece, window, min_area / scale**2))
        ]
        rows.extend(written)
        objects[shape.code] += bool(written)
    return Rows(tuple(rows), +objects, len(shapes) - objects.total())


def _numbers(piece: Polygon, window: Window, min_area: float) -> str:
    """A polygon's corners as text; empty if it is too small."""
    left, top, right, bottom = window
    ring = _without_repeats(
        [(_share(x, left, right), _share(y, top, bottom)) for x, y in shapely.get_coordinates(piece).tolist()]
    )
    if piece.area < min_area or len(ring) < 3:
        return ""
    return " ".join(f"{value:.6f}" for point in ring for value in point)


def _share(value: float, low: float, high: float) -> float:
    return round(min(max((value - low) / (high - low), 0.0), 1.0), 6)
