"""One label file of AI-Hub 561, read as it is: the schema that nobody documents, with all its habits.

The class of an object is its item's own label; ``metaData.lesions`` speaks for the image and for items that say
nothing. The folder speaks for nothing: asymptomatic images lie in lesion folders, cats in dog folders.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from petskin_tune.datasets.aihub.taxonomy import ASYMPTOMATIC, ASYMPTOMATIC_KOREAN, SPECIES, class_code

Point = tuple[float, float]  # x, y in pixels of the image as it is shown (EXIF rotation applied)

_COORDINATE = re.compile(r"([xy])\s*(\d+)$", re.IGNORECASE)
_RESOLUTION = re.compile(r"(\d{1,6})\s*[xX×*]\s*(\d{1,6})")
_FARTHEST = 1e6  # pixels; no camera has as many
_SPECIES_IN_NAME = re.compile(r"IMG_([DC])_", re.IGNORECASE)


class Unusable(Exception):
    """A label file cannot be used; the text is the reason for the report."""


@dataclass(frozen=True)
class Item:
    """One object as annotated: an outline or a box, or why it is neither."""

    code: str | None  # A1 … A7; None: neither it nor the image names a class
    kind: str  # "polygon" or "box"
    points: tuple[Point, ...]  # a box has its four corners
    problem: str | None = None  # reason for the report; then there are no points


@dataclass(frozen=True)
class Record:
    """One label file."""

    species: str  # "D", "C" or "" where nothing says
    code: str | None  # the image's class by its metadata
    asymptomatic: bool
    synthetic: bool
    rejected: bool  # by AI-Hub's own inspection
    group: str  # species, breed, age, gender, date: images of one animal, as near as the data tells
    stated_size: tuple[int, int] | None  # width, height in pixels
    items: tuple[Item, ...]


def parse(raw: bytes, file_name: str) -> Record:
    """Read a label file.

    Raises:
        Unusable: it is no text, no JSON, or not of this schema.
    """
    content = _load(raw)
    meta = _composed_keys(content.get("metaData"))
    code = class_code(meta.get("lesions"))
    by_path = class_code(meta.get("Path")) == ASYMPTOMATIC or meta.get("Path") == ASYMPTOMATIC_KOREAN
    return Record(
        species=_species(meta, file_name),
        code=code,
        asymptomatic=code == ASYMPTOMATIC or (code is None and by_path),
        synthetic=_yes(meta.get("합성유무")),
        rejected=_yes(content.get("inspRejectYn")),
        group=_group(meta, _species(meta, file_name)),
        stated_size=_resolution(meta.get("resolution")),
        items=tuple(_items(content.get("labelingInfo"), code)),
    )


def _load(raw: bytes) -> dict[str, Any]:
    try:
        text = _text(raw)
        content = json.loads(text)
    except ValueError as error:
        raise Unusable("broken JSON") from error
    except RecursionError as error:
        raise Unusable("broken JSON") from error
    if not isinstance(content, dict) or not isinstance(content.get("metaData"), dict):
        raise Unusable("JSON without metaData")
    return content


def _text(raw: bytes) -> str:
    for encoding in ("utf-8-sig", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Unusable("text in an unknown encoding")


def _composed_keys(meta: Any) -> dict[str, Any]:
    composed: dict[str, Any] = {}
    for key, value in meta.items():
        text = unicodedata.normalize("NFC", value).strip() if isinstance(value, str) else value
        composed[unicodedata.normalize("NFC", key).strip()] = text
    return composed


def _yes(value: Any) -> bool:
    return isinstance(value, str) and value.strip().upper() == "Y"


def _species(meta: Mapping[str, Any], file_name: str) -> str:
    stated = str(meta.get("species") or "").upper()
    if stated in SPECIES:
        return stated
    found = _SPECIES_IN_NAME.match(file_name)
    return found.group(1).upper() if found else ""


def _group(meta: Mapping[str, Any], species: str) -> str:
    age = meta.get("age")
    if isinstance(age, float) and age.is_integer():
        age = int(age)
    rest = (str(value if value is not None else "?") for value in (meta.get("breed"), age, meta.get("gender")))
    group = " ".join([species or "?", *rest, str(meta.get("date") or "?")])
    return group.encode(errors="replace").decode()  # JSON can hold half a character (\ud800), which no file can


def _resolution(stated: Any) -> tuple[int, int] | None:
    found = _RESOLUTION.fullmatch(stated) if isinstance(stated, str) else None
    return (int(found.group(1)), int(found.group(2))) if found else None


def _items(labelling: Any, code: str | None) -> Iterable[Item]:
    if labelling is None:
        return
    for entry in labelling if isinstance(labelling, list) else [labelling]:
        found = False
        for kind in ("polygon", "box"):
            shape = entry.get(kind) if isinstance(entry, dict) else None
            if isinstance(shape, dict):
                found = True
                yield from _shapes(kind, shape, code)
        if not found:
            yield Item(None, "polygon", (), "neither outline nor box")


def _shapes(kind: str, shape: Mapping[str, Any], code: str | None) -> Iterable[Item]:
    own = class_code(shape.get("label")) or code
    locations = shape.get("location")
    if isinstance(locations, dict):
        locations = [locations]
    if not isinstance(locations, list) or not locations:
        yield Item(own, kind, (), "no coordinates")
        return
    for location in locations:
        try:
            points = _outline(location) if kind == "polygon" else _corners(location)
        except (TypeError, ValueError, OverflowError, AttributeError, KeyError):
            yield Item(own, kind, (), "broken coordinates")
            continue
        yield Item(
            own, kind, points, None if points else ("no coordinates" if kind == "polygon" else "box without size")
        )


def _outline(location: Mapping[str, Any]) -> tuple[Point, ...]:
    axes: dict[str, dict[int, float]] = {"x": {}, "y": {}}
    for key, value in location.items():
        if found := _COORDINATE.match(key):
            axes[found.group(1).lower()][int(found.group(2))] = _number(value)
    if axes["x"].keys() != axes["y"].keys():
        raise ValueError("a coordinate without its partner")
    return tuple((axes["x"][number], axes["y"][number]) for number in sorted(axes["x"]))


def _corners(location: Mapping[str, Any]) -> tuple[Point, ...]:
    x, y, width, height = (_number(location[key]) for key in ("x", "y", "width", "height"))
    if width <= 0 or height <= 0:
        return ()
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("not a number")
    number = float(value)
    if not math.isfinite(number) or abs(number) > _FARTHEST:
        raise ValueError("no place in a picture")
    return number
