"""The environment of a study: what its trainings depend on, as its first trial recorded it, and how another differs.

Ultralytics publishes about once a day, and three days can change what a training means. A study stays with the release
that it was begun with; anything else may change, and the trials that it concerns say so.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petskin_tune import __version__
from petskin_tune.protocol import SNAPSHOT_FORMAT
from petskin_tune.study import attributes

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FILE = "environment.txt"  # in the home: the packages of the study that was worked on last
PACKAGES = ("ultralytics", "torch", "torchvision", "numpy", "opencv-python", "opencv-python-headless")
ULTRALYTICS, OURS, PYTHON = "ultralytics", "petskin-tune", "python"
FORMAT, THREADS, CUDA, DEVICE = "snapshot format", "threads", "CUDA", "device"
INEXACT = "no longer exactly as undisturbed"

_DECISIVE = (ULTRALYTICS, FORMAT)  # no study mixes them unseen
_KEYS = {"snapshot_format": FORMAT, "threads": THREADS, "cuda": CUDA, "device_model": DEVICE}
_ABSENT = "none"
_PINNABLE = re.compile(r"[0-9][0-9A-Za-z.!]*")  # a version as an index has it, without a local suffix


@dataclass(frozen=True)
class Difference:
    """One thing that is not here as it was recorded."""

    name: str  # a package, or one of FORMAT, THREADS, CUDA, DEVICE
    here: str
    recorded: str

    @property
    def is_decisive(self) -> bool:
        """Whether going on would mix what may not be mixed unseen."""
        return self.name in _DECISIVE and self.recorded != _ABSENT

    def __str__(self) -> str:
        return f"{self.name} {self.here} instead of {self.recorded}"


def versions() -> dict[str, str]:
    """The versions of the packages that training depends on, as they are installed here; nothing is imported."""
    found = {OURS: __version__, PYTHON: f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def here() -> dict[str, Any]:
    """This machine as far as a worker knows it, in the form in which a study records its environment."""
    return {"versions": versions(), "snapshot_format": SNAPSHOT_FORMAT}


def differences(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """How ``current`` differs from ``recorded``; what one of them does not know is not compared.

    Args:
        recorded: ``versions``, and of ``snapshot_format``, ``threads``, ``cuda`` and ``device_model`` what is known.
        current: the same of this machine. The index of a device does not count.
    """
    found = []
    old, new = recorded.get("versions", {}), current["versions"]
    for package in sorted({*old, *new}):
        if not _same_version(old.get(package), new.get(package)):
            found.append(Difference(package, new.get(package, _ABSENT), old.get(package, _ABSENT)))
    for key, name in _KEYS.items():
        mine, theirs = current.get(key), recorded.get(key)
        if mine is not None and theirs is not None and mine != theirs:
            found.append(Difference(name, str(mine), str(theirs)))
    return found


def _same_version(one: str | None, other: str | None) -> bool:
    """Whether two versions name one release: an index of one's own adds ``+cu128``, PyPI says nothing of it."""
    if one is None or other is None or ("+" in one and "+" in other):
        return one == other
    return one.partition("+")[0] == other.partition("+")[0]


def decisive(recorded: Mapping[str, Any], current: Mapping[str, Any]) -> list[Difference]:
    """The differences that may not be passed over."""
    return [difference for difference in differences(recorded, current) if difference.is_decisive]


def said(found: Iterable[Difference]) -> str:
    """Differences as a person reads them."""
    return ", ".join(str(difference) for difference in found)


# ---- what a study has recorded ---------------------------------------------------------------------------------------


def of_study(stored: Mapping[str, Any], trials: Iterable[FrozenTrial]) -> dict[str, Any] | None:
    """The environment of a study, or None before anything was trained.

    Args:
        stored: the study's user attributes.
        trials: of the study, by number. The first that recorded what it ran on adds the device; in a study from
            before environments were recorded it says the packages, too.
    """
    known = stored.get(attributes.ENVIRONMENT)
    if known is not None and known.get("device_model") is not None:
        return dict(known)
    first = next((trial.user_attrs for trial in trials if attributes.VERSIONS in trial.user_attrs), None)
    if first is None:
        return None if known is None else dict(known)
    device = {"cuda": first.get(attributes.CUDA), "device_model": first.get(attributes.DEVICE_MODEL)}
    return {**(known or {"versions": first[attributes.VERSIONS], "snapshot_format": 1}), **device}  # 1: of those days


def of_trial(recorded: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a trial ran on last, from its user attributes; None for one that never began to train."""
    if attributes.VERSIONS not in recorded:
        return None
    names = (attributes.VERSIONS, attributes.THREADS, attributes.DEVICE, attributes.DEVICE_MODEL, attributes.CUDA)
    return {name: recorded.get(name) for name in names}


# ---- what to type ----------------------------------------------------------------------------------------------------


def pins(environment: Mapping[str, Any]) -> dict[str, str]:
    """The packages of an environment that pip can install from an index, by name; local suffixes are left out."""
    public = {name: str(number).partition("+")[0] for name, number in environment["versions"].items()}
    return {name: public[name] for name in PACKAGES if _PINNABLE.fullmatch(public.get(name, ""))}


def render(study: str, environment: Mapping[str, Any]) -> str:
    """The text of the home's ``environment.txt``: requirements and constraints of pip at once.

    What pip cannot install is a comment. Packages that are built for one Python are asked for on that one alone: on
    another a study goes on with others, and says so.
    """
    recorded = environment["versions"]
    python = recorded.get(PYTHON, "")
    only = f' ; python_version == "{python}"' if _PINNABLE.fullmatch(python) else ""
    lines = [
        f"# What the study {_one_line(study)} is trained with; petskin-tune keeps this file. On another machine, type:",
        f"#   pip install -r {FILE}",
        f"# {OURS} {_one_line(recorded.get(OURS, _ABSENT))}, {PYTHON} {_one_line(python)}",
    ]
    device = {CUDA: environment.get("cuda"), DEVICE: environment.get("device_model")}
    lines += [f"# {name} {_one_line(value)}" for name, value in device.items() if value]
    for name, number in pins(environment).items():
        suffix = f"  # {_one_line(recorded[name])}" if recorded[name] != number else ""
        lines.append(f"{name}=={number}{'' if name == ULTRALYTICS else only}{suffix}")
    return "".join(f"{line}\n" for line in lines)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def installation(found: Iterable[Difference]) -> str:
    """The command that installs what was recorded, named one by one; '' where pip installs none of it."""
    wanted = {difference.name: difference.recorded for difference in found if difference.name in PACKAGES}
    listed = [f"{name}=={number}" for name, number in pins({"versions": wanted}).items()]
    return f"pip install {' '.join(listed)}" if listed else ""


def way_back(study: str, environment: Mapping[str, Any], found: Iterable[Difference], home: Path) -> str:
    """What to do to have what was recorded: the line to type where there is one.

    Args:
        study: its name.
        environment: of the study.
        found: the differences to undo.
        home: whose ``environment.txt`` is named, if it holds this environment.
    """
    found = list(found)
    line = installation(found)
    if line and holds(home, render(study, environment)):
        line = f"pip install -r {shlex.quote(os.fspath(home / FILE))}"
    steps = [f"type `{line}`"] if line else []
    if any(difference.name == FORMAT for difference in found):
        steps.append(f"install {OURS} {environment['versions'].get(OURS, '')} again".replace("  ", " "))
    return " and ".join(steps)


def refusal(study: str, environment: Mapping[str, Any], found: list[Difference], home: Path) -> str:
    """Why a worker does not go on here, and what to type; for :func:`way_back`'s arguments."""
    return (
        f"This machine has {said(found)}, with which the study {study} was begun: "
        f"{way_back(study, environment, found, home)}, or go on with --allow-different-machine, which is recorded."
    )


def holds(home: Path, text: str) -> bool:
    """Whether the home's ``environment.txt`` says ``text``."""
    try:
        return (home / FILE).read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def news(study: str, stored: Mapping[str, Any], trials: Iterable[FrozenTrial], home: Path) -> tuple[list[str], bool]:
    """What a person should know before a worker is started here, a line each; and whether it would be refused.

    Args:
        study: its name.
        stored: its user attributes.
        trials: of the study.
        home: see :func:`way_back`.
    """
    environment = of_study(stored, trials)
    if environment is None:
        return [], False
    lines = []
    if others := stored.get(attributes.OTHER_RELEASES):
        own = environment["versions"].get(ULTRALYTICS)
        lines.append(f"trained with {ULTRALYTICS} {own} and, as a person allowed, with {' and '.join(others)}")
    found = differences(environment, here())
    wrong = [difference for difference in found if difference.is_decisive]
    if wrong:
        back = way_back(study, environment, wrong, home)
        lines.append(f"this machine has {said(wrong)}, and a worker here is refused: {back}")
    elif found:
        lines.append(f"this machine has {said(found)}: a trial that goes on here is {INEXACT}")
    return lines, bool(wrong)
