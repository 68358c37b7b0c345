"""How numbers, times and places read in every view: one way each."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from petskin_tune import columns
from petskin_tune.language import _, figure, several
from petskin_tune.printable import one_line
from petskin_tune.protocol import Position

DRIVE = PurePosixPath("/content/drive")  # where Colab mounts Google Drive
THIS_DISK = "this machine's disk"
WIDTH = 80  # columns of a sentence in a terminal


def duration(seconds: float) -> str:
    """``seconds`` in the two largest units that matter: ``40 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    if not math.isfinite(seconds):
        return _("unknown")
    whole = round(abs(seconds))
    if whole < 90:
        return _("{seconds} s").format(seconds=whole)
    minutes = round(whole / 60)
    if minutes < 60:
        return _("{minutes} min").format(minutes=minutes)
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        said = _("{hours} h {minutes} min") if minutes else _("{hours} h")
        return said.format(hours=hours, minutes=minutes)
    days, hours = divmod(hours, 24)
    said = _("{days} d {hours} h") if hours else _("{days} d")
    return said.format(days=days, hours=hours)


def clock(at: float, now: float) -> str:
    """The local time of the instant ``at``, seen from ``now``: ``18:40``, ``Tue 18:40``, ``2026-03-12 18:40``."""
    try:
        then, today = datetime.fromtimestamp(at), datetime.fromtimestamp(now)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return _("unknown")
    if then.date() == today.date():
        return f"{then:%H:%M}"
    return f"{then:%a %H:%M}" if abs(at - now) < 6 * 86400 else f"{then:%Y-%m-%d %H:%M}"


def size(count: float) -> str:
    """``count`` bytes in decimal units, as disks and quotas are sold: ``735 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def score(value: float | None) -> str:
    """A mask mAP with the three digits that its noise leaves meaningful; a dash where there is none."""
    return "–" if value is None else figure(value, ".3f")


def parameter(value: object) -> str:
    """One parameter's value, short enough for a line and precise enough to type again."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parameters(values: Mapping[str, object]) -> str:
    """All parameters of a trial as they would be typed: ``lr0=9.8e-05 optimizer=AdamW``."""
    return " ".join(f"{name}={parameter(value)}" for name, value in values.items()) or _("no parameters")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``13th``."""
    endings = {1: _("{number}st"), 2: _("{number}nd"), 3: _("{number}rd")}
    other = _("{number}th")
    said = other if number % 100 in (11, 12, 13) else endings.get(number % 10, other)
    return said.format(number=number)


def place(store: str, *, network: bool | None = None) -> str:
    """What a person calls the store at this URL or path: ``Drive``, ``s3://bucket``, its home, this disk.

    Args:
        store: URL or path.
        network: whether it is on a network disk, where that is known.
    """
    parts = urlsplit(store)
    if parts.scheme == "home":  # how a study names the store inside its own home
        return "the study's home"
    if parts.scheme and parts.scheme != "file":
        return f"{parts.scheme}://{parts.hostname or ''}"
    if PurePosixPath(parts.path).is_relative_to(DRIVE):
        return "Drive"
    return "the network disk" if network else THIS_DISK


def done(position: Position) -> str:
    """A position as a person counts, from one: ``epoch 12``, ``epoch 11 and 40 batches of epoch 12``."""
    if position.batch == 0:
        return _("epoch {epoch}").format(epoch=position.epoch) if position.epoch else _("nothing")
    batches = _("{batches} of epoch {epoch}").format(
        batches=several(position.batch, _("{count} batch"), _("{count} batches")), epoch=position.epoch + 1
    )
    return _("epoch {epoch} and {batches}").format(epoch=position.epoch, batches=batches) if position.epoch else batches


def durable(position: Position | None, epoch: int, store_place: str) -> str:
    """What a machine that vanishes now would cost, after ``epoch`` (1-based) is done.

    To stop is safe at any time: a worker that is asked to takes a snapshot first.

    Args:
        position: what the study's store holds for certain; None: nothing yet.
        epoch: the epoch just done here.
        store_place: :func:`place` of the store.
    """
    here = store_place == THIS_DISK
    if position is None or position < Position(epoch, 0):
        event = "a power cut" if here else "a disconnect"
        since = "from the start" if position in (None, Position(0, 0)) else f"since {done(position)}"
        return f"{event} now would cost the training {since}"
    leave = "stop" if here else "disconnect"
    return f"safe to {leave}: {done(position)} {'are' if position.batch else 'is'} on {store_place}"


def reason(given: str | None) -> str:
    """Why a trial was given back, in the words of whoever did it."""
    return "Ctrl-C" if given == "SIGINT" else given or ""


def page(lines: Iterable[str]) -> str:
    r"""``lines`` as they are printed; a name in one of them cannot begin another: its line feed is spelled ``\n``."""
    return "".join(f"{one_line(line)}\n" for line in lines)


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """``text`` in lines of WIDTH columns; paths and commands stay whole."""
    return columns.wrapped(text, WIDTH, first=indent, then="    ")


def fitted(text: str, wide: int = WIDTH) -> str:
    """The lines of ``text`` broken between words where they are longer than ``wide`` columns, each under its indent."""
    lines: list[str] = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip(" ")))
        fits = columns.width(line) <= wide
        lines += [line] if fits else columns.wrapped(line, wide, first=indent, then=f"{indent}  ")
    return "".join(f"{line}\n" for line in lines)


def to_type(before: str, command: str, wide: int = WIDTH) -> list[str]:
    r"""``command`` behind ``before``; where ``wide`` columns cannot hold it, in lines that can be typed as they are.

    A word of it that is longer than a line stays whole.
    """
    if columns.width(before + command) <= wide:
        return [before + command]
    lines = [before.rstrip()] if before else []
    first = " " * (len(before) - len(before.lstrip(" ")) + 2)
    indent, held = first, ""
    for word in _typed_together(command):
        if held and columns.width(f"{indent}{held} {word} \\") > wide:
            lines.append(f"{indent}{held} \\")
            indent, held = f"{first}  ", ""
        held = f"{held} {word}" if held else word
    return [*lines, indent + held]


def named(study: str, options: str) -> str:
    """What a person types to mean a study: its name, and the ``options`` that say where it lies, as they are typed."""
    return f"--study {shlex.quote(study)} {options}".rstrip()


def operand(value: str) -> str:
    """A path as a person types it where no option stands before it."""
    return shlex.quote(f"./{value}" if value.startswith("-") else value)


def _typed_together(command: str) -> list[str]:
    """The words of a command, an option with its value as one; what is quoted is one word."""
    found: list[str] = []
    for word in re.findall(r"""(?:'[^']*'|"[^"]*"|\S)+""", command):
        if found and re.fullmatch(r"--\S+", found[-1]) and not word.startswith("-"):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return found
