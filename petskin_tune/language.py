"""The language that `diagnose` and `doctor` speak: English, or Korean from ``locale/ko/LC_MESSAGES/petskin_tune.po``.

A sentence stands in the code as ``_("{count} trials failed").format(count=3)``, in English, and is looked up when it is
said. Only a command that has called :func:`use` speaks another language; workers never do, so that what is stored,
logged or raised as an error is English whatever the person's locale is.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "ko")
CATALOGUES = Path(__file__).with_name("locale")
_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")  # POSIX: the first one that is set and not empty
_LINE = re.compile(r'(?:(msgid|msgstr)\s+)?"((?:[^"\\]|\\.)*)"')
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}

_WRITTEN_OUT = 1e6  # no number of a training is as large; and more digits than these are read by nobody

_in_use: Mapping[str, str] = {}  # sentences by their English


def _(sentence: str) -> str:
    """``sentence`` in the language in use; as it is where that is English."""
    return _Sentence(_in_use.get(sentence) or sentence)


def figure(value: float, how: str) -> str:
    """``value`` as ``format(value, how)`` has it; a gigantic one, which anybody may store, without its 300 digits."""
    if abs(value) < _WRITTEN_OUT or how[-1:] not in ("f", "%"):
        return format(value, how)
    share = how.endswith("%")
    sign = "+" if how.startswith("+") else ""
    return f"{value * 100:{sign}.3g}%" if share else f"{value:{sign}.3g}"


class _Formatter(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        return figure(value, format_spec) if isinstance(value, float) else format(value, format_spec)


class _Sentence(str):
    """What is filled in by :func:`figure`."""

    __slots__ = ()

    def format(self, *values: object, **named: object) -> str:
        return _FORMATTER.vformat(self, values, named)


_FORMATTER = _Formatter()


def several(count: int, one: str, many: str) -> str:
    """``count`` of something: ``several(2, _("{count} trial"), _("{count} trials"))``."""
    return (one if count == 1 else many).format(count=count)


@contextmanager
def use(language: str) -> Iterator[None]:
    """Speak ``language`` (one of LANGUAGES) inside of the ``with``, in all threads of this process."""
    global _in_use
    before, _in_use = _in_use, catalogue(language)
    try:
        yield
    finally:
        _in_use = before


def preferred(environment: Mapping[str, str]) -> str:
    """The language of a person's locale, as far as it is one of LANGUAGES; else English."""
    locale = next((value for name in _VARIABLES if (value := environment.get(name))), "")
    code = re.split(r"[_.@-]", locale.lower())[0]
    return "ko" if code in ("ko", "korean") else "en"


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """What is said in ``language``, by what is said in English; nothing for English itself."""
    if language == "en":
        return {}
    return read_po((CATALOGUES / language / "LC_MESSAGES" / "petskin_tune.po").read_text(encoding="utf-8"))


def read_po(text: str) -> dict[str, str]:
    """The entries of a gettext catalogue: pairs of ``msgid`` and ``msgstr``, each with lines that continue it.

    Raises:
        ValueError: a line that is neither that nor a comment, a ``msgid`` without a ``msgstr``, or one given twice.
    """
    entries: list[dict[str, str]] = []
    keyword = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            keyword = ""
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or (found[1] or keyword) == "":
            raise ValueError(f"line {number} is no line of a catalogue: {line}")
        if found[1] == "msgid":
            entries.append({})
        if found[1] and (not entries or found[1] in entries[-1]):
            raise ValueError(f"line {number} has a {found[1]} too many: {line}")
        keyword = found[1] or keyword
        entries[-1][keyword] = entries[-1].get(keyword, "") + _unescaped(found[2])
    return _paired(entries)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), text)


def _paired(entries: list[dict[str, str]]) -> dict[str, str]:
    """The sentences by their English, without the header, whose ``msgid`` is empty."""
    pairs: dict[str, str] = {}
    for entry in entries:
        if "msgstr" not in entry or entry["msgid"] in pairs:
            raise ValueError(f"an entry without a msgstr, or a second one: {entry['msgid']}")
        pairs[entry["msgid"]] = entry["msgstr"]
    pairs.pop("", None)
    return pairs
