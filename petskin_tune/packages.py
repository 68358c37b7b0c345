"""What a training depends on, as it is here, and how two machines differ in it: packages, snapshot format, device.

Nothing is imported to find out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from petskin_tune import __version__
from petskin_tune.language import _
from petskin_tune.protocol import SNAPSHOT_FORMAT

PACKAGES = ("ultralytics", "torch", "torchvision", "numpy", "opencv-python", "opencv-python-headless")
ULTRALYTICS, OURS, PYTHON = "ultralytics", "petskin-tune", "python"
FORMAT, THREADS, CUDA, DEVICE = "snapshot format", "threads", "CUDA", "device"
INEXACT = "no longer exactly as undisturbed"
REPOSITORY = "https://github.com/petskin-tune/petskin-tune"  # as in pyproject.toml: the package is in no index
UPGRADE = f'pip install -U "{OURS} @ git+{REPOSITORY}"'  # what installs the newest release of this package

_DECISIVE = (ULTRALYTICS, FORMAT)  # no study mixes them unseen
_KEYS = {"snapshot_format": FORMAT, "threads": THREADS, "cuda": CUDA, "device_model": DEVICE}
ABSENT = "none"
PINNABLE = re.compile(r"[0-9][0-9A-Za-z.!]*")  # a version as an index has it, without a local suffix


@dataclass(frozen=True)
class Difference:
    """One thing that is not here as it was recorded."""

    name: str  # a package, or one of FORMAT, THREADS, CUDA, DEVICE
    here: str
    recorded: str

    @property
    def is_decisive(self) -> bool:
        """Whether going on would mix what may not be mixed unseen."""
        return self.name in _DECISIVE and self.recorded != ABSENT

    def __str__(self) -> str:
        said = _("{name} {here} instead of {recorded}")
        return said.format(name=_called(self.name), here=_called(self.here), recorded=_called(self.recorded))


def _called(word: str) -> str:
    """What a difference is in, or that a package is absent, in the language in use; names and values stay."""
    names = {FORMAT: _("snapshot format"), THREADS: _("threads"), DEVICE: _("device"), ABSENT: _("none")}
    return names.get(word, word)


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
            found.append(Difference(package, new.get(package, ABSENT), old.get(package, ABSENT)))
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


def pins(environment: Mapping[str, Any]) -> dict[str, str]:
    """The packages of an environment that pip can install from an index, by name; local suffixes are left out."""
    public = {name: str(number).partition("+")[0] for name, number in environment["versions"].items()}
    return {name: public[name] for name in PACKAGES if PINNABLE.fullmatch(public.get(name, ""))}


def installation(found: Iterable[Difference]) -> str:
    """The command that installs what was recorded, named one by one; '' where pip installs none of it."""
    wanted = {difference.name: difference.recorded for difference in found if difference.name in PACKAGES}
    listed = [f"{name}=={number}" for name, number in pins({"versions": wanted}).items()]
    return f"pip install {' '.join(listed)}" if listed else ""
