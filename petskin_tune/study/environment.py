"""The environment of a study: what its trainings depend on, as its first trial recorded it, and how another differs.

Ultralytics publishes about once a day, and three days can change what a training means. A study stays with the release
that it was begun with; anything else may change, and the trials that it concerns say so.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petskin_tune import packages
from petskin_tune.files import regular
from petskin_tune.language import _
from petskin_tune.packages import (
    ABSENT,
    CUDA,
    DEVICE,
    FORMAT,
    OURS,
    PINNABLE,
    PYTHON,
    ULTRALYTICS,
    Difference,
    differences,
    installation,
    pins,
    said,
)
from petskin_tune.study import attributes
from petskin_tune.study.stored import recorded

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

FILE = "environment.txt"  # in the home: the packages of the study that was worked on last


def of_study(stored: Mapping[str, Any], trials: Iterable[FrozenTrial]) -> dict[str, Any] | None:
    """The environment of a study, or None before anything was trained: until then another worker may bring its own.

    Args:
        stored: the study's user attributes.
        trials: of the study, by number. The first that recorded what it ran on adds the device; in a study from
            before environments were recorded it says the packages, too.
    """
    known = stored.get(attributes.ENVIRONMENT)
    if known is not None and known.get("device_model") is not None:
        return dict(known)
    first = next((ran for ran in map(recorded, trials) if attributes.VERSIONS in ran), None)
    if first is None:
        return None
    device = {"cuda": first.get(attributes.CUDA), "device_model": first.get(attributes.DEVICE_MODEL)}
    return {**(known or {"versions": first[attributes.VERSIONS], "snapshot_format": 1}), **device}  # 1: of those days


def of_trial(known: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a trial ran on last, from what was recorded with it; None for one that never began to train."""
    if attributes.VERSIONS not in known:
        return None
    names = (attributes.VERSIONS, attributes.THREADS, attributes.DEVICE, attributes.DEVICE_MODEL, attributes.CUDA)
    return {name.removeprefix(attributes.PREFIX): known.get(name) for name in names}


# ---- what to type ----------------------------------------------------------------------------------------------------


def render(study: str, environment: Mapping[str, Any]) -> str:
    """The text of the home's ``environment.txt``: requirements and constraints of pip at once.

    What pip cannot install is a comment. Packages that are built for one Python are asked for on that one alone: on
    another a study goes on with others, and says so.
    """
    recorded = environment["versions"]
    python = recorded.get(PYTHON, "")
    only = f' ; python_version == "{python}"' if PINNABLE.fullmatch(python) else ""
    lines = [
        f"# What the study {_one_line(study)} is trained with; petskin-tune keeps this file. On another machine, type:",
        f"#   pip install -r {FILE}",
        f"# {OURS} {_one_line(recorded.get(OURS, ABSENT))}, {PYTHON} {_one_line(python)}",
    ]
    device = {CUDA: environment.get("cuda"), DEVICE: environment.get("device_model")}
    lines += [f"# {name} {_one_line(value)}" for name, value in device.items() if value]
    for name, number in pins(environment).items():
        suffix = f"  # {_one_line(recorded[name])}" if recorded[name] != number else ""
        lines.append(f"{name}=={number}{'' if name == ULTRALYTICS else only}{suffix}")
    return "".join(f"{line}\n" for line in lines)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


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
    steps = [_("type `{command}`").format(command=line)] if line else []
    if any(difference.name == FORMAT for difference in found):
        ours = f"{OURS} {environment['versions'].get(OURS, '')}".rstrip()
        steps.append(_("install {package} again").format(package=ours))
    return _(" and ").join(steps)


def refusal(study: str, environment: Mapping[str, Any], found: list[Difference], home: Path) -> str:
    """Why a worker does not go on here, and what to type; for :func:`way_back`'s arguments."""
    return (
        f"This machine has {said(found)}, with which the study {study} was begun: "
        f"{way_back(study, environment, found, home)}, or go on with --allow-different-machine, which is recorded."
    )


def holds(home: Path, text: str) -> bool:
    """Whether the home's ``environment.txt`` says ``text``."""
    try:
        return regular.read_text(home / FILE) == text
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
        allowed = _("trained with ultralytics {own} and, as a person allowed, with {others}")
        lines.append(allowed.format(own=own, others=_(" and ").join(others)))
    found = differences(environment, packages.here())
    wrong = [difference for difference in found if difference.is_decisive]
    if wrong:
        back = way_back(study, environment, wrong, home)
        refused = _("this machine has {differences}, and a worker here is refused: {way_back}")
        lines.append(refused.format(differences=said(wrong), way_back=back))
    elif found:
        inexact = _("this machine has {differences}: a trial that goes on here is no longer exactly as undisturbed")
        lines.append(inexact.format(differences=said(found)))
    return lines, bool(wrong)
