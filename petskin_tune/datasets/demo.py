"""A data set that needs no download: lesion-like blobs on fur-like texture, the same bytes on every machine.

Two workers on two machines each make their own copy and must agree on its fingerprint, so nothing here may depend on a
library's version: images are BMP (no compression), numbers come from numpy's frozen ``RandomState``, and the drawing is
plain array arithmetic.

How learnable it is is said in ``studies/demo.yaml``. With the default ``nbs=64`` gradients are accumulated over half an
epoch, and nothing is learned in eight of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from petskin_tune.errors import UsageError
from petskin_tune.files.atomic import claim, only_one, write_whole
from petskin_tune.files.paths import filling, resolved, typed

NAMES = ("papule", "scale", "ulcer")
TRAIN, VAL = 128, 48  # images
_RECIPE = "demo.json"  # what a folder is being filled with; data.yaml comes last
_CORNERS = 28  # of a lesion's outline
_MOST_IMAGES = 99_999  # of a split: their names have five digits
_LARGEST_SIDE = 4096  # pixels


@dataclass(frozen=True)
class Recipe:
    """What decides every byte of a demo data set. ``train`` and ``val`` count images, ``imgsz`` is their side (px)."""

    train: int
    val: int
    imgsz: int
    seed: int


@dataclass(frozen=True)
class _Look:
    colour: tuple[int, int, int]  # RGB of the middle
    rim: tuple[int, int, int]  # RGB of the edge
    radius: tuple[float, float]  # share of the image's side
    ragged: float  # how far the outline leaves a circle
    speckle: float  # grey levels of noise inside


_LOOKS = (
    _Look((205, 60, 55), (225, 120, 110), (0.08, 0.13), 0.05, 6),
    _Look((238, 232, 205), (215, 205, 170), (0.11, 0.20), 0.22, 26),
    _Look((105, 15, 40), (230, 105, 120), (0.12, 0.20), 0.12, 10),
)


def make(dest: Path, train: int = TRAIN, val: int = VAL, imgsz: int = 64, seed: int = 0) -> Path:
    """Make the demo data set in ``dest``, or complete it, and return its ``data.yaml``.

    Killed at any instant and called again it ends with the same bytes; files that are there are not written again.

    Args:
        dest: folder of the data set.
        train: number of training images.
        val: number of validation images.
        imgsz: side of the square images in pixels, at least 32.
        seed: another seed gives other images.

    Raises:
        UsageError: a number is too small or too large, or ``dest`` holds something else.
    """
    if not (1 <= min(train, val) <= max(train, val) <= _MOST_IMAGES and 32 <= imgsz <= _LARGEST_SIDE):
        raise UsageError(
            f"A demo data set needs at least one image in train and in val and at most {_MOST_IMAGES}, of 32 to "
            f"{_LARGEST_SIDE} pixels."
        )
    recipe = Recipe(train, val, imgsz, seed)
    dest = resolved(typed(dest))
    with filling(dest), only_one(dest):
        claim(dest, _RECIPE, asdict(recipe))
        for split, count in (("train", train), ("val", val)):
            for number in range(count):
                _make_sample(dest, split, number, recipe)
        data_yaml = dest / "data.yaml"
        if not data_yaml.exists():
            content = {"train": "images/train", "val": "images/val", "names": dict(enumerate(NAMES))}
            write_whole(data_yaml, yaml.safe_dump(content, sort_keys=False))
    return data_yaml


def _make_sample(dest: Path, split: str, number: int, recipe: Recipe) -> None:
    image_path = dest / "images" / split / f"{split}_{number:05d}.bmp"
    label = dest / "labels" / split / f"{split}_{number:05d}.txt"
    if image_path.exists() and label.exists():
        return
    draw = np.random.RandomState([recipe.seed % 2**32, ("train", "val").index(split), number])
    picture = _fur(draw, recipe.imgsz)
    rows = []
    taken = np.zeros((recipe.imgsz, recipe.imgsz), bool)
    for lesion in range(draw.randint(1, 4)):
        # The first lesion's class goes round, so that even a handful of images has every class.
        kind = number % len(NAMES) if lesion == 0 else draw.randint(len(NAMES))
        outline = _add_lesion(draw, picture, taken, _LOOKS[kind])
        if outline is not None:
            rows.append(" ".join([str(kind), *(f"{value:.6f}" for value in outline.ravel())]))
    write_whole(label, "\n".join(rows) + "\n")
    _write_bmp(image_path, picture)


def _fur(draw: np.random.RandomState, side: int) -> np.ndarray:
    """Hairs: white noise smeared along one direction, on a coat of one colour. Returns float RGB (side, side, 3)."""
    noise = draw.randint(0, 256, (side, side)).astype(np.float64)
    angle = draw.uniform(0, np.pi)
    length = max(6, side // 6)
    smeared = np.zeros_like(noise)
    for step in range(length):
        smeared += np.roll(noise, (round(step * np.sin(angle)), round(step * np.cos(angle))), (0, 1))
    hairs = (smeared / length - 127.5) * 1.4
    coat = np.array([(150, 112, 74), (96, 72, 52), (172, 150, 120), (120, 116, 112)][draw.randint(4)], float)
    light = draw.uniform(0.85, 1.1)
    return coat * light + hairs[..., None]


def _add_lesion(draw: np.random.RandomState, picture: np.ndarray, taken: np.ndarray, look: _Look) -> np.ndarray | None:
    """Paint one lesion where there is room. Returns its outline, (corners, 2) x and y in 0..1, or None without room."""
    side = len(picture)
    radius = draw.uniform(*look.radius) * side
    reach = radius * (1 + 2 * look.ragged)
    waves = [(k, draw.uniform(0, look.ragged), draw.uniform(0, 2 * np.pi)) for k in (2, 3, 5)]
    speckle = draw.normal(0, look.speckle, (side, side, 1))
    for _ in range(20):
        x, y = draw.uniform(reach, side - reach, 2)
        rows, columns = np.mgrid[:side, :side] + 0.5
        angle = np.arctan2(rows - y, columns - x)
        edge = radius * (1 + sum(size * np.cos(k * angle + phase) for k, size, phase in waves))
        depth = (edge - np.hypot(rows - y, columns - x)) / radius  # 1 in the middle, 0 at the edge, negative outside
        inside = depth > 0
        if not (inside & taken).any():
            break
    else:
        return None
    taken |= depth > -0.3
    blend = np.clip(depth / 0.12 + 0.5, 0, 1)[..., None]
    core = np.clip(depth / 0.45, 0, 1)[..., None]
    paint = np.array(look.rim) * (1 - core) + np.array(look.colour) * core + speckle
    picture[:] = picture * (1 - blend) + paint * blend
    corners = np.arange(_CORNERS) * (2 * np.pi / _CORNERS)
    radii = radius * (1 + sum(size * np.cos(k * corners + phase) for k, size, phase in waves))
    outline = np.stack([x + radii * np.cos(corners), y + radii * np.sin(corners)], 1) / side
    return outline.clip(0, 1)


def _write_bmp(path: Path, picture: np.ndarray) -> None:
    buffer = BytesIO()
    Image.fromarray(picture.clip(0, 255).round().astype(np.uint8)).save(buffer, "BMP")
    write_whole(path, buffer.getvalue())
