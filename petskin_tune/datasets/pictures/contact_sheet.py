"""Images with their masks, class by class, for a person to look at: a PNG, or an HTML file that holds its pictures."""

from __future__ import annotations

import base64
import html
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from petskin_tune.datasets import layout
from petskin_tune.datasets.labels.rows import label_path, label_rows
from petskin_tune.datasets.names import told_apart
from petskin_tune.datasets.pictures.reading import BadPicture, open_picture
from petskin_tune.datasets.pictures.rendering import draft
from petskin_tune.datasets.stratify import seeded
from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.atomic import replacing
from petskin_tune.files.paths import require_folder, resolved, typed
from petskin_tune.printable import printable

TILE = 240  # pixels: the box that an image is fitted into
_CAPTION = 16  # pixels below a tile
_HEADING = 26  # pixels above a class
_GAP = 6  # pixels between tiles
_COLUMNS = 6
_BACKGROUND = "background"
_UNREADABLE = "unreadable labels"
_PAPER = (250, 250, 250)
_INK = (40, 40, 40)
_COLOURS = ((230, 60, 50), (40, 130, 230), (60, 170, 80), (240, 160, 30), (150, 80, 200), (0, 170, 170), (220, 80, 160))


@dataclass(frozen=True)
class _Tile:
    name: str
    picture: Image.Image


def require_drawable(target: Path) -> None:
    """Refuse a file that :func:`contact_sheet` cannot write.

    Raises:
        UsageError: its suffix is another one, or its folder is not there.
    """
    if target.suffix.lower() not in (".png", ".html"):
        raise UsageError(f"The contact sheet {target.name} must end in .png or .html.")
    require_folder(target)


def contact_sheet(data_yaml: Path, target: Path, *, per_class: int = 12, seed: int = 0) -> Path:
    """Draw some images of every class, and of the background, with what their labels outline.

    Args:
        data_yaml: the data set, as :func:`petskin_tune.datasets.source.prepare` returns it.
        target: the file to write, .png or .html.
        per_class: images a class; all where there are fewer.
        seed: another seed shows other images.

    Raises:
        UsageError: see :func:`require_drawable`.
    """
    require_drawable(target)
    data_set = layout.read(data_yaml)
    sections = {
        heading: [_tile(data_set, image) for image in images]
        for heading, images in _chosen(data_set, per_class, seed).items()
    }
    content = _as_html(sections) if target.suffix.lower() == ".html" else _as_png(sections)
    with replacing(resolved(typed(target)), durable=False) as file:
        file.write(printable(content).encode() if isinstance(content, str) else content)
    return target


def _chosen(data_set: layout.DataSet, per_class: int, seed: int) -> Mapping[str, Sequence[Path]]:
    images_with: defaultdict[str, list[Path]] = defaultdict(list)
    images = {image: layout.image_name(data_set, image) for split in data_set.images.values() for image in split}
    for image in sorted(images, key=lambda image: seeded(seed, images[image])):
        for heading in _headings(data_set, image):
            if len(images_with[heading]) < per_class:
                images_with[heading].append(image)
    headings = (*told_apart(data_set.names), _BACKGROUND, _UNREADABLE)
    return {heading: images_with[heading] for heading in headings if images_with[heading]}


def _headings(data_set: layout.DataSet, image: Path) -> Sequence[str]:
    """The sections of the sheet that an image belongs to."""
    rows = _rows(image)
    if rows is None:
        return [_UNREADABLE]
    numbers = {number for number, _ in rows}
    names = told_apart(data_set.names)
    return [names[number] for number in numbers if 0 <= number < len(names)] or [_BACKGROUND]


def _rows(image: Path) -> Sequence[tuple[int, list[float]]] | None:
    """The rows of an image's label file; None where it is unreadable."""
    try:
        return label_rows(label_path(image))
    except UsageError:
        return None


def _tile(data_set: layout.DataSet, image: Path) -> _Tile:
    name = printable(layout.image_name(data_set, image).removeprefix("images/"))
    try:
        with regular.opened(image, regular.LARGEST_PICTURE) as file:
            picture = draft(open_picture(file, image.suffix), (2 * TILE, 2 * TILE))
    except (BadPicture, OSError, ValueError):
        return _Tile(f"{name} (damaged)", Image.new("RGB", (TILE, TILE), _INK))
    scale = TILE / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    overlay = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(overlay)
    for number, values in _rows(image) or ():
        corners = [(x * picture.width, y * picture.height) for x, y in zip(values[::2], values[1::2], strict=False)]
        if len(corners) > 2:
            colour = _COLOURS[number % len(_COLOURS)]
            draw.polygon(corners, fill=(*colour, 70))
            draw.line([*corners, corners[0]], fill=(*colour, 255), width=2)
    picture.paste(overlay, mask=overlay)
    return _Tile(name, picture)


def _as_png(sections: Mapping[str, Sequence[_Tile]]) -> bytes:
    rows = [
        (heading if start == 0 else "", tiles[start : start + _COLUMNS])
        for heading, tiles in sections.items()
        for start in range(0, len(tiles), _COLUMNS)
    ]
    heights = [
        max(tile.picture.height for tile in row) + _CAPTION + (_HEADING if heading else 0) for heading, row in rows
    ]
    sheet = Image.new("RGB", (_COLUMNS * (TILE + _GAP), sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (heading, row), height in zip(rows, heights, strict=True):
        if heading:
            draw.text((_GAP, top + _GAP), f"{heading} ({len(sections[heading])} shown)", fill=_INK, font_size=16)
        for column, tile in enumerate(row):
            left, bottom = column * (TILE + _GAP), top + height - _CAPTION
            sheet.paste(tile.picture, (left, bottom - tile.picture.height))
            draw.text((left, bottom), tile.name[-40:], fill=_INK, font_size=10)
        top += height
    return _encoded(sheet, "PNG")


def _as_html(sections: Mapping[str, Sequence[_Tile]]) -> str:
    parts = [
        "<!doctype html><meta charset=utf-8><title>Contact sheet</title>"
        "<style>body{font-family:sans-serif;background:#fafafa;color:#282828}figure{display:inline-block;margin:4px;"
        "vertical-align:top}figcaption{font-size:10px;max-width:240px;overflow-wrap:anywhere}</style>"
    ]
    for heading, tiles in sections.items():
        parts.append(f"<h2>{html.escape(heading)} ({len(tiles)} shown)</h2>")
        for tile in tiles:
            name = html.escape(tile.name, quote=True)
            data = base64.b64encode(_encoded(tile.picture, "JPEG")).decode()
            picture = f'<img alt="{name}" src="data:image/jpeg;base64,{data}">'
            parts.append(f"<figure>{picture}<figcaption>{name}</figcaption></figure>")
    return "\n".join(parts) + "\n"


def _encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()
