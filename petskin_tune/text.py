"""How numbers, times and places read in every view: one way each."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from petskin_tune.printable import one_line
from petskin_tune.protocol import Position

DRIVE = PurePosixPath("/content/drive")  # where Colab mounts Google Drive
THIS_DISK = "this machine's disk"
WIDTH = 80  # columns of a sentence in a terminal


def duration(seconds: float) -> str:
    """``seconds`` in the two largest units that matter: ``40 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = round(abs(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def size(count: float) -> str:
    """``count`` bytes in decimal units, as disks and quotas are sold: ``735 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def score(value: float | None) -> str:
    """A mask mAP with the three digits that its noise leaves meaningful; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def parameter(value: object) -> str:
    """One parameter's value, short enough for a line and precise enough to type again."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parameters(values: Mapping[str, object]) -> str:
    """All parameters of a trial as they would be typed: ``lr0=9.8e-05 optimizer=AdamW``."""
    return " ".join(f"{name}={parameter(value)}" for name, value in values.items()) or "no parameters"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``13th``."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def place(store: str) -> str:
    """What a person calls the store at this URL or path: ``Drive``, ``s3://bucket``, its home, this disk."""
    parts = urlsplit(store)
    if parts.scheme == "home":  # how a study names the store inside its own home
        return "the study's home"
    if parts.scheme and parts.scheme != "file":
        return f"{parts.scheme}://{parts.hostname or ''}"
    return "Drive" if PurePosixPath(parts.path).is_relative_to(DRIVE) else THIS_DISK


def done(position: Position) -> str:
    """A position as a person counts, from one: ``epoch 12``, ``epoch 11 and 40 batches of epoch 12``."""
    if position.batch == 0:
        return f"epoch {position.epoch}" if position.epoch else "nothing"
    batches = f"{counted(position.batch, 'batch', 'batches')} of epoch {position.epoch + 1}"
    return f"epoch {position.epoch} and {batches}" if position.epoch else batches


def durable(position: Position | None, epoch: int, store_place: str) -> str:
    """What a machine that vanishes now would cost, after ``epoch`` (1-based) is done.

    Args:
        position: what the study's store holds for certain; None: nothing yet.
        epoch: the epoch just done here.
        store_place: :func:`place` of the store.
    """
    leave = "stop" if store_place == THIS_DISK else "disconnect"
    if position is None or position == Position(0, 0):
        return f"not safe to {leave} yet: nothing is on {store_place}"
    if position < Position(epoch, 0):
        return f"durable: {done(position)}; here: epoch {epoch}"
    return f"safe to {leave}: {done(position)} {'are' if position.batch else 'is'} on {store_place}"


def page(lines: Iterable[str]) -> str:
    r"""``lines`` as they are printed; a name in one of them cannot begin another: its line feed is spelled ``\n``."""
    return "".join(f"{one_line(line)}\n" for line in lines)


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """``text`` in lines of WIDTH columns; paths and commands stay whole."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent="    ",
        break_on_hyphens=False,
        break_long_words=False,
    )
