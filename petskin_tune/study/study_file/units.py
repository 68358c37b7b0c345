"""Durations, sizes and budgets as people write them: ``5m``, ``1h30m``, ``6GB``, ``20`` full runs, ``540 epochs``."""

from __future__ import annotations

import re
import sys

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_BYTES = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
LONGEST_DAYS = 36_500  # of a duration: a date a hundred years ahead is one that every database knows
MOST_EPOCHS = 10**9  # of a budget
LARGEST = 2**63 - 1  # bytes: what file systems count to
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


def parse_duration(value: object) -> float:
    """Seconds of ``5m``, ``90s``, ``1h30m``, ``2d`` or a plain number of seconds.

    Raises:
        ValueError: it is none of these, negative, or longer than a hundred years.
    """
    seconds = _seconds(value)
    if seconds > LONGEST_DAYS * _SECONDS["d"]:
        raise ValueError(f"{value!r} is too long: at most {LONGEST_DAYS}d")
    return seconds


def _seconds(value: object) -> float:
    if _is_plain_number(value):
        return float(str(value))
    text = str(value).strip().lower()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    if not re.fullmatch(rf"(?:{_NUMBER}\s*[dhms]\s*)+", text):
        raise ValueError(f"{value!r} is no duration: write 90s, 5m or 2h")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(rf"({_NUMBER})\s*([dhms])", text))


def parse_size(value: object) -> int:
    """Bytes of ``6GB`` (10^9), ``500MiB`` (2^20) or a plain number of bytes.

    Raises:
        ValueError: it is none of these, negative, or more than any disk holds.
    """
    size = _bytes(value)
    if size > LARGEST:
        raise ValueError(f"{value!r} is more than any disk holds")
    return round(size)


def _bytes(value: object) -> float:
    if _is_plain_number(value):
        return int(float(str(value)))
    match = re.fullmatch(rf"({_NUMBER})\s*([a-z]*)", str(value).strip(), flags=re.IGNORECASE)
    factor = {name.lower(): size for name, size in _BYTES.items()}.get((match[2] if match else "?").lower() or "b")
    if match is None or factor is None:
        raise ValueError(f"{value!r} is no size: write 6GB or 500MB")
    return float(match[1]) * factor


def parse_budget(value: object, epochs: int) -> int:
    """Epochs of ``540 epochs``, or of a number of full runs of ``epochs`` epochs each, such as ``20`` or ``7.5``.

    Raises:
        ValueError: it is neither, less than one full run, or more than ``MOST_EPOCHS``.
    """
    if found := re.fullmatch(r"(\d+)\s*epochs?", str(value).strip()):
        budget = float(found[1])
    elif re.fullmatch(_NUMBER, str(value).strip()):
        budget = float(str(value)) * epochs
    else:
        raise ValueError(
            f"must be a number of full runs, such as 20, or of epochs, such as `{20 * epochs} epochs`, not {value!r}"
        )
    if not epochs <= budget <= MOST_EPOCHS:
        raise ValueError(
            f"must be from one full run ({epochs} epochs) to {MOST_EPOCHS} epochs, not {budget:.10g} epochs"
        )
    return round(budget)


def parse_share(value: object) -> float:
    """A share of one, of ``5%`` or ``0.05``.

    Raises:
        ValueError: it is neither, or not between 0 and 1.
    """
    found = re.fullmatch(rf"({_NUMBER})\s*(%?)", str(value).strip())
    share = float(found[1]) / (100 if found[2] else 1) if found and not isinstance(value, bool) else -1.0
    if not 0 < share < 1:
        raise ValueError(f"must be a share such as 5% or 0.05, not {value!r}")
    return share


def format_share(share: float) -> str:
    """The shortest text that :func:`parse_share` reads back: 0.05 -> ``5%``."""
    percent = f"{100 * share:.10g}"
    return f"{percent}%" if float(percent) / 100 == share else repr(share)


def format_duration(seconds: float) -> str:
    """The shortest text that :func:`parse_duration` reads back: 300.0 -> ``5m``."""
    for unit, factor in _SECONDS.items():
        if seconds and seconds % factor == 0:
            return f"{int(seconds // factor)}{unit}"
    return f"{seconds!r}s" if seconds else "0"


def format_size(size: int) -> str:
    """The shortest text that :func:`parse_size` reads back: 6000000000 -> ``6GB``."""
    for unit, factor in _BYTES.items():
        if size % factor == 0:
            return f"{size // factor}{unit}"
    raise AssertionError("every whole number is a multiple of one byte")


def _is_plain_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
