"""Text that came from elsewhere (a disk, a database, an archive), as it may reach a terminal, a page or a file.

File names are bytes. Python decodes them as UTF-8 and keeps every other byte as a lone surrogate (``surrogateescape``,
PEP 383), which no encoder takes. A name may also hold control characters, which a terminal obeys.
"""

from __future__ import annotations

import unicodedata

LONGEST_SENTENCE = 1600  # characters: what a terminal of 24 lines of 80 columns shows, and a prompt
_LONGEST_QUOTED = 300  # characters
_ESCAPED = "surrogateescape"
_KEPT = "\n\t"


def printable(text: object) -> str:
    r"""``text`` without what cannot be encoded or is obeyed: such a byte or character is written ``\xNN``."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(map(_shown, said))


def _shown(character: str) -> str:
    if character.isprintable() or character in _KEPT:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) == "Zs":  # wide and narrow spaces harm nobody
        return character
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def raw(text: str) -> bytes:
    """The bytes that ``text`` is on a disk: for digests and for files that name files."""
    try:
        return text.encode("utf-8", _ESCAPED)
    except UnicodeEncodeError:  # a surrogate that stands for no byte, as YAML and JSON can write it
        return text.encode("utf-8", "surrogatepass")


def from_raw(content: bytes) -> str:
    """The inverse of :func:`raw`, without a byte order mark."""
    return content.decode("utf-8", _ESCAPED).removeprefix("\ufeff")


def quoted(value: object) -> str:
    """What a sentence quotes, printable and short enough to leave room for the sentence."""
    return shortened(printable(value), _LONGEST_QUOTED, _LONGEST_QUOTED * 5 // 8)


def shortened(text: str, longest: int, head: int) -> str:
    """``text``, or its first ``head`` characters and its end where it is longer than ``longest``."""
    if len(text) <= longest:
        return text
    return f"{text[:head]} … {text[-(longest - head - 3) :]}"
