"""Text on pictures in any script, Korean above all: a class's name is never a row of empty boxes.

OpenCV 5 brings letters of all common scripts along. With an older one a font of this machine is used that has all
letters of a text; where there is none, Hangul is written in Latin letters (Revised Romanization, letter by letter) and
what is left as ``?``. Text comes as a mask, so that it can be turned and coloured.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from petskin_tune.printable import one_line

_HEIGHT, _BASELINE = 1.35, 1.02  # of a line, in sizes of the font
_WEIGHT = 500  # of strokes: 400 is thin on a photograph
_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
_LIKELY = ("nanum", "cjk", "noto", "malgun", "gothic", "unifont", "wqy", "fallback", "")  # in names of files, in turn
_MISSING = "\U0010fffe"  # a character that no font has
# Of Hangul, in the order of Unicode; split at single blanks, for some are written by no letter at all.
_INITIALS, _VOWELS, _FINALS = (
    letters.split(" ")
    for letters in (
        "g kk n d tt r m b pp s ss  j jj ch k t p h",
        "a ae ya yae eo e yeo ye o wa wae oe yo u wo we wi yu eu ui i",
        " k k k n n n t l k m l l l p l m p p t t ng t t k t p t",
    )
)


@lru_cache(maxsize=512)
def mask(text: str, size: int) -> np.ndarray:
    """Text as a mask (height, width) of uint8, 255 where it is; a line of it, whatever it says.

    Args:
        text: anybody's.
        size: of the letters, in pixels.
    """
    line = unicodedata.normalize("NFC", one_line(text)) or " "
    return _with_opencv(line, size) if hasattr(cv2, "FontFace") else _with_pillow(line, size)


def width(text: str, size: int) -> int:
    """How many pixels a line of text takes."""
    return int(mask(text, size).shape[1])


def _with_opencv(line: str, size: int) -> np.ndarray:
    face = cv2.FontFace("sans")
    height, baseline = round(_HEIGHT * size), round(_BASELINE * size)
    room = (4096, height)
    left, _, wide, _ = cv2.getTextSize(room, line, (0, 0), face, size, _WEIGHT)
    canvas = np.zeros((height, max(1, left + wide + 2), 3), np.uint8)
    cv2.putText(canvas, line, (1, baseline), (255, 255, 255), face, size, _WEIGHT)
    return canvas[..., 0].copy()


# ---- with an older OpenCV --------------------------------------------------------------------------------------------


def _with_pillow(line: str, size: int) -> np.ndarray:
    font, line = _written(line, size)
    canvas = Image.new("L", (max(1, round(font.getlength(line)) + 2), round(_HEIGHT * size)))
    ImageDraw.Draw(canvas).text((1, round(_BASELINE * size)), line, fill=255, font=font, anchor="ls")
    return np.asarray(canvas)


def _written(line: str, size: int) -> tuple[Any, str]:
    """A font, and the line in letters that it has."""
    needed = frozenset(line)
    path = next((path for path in _fonts() if _has(path, needed)), None)
    if path is not None:
        return ImageFont.truetype(path, size), line
    latin = romanised(line)
    path = next(_fonts(), None)
    if path is None:
        return ImageFont.load_default(size), latin.encode("ascii", "replace").decode()
    return ImageFont.truetype(path, size), "".join(sign if _has(path, frozenset(sign)) else "?" for sign in latin)


@cache
def _has(path: str, needed: frozenset[str]) -> bool:
    """Whether a font has all of these letters, told by what it draws for one that nobody has."""
    try:
        font = ImageFont.truetype(path, 16)
        box = bytes(font.getmask(_MISSING))
        return all(sign.isspace() or bytes(font.getmask(sign)) != box for sign in needed)
    except (OSError, ValueError):
        return False


def _fonts() -> Iterator[str]:
    """Files of fonts: the one that comes with matplotlib, on which Ultralytics depends, then those of this machine."""
    matplotlib = find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        own = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if own.is_file():
            yield str(own)
    yield from _of_this_machine()


@cache
def _of_this_machine() -> tuple[str, ...]:
    found = [
        path
        for folder in _FOLDERS
        for path in Path(folder).expanduser().rglob("*")
        if path.suffix.lower() in (".ttf", ".otf", ".ttc") and path.is_file()
    ]
    place = {path: next(at for at, word in enumerate(_LIKELY) if word in path.name.lower()) for path in found}
    return tuple(str(path) for path in sorted(found, key=lambda path: (place[path], path)))


def romanised(text: str) -> str:
    """Hangul in Latin letters: ``구진`` becomes ``gujin``; all else as it is."""
    return "".join(_syllable(ord(sign) - 0xAC00, sign) for sign in text)


def _syllable(index: int, sign: str) -> str:
    """A syllable of Unicode's block: 19 initials by 21 vowels by 28 finals (The Unicode Standard, 3.12)."""
    if not 0 <= index < 19 * 21 * 28:
        return sign
    initial, vowel, final = index // 588, index // 28 % 21, index % 28
    return _INITIALS[initial] + _VOWELS[vowel] + _FINALS[final]
