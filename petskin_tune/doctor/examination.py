"""What ``petskin-tune doctor`` has found out about a study so far, and the line that a check says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from petskin_tune.checkpoints.base import Store
from petskin_tune.columns import padded
from petskin_tune.doctor.estimate import Estimate, estimate
from petskin_tune.doctor.probe import Probe
from petskin_tune.home.home import Home
from petskin_tune.language import _
from petskin_tune.opening.places import Places
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.study import Study
from petskin_tune.study.wanted import Wanted
from petskin_tune.trial.inputs import Prepared
from petskin_tune.views.pulse import Pulse

SILENT_SECONDS = 4.0  # after which it is said what is looked at
_VERDICT_COLUMNS = 8

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what came out, and what to do where that is anything but ``ok``."""

    name: str
    verdict: Verdict
    message: str

    def __str__(self) -> str:
        return marked(self.verdict, f"{called(self.name)}: {self.message}")


def marked(verdict: Verdict, line: str) -> str:
    """``line`` behind its verdict, in the language in use."""
    names = {"ok": _("ok"), "warning": _("warning"), "problem": _("problem")}
    return f"{padded(names[verdict], _VERDICT_COLUMNS)} {line}"


def called(name: str) -> str:
    """What a check looks at (``disk``, ``trial 3``), in the language in use."""
    what, _space, number = name.partition(" ")
    names = {
        "versions": _("versions"),
        "database": _("database"),
        "environment": _("environment"),
        "clock": _("clock"),
        "store": _("store"),
        "weights": _("weights"),
        "data": _("data"),
        "training": _("training"),
        "device": _("device"),
        "trials": _("trials"),
        "trial": _("trial"),
        "disk": _("disk"),
    }
    return f"{names.get(what, what)} {number}".rstrip()


@dataclass
class Examination:
    """The study as far as it is known.

    Attributes:
        places: where the study is.
        data: the data set on this machine instead of the study's entry.
        asked: which study, and its file.
        home: as resolved.
        say: prints a line.
        study: None: it is not in the database, or nobody has looked yet; as for the rest.
        model: path of the weights or of the architecture.
        prepared: the data set in force.
        probe: what a few real batches took.
        pulse: says what is looked at while that takes long.
    """

    places: Places
    data: str | None
    asked: Wanted
    home: Home
    say: Callable[[str], None]
    study: Study | None = None
    model: str | None = None
    prepared: Prepared | None = None
    probe: Probe | None = None

    def __post_init__(self) -> None:
        self.pulse = Pulse(lambda text: self.say(f"{padded('…', _VERDICT_COLUMNS)} {text}"), SILENT_SECONDS)

    @property
    def spec(self) -> StudySpec:
        """The database's where the study has begun, else the file's."""
        spec = self.study.spec if self.study else self.asked.spec
        assert spec is not None  # a study that has neither is refused before
        return spec

    @property
    def folders(self) -> list[Path]:
        """Where the files that the study names may lie."""
        if self.study:
            return self.study.folders
        return [self.asked.folder] if self.asked.folder else []

    def open_store(self) -> Store:
        """The store in force.

        Raises:
            UsageError: see :meth:`petskin_tune.home.home.Home.open_store`.
        """
        return self.home.open_store(self.study.store, self.study.uid) if self.study else self.home.open_store(None)

    @property
    def images(self) -> tuple[int, int]:
        """How many images in force there are to train on and to validate."""
        assert self.prepared is not None
        splits = self.prepared.fingerprint.splits
        return splits["train"].images, splits["val"].images

    @property
    def figures(self) -> Estimate | None:
        """What the study will take here; None where no batch was trained."""
        measured = self.probe.measured if self.probe else None
        return estimate(self.spec, measured, *self.images) if measured and self.prepared else None
