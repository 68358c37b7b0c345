"""The names of a data set's classes, as its YAML has them."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petskin_tune.errors import UsageError
from petskin_tune.files.yaml_guard import BadYaml, parse_yaml

_MOST_CLASSES = 100_000
_LONGEST_NAME = 255  # characters
_COLLECTIONS = (list, dict, set, tuple, bytes)  # what YAML can put in a name's place


def class_names(yaml_path: Path, raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The class names by number, from ``names`` (list or mapping) or ``nc``.

    Raises:
        UsageError: there are none, one is no text, their numbers are not 0, 1, 2, …, or ``nc`` says another number.
    """
    stated = _stated_number(yaml_path, raw.get("nc"))
    if raw.get("names") is None and stated:
        return tuple(f"class_{number}" for number in range(stated))
    names = tuple(_text(yaml_path, number, name) for number, name in enumerate(_by_number(yaml_path, raw.get("names"))))
    if stated is not None and stated != len(names):
        raise UsageError(
            f"{yaml_path}: `nc: {stated}` and the {len(names)} `names` do not agree; correct one, or leave `nc` out."
        )
    return names


def _stated_number(yaml_path: Path, stated: Any) -> int | None:
    """``nc`` as Ultralytics takes it: 3, "3" and 3.0 are three classes."""
    if stated is None:
        return None
    try:
        number = math.nan if isinstance(stated, bool) else float(stated)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not number.is_integer() or not 0 < number <= _MOST_CLASSES:
        raise UsageError(f"{yaml_path}: `nc:` must be the number of `names`, from 1 to {_MOST_CLASSES:,}.")
    return int(number)


def _by_number(yaml_path: Path, names: Any) -> Sequence[Any]:
    if isinstance(names, list) and 0 < len(names) <= _MOST_CLASSES:
        return names
    if isinstance(names, dict) and 0 < len(names) <= _MOST_CLASSES:
        by_number = {str(number): name for number, name in names.items()}
        if by_number.keys() == {str(number) for number in range(len(names))}:
            return [by_number[str(number)] for number in range(len(names))]
    raise UsageError(f"{yaml_path} has no usable `names:`; write one name a class, numbered from 0.")


def _text(yaml_path: Path, number: int, name: Any) -> str:
    if name is None or isinstance(name, _COLLECTIONS):
        raise UsageError(f"{yaml_path}: `names:` has no name for class {number}, but {_kind(name)}.")
    text = str(name)
    if len(text) > _LONGEST_NAME or any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise UsageError(
            f"{yaml_path}: the name of class {number} is longer than {_LONGEST_NAME} characters, or holds some that no "
            "terminal shows."
        )
    return text


def _kind(value: Any) -> str:
    return "nothing" if value is None else "a list or a mapping"


def read_alike(before: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the names of classes are those of ``before``, which may come from when ``010`` was read as 8."""
    return len(before) == len(names) and all(
        old in (new, _as_number(new)) for old, new in zip(before, names, strict=True)
    )


def _as_number(name: str) -> str | None:
    """The name that a class had that is written like a number, before it was taken as it is written."""
    try:
        value = parse_yaml(name)
    except BadYaml:
        return None
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def repeated(names: Sequence[str]) -> list[str]:
    """The names that more than one class has, as a person reads them: composed, in any case, without space around."""
    counts = Counter(map(_as_read, names))
    first = {_as_read(name): unicodedata.normalize("NFC", name).strip() for name in reversed(names)}
    return [first[name] for name, count in counts.items() if count > 1]


def _as_read(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def told_apart(names: Sequence[str]) -> list[str]:
    """One heading a class: its name, with its number where another class has the same."""
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} (class {number})" for number, name in enumerate(names)]
