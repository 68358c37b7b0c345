"""How many columns of a terminal a text takes, and text made to fit them: a Hangul syllable takes two, an accent none.

Widths are those of Unicode Standard Annex 11 (East Asian Width), as terminals have them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

CUT = "…"
_NO_COLUMN = ("Mn", "Me", "Cf")  # categories of what is drawn onto the character before


def width(text: str) -> int:
    """The columns that ``text`` takes; it holds no control characters."""
    if text.isascii():
        return len(text)
    return sum(_width_of(sign) for sign in text)


def _width_of(sign: str) -> int:
    if unicodedata.category(sign) in _NO_COLUMN or "\u1160" <= sign <= "\u11ff":  # a vowel or a final of a syllable
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """``text`` with spaces behind it (or before it: ``right``) up to ``columns``."""
    spaces = " " * (columns - width(text))
    return spaces + text if right else text + spaces


def cut(text: str, columns: int) -> str:
    """``text``, or its beginning and its end around a ``…`` where it takes more than ``columns``.

    Of names such as ``host-12345`` and ``optimizer-with-a-long-name`` both ends tell one from the other.
    """
    if width(text) <= columns:
        return text
    if columns <= 1:
        return CUT[:columns]
    end = _beginning(text[::-1], (columns - 1) // 3)[::-1]
    return _beginning(text, columns - 1 - width(end)) + CUT + end


def _beginning(text: str, columns: int) -> str:
    taken = 0
    for index, sign in enumerate(text):
        taken += _width_of(sign)
        if taken > columns:
            return text[:index]
    return text


def wrapped(text: str, columns: int, *, first: str = "", then: str = "") -> list[str]:
    """``text`` in lines of at most ``columns``, broken between words; a longer word has a line of its own.

    Args:
        text: blanks and line feeds in it count as one blank.
        columns: of a line, indentation included.
        first: what the first line begins with.
        then: what the others begin with.
    """
    lines: list[str] = []
    indent, held = first, ""
    for word in text.split():
        if held and width(f"{indent}{held} {word}") > columns:
            lines.append(indent + held)
            indent, held = then, ""
        held = f"{held} {word}" if held else word
    return [*lines, indent + held] if held else lines


def table(rows: Sequence[Sequence[str]], *, right: Iterable[int] = (), gap: str = "  ") -> list[str]:
    """``rows`` in columns as wide as their widest cell.

    Args:
        rows: the header first; all of one length.
        right: the indices of columns whose cells end at the right, as numbers do.
        gap: between two columns.
    """
    widths = [max(width(row[index]) for row in rows) for index in range(len(rows[0]))]
    at_the_right = set(right)
    return [
        gap.join(padded(cell, widths[index], right=index in at_the_right) for index, cell in enumerate(row)).rstrip()
        for row in rows
    ]
