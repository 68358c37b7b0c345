"""A finished run of elsewhere, whatever it was read from, and run folders of Ultralytics."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from petskin_tune.diagnosis.curves import Curves
from petskin_tune.diagnosis.rules.divergence import diverged
from petskin_tune.diagnosis.run_files import read_run
from petskin_tune.errors import UsageError
from petskin_tune.imports import automatic
from petskin_tune.study.space.arguments import arguments
from petskin_tune.study.spec import Subset


@dataclass(frozen=True)
class Run:
    """What is known of one run.

    Attributes:
        source: where it was found, for people.
        digest: SHA-256 of what it says: the same wherever its files lie.
        settings: SHA-256 of its arguments, by which with the curve a shorter record of it is told; "": there is none.
        arguments: Ultralytics' arguments that it trained with, as far as they are known.
        curve: fitness by epoch, 1-based; of a run without a curve empty.
        final: the fitness of a run without a curve.
        epochs: that were asked for; None: not known.
        complete: whether all of them were trained.
        diverged: whether it ended in no number.
        defaults: whether ``arguments`` leaves out only what has Ultralytics' default, but for ``unknown``.
        unknown: names of arguments that neither ``arguments`` nor a default tells.
        masks: whether its fitness is that of masks; None: not known.
        scale: what its fitness is; "": mask mAP50-95.
        data: fingerprint of its data set; None: ``arguments`` may name a path.
        subset: of the data set; None: it had all of it.
    """

    source: str
    digest: str
    arguments: Mapping[str, Any]
    settings: str = ""
    curve: Mapping[int, float] = field(default_factory=dict)
    final: float | None = None
    epochs: int | None = None
    complete: bool = True
    diverged: bool = False
    defaults: bool = False
    unknown: frozenset[str] = frozenset()
    masks: bool | None = True
    scale: str = ""
    data: str | None = None
    subset: Subset | None = None

    @property
    def values(self) -> list[float]:
        """Its finite fitness, in order."""
        found = list(self.curve.values()) if self.curve else [] if self.final is None else [self.final]
        return [value for value in found if math.isfinite(value)]


def digest_of(content: Any) -> str:
    """SHA-256 of plain values."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def read_folder(path: Path) -> Run:
    """The run of a folder with ``results.csv`` and ``args.yaml``, or of its ``results.csv``.

    Raises:
        UsageError: there is no such run, or nothing says what it was trained with.
    """
    curves = read_run(path)
    if not curves.arguments:
        why = "; ".join(curves.remarks) or "there is no args.yaml beside its results.csv"
        raise UsageError(f"{path} does not say what it was trained with: {why}")
    known = {name: value for name, value in curves.arguments.items() if name in arguments()}
    curve, telling = _curve(curves), sorted(_telling(known).items())
    in_force = automatic.resolved(known, curves)
    return Run(
        source=str(path),
        digest=digest_of([telling, list(curve.items())]),
        arguments=in_force,
        settings=digest_of(telling),
        curve=curve,
        epochs=curves.planned or curves.number(-1),
        complete=not curves.in_progress,
        diverged=curves.mask is not None and diverged(curves) is not None,
        defaults=True,
        unknown=automatic.unknown(in_force),
        masks=curves.mask is not None,
    )


def _curve(curves: Curves) -> dict[int, float]:
    if curves.mask is None:
        return {}
    judged = np.ones(len(curves), dtype=bool) if curves.validated is None else curves.validated > 0
    return {int(epoch): float(value) for epoch, value in zip(curves.epochs[judged], curves.mask[judged], strict=True)}


def _telling(known: Mapping[str, Any]) -> dict[str, Any]:
    """Without what changes when files are moved, or a run is resumed."""
    moved = ("project", "name", "device", "resume", "exist_ok", "data", "model", "pretrained")
    return {name: value for name, value in known.items() if name not in moved}
