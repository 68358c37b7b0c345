"""A few real batches of a study, trained in a trial's process on a small part of its data; nothing of it in the study.

The process is started, heard and ended as that of any trial, so what is measured is what trials will do.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from petskin_tune.datasets import layout, subset
from petskin_tune.doctor.estimate import Measured
from petskin_tune.language import _
from petskin_tune.protocol import (
    BestWeights,
    Declined,
    EpochDone,
    Event,
    Failed,
    Finished,
    Note,
    Progress,
    SnapshotWritten,
    Started,
    Stop,
    TrialJob,
)
from petskin_tune.trial.process.runner import Died, Runner

TRAIN_BATCHES, VAL_BATCHES = 24, 4  # thrice what two loader processes prefetch while the epoch before is validated
EPOCHS = 2  # the first decodes the images and warms the device up, the second is measured
LONGEST_SECONDS = 240.0  # on a slow device the batches of the first epoch must do


@dataclass
class Probe:
    """What was heard of the trial.

    Attributes:
        started: its first event; None: it never began to train.
        failed: why it could not go on.
        measured: None without a single batch.
        notes: decisions worth knowing: micro-batches after out of memory, fp32.
    """

    started: Started | None = None
    failed: str | None = None
    measured: Measured | None = None
    notes: list[str] = field(default_factory=list)


def measure(
    runner: Runner, folder: Path, *, data: Path, model: str, arguments: Mapping[str, Any], on_oom: str, seed: int
) -> Probe:
    """Train a few batches.

    Args:
        runner: whose forkserver is used.
        folder: for the run, on this machine's disk; deleted in the end.
        data: YAML of the data set in force.
        model: path of the weights or of the architecture.
        arguments: of the training, in full.
        on_oom: the study's.
        seed: of the part of the data that is drawn.

    Raises:
        UsageError: the data set cannot be read.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        found = layout.read(data).images
        images = _few(found, int(arguments.get("batch", 16)))
        job = TrialJob(
            study="doctor",
            trial=0,
            run_folder=str(folder / "run"),
            model=model,
            data=str(subset.write(data, images["train"], images["val"], seed, folder / "data", whole_groups=False)),
            arguments=arguments,
            device="",
            snapshot_every=0,
            identity={"study": "doctor"},
            on_oom="prune" if on_oom == "prune" else "split",
            workers=int(arguments.get("workers", 2)),
            cache_share=images["train"] / len(found["train"]),  # as much of it stays decoded as of the whole
        )
        return _Listener(images).run(runner, job)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _few(found: Mapping[str, Sequence[Any]], batch: int) -> dict[str, int]:
    return {
        "train": min(len(found["train"]), TRAIN_BATCHES * batch),
        "val": min(len(found["val"]), VAL_BATCHES * 2 * batch),  # Ultralytics validates in batches of twice the size
    }


class _Listener:
    def __init__(self, images: Mapping[str, int]) -> None:
        self._images = images
        self._over = threading.Event()
        self._began = time.monotonic()
        self._set_up = 0.0
        self._rates: list[float] = []  # images a second
        self._epochs: list[EpochDone] = []
        self._snapshot: SnapshotWritten | None = None
        self._weights = 0
        self._probe = Probe()

    def run(self, runner: Runner, job: TrialJob) -> Probe:
        self._began = time.monotonic()
        process = runner.start(job, self._hear)
        try:
            self._over.wait(LONGEST_SECONDS)
        finally:
            process.send(Stop())
            process.end()
        self._probe.measured = self._measured()
        return self._probe

    def _hear(self, event: Event | Died) -> None:
        if isinstance(event, Started):
            self._probe.started = event
            self._probe.notes += event.notes
            self._set_up = time.monotonic() - self._began
        elif isinstance(event, Progress):
            self._rates.append(event.images_per_second)
        elif isinstance(event, EpochDone):
            self._epochs.append(event)
        elif isinstance(event, SnapshotWritten):
            self._snapshot = event
        elif isinstance(event, BestWeights):
            self._weights = Path(event.path).stat().st_size
        elif isinstance(event, Note) and event.key != "snapshot-interval":  # here, one follows the other at once
            self._probe.notes.append(event.message)
        elif isinstance(event, Failed):
            self._probe.failed = f"{event.kind}: {event.message}"
        elif isinstance(event, Declined):
            self._probe.failed = event.message
        elif isinstance(event, Died) and event.exit_code and not self._over.is_set():
            ended = _("crashed: its process ended with {code}").format(code=event.exit_code)
            self._probe.failed = self._probe.failed or ended
        written = self._snapshot is not None and len(self._epochs) >= EPOCHS
        if written or isinstance(event, (Failed, Declined, Finished, Died)):
            self._over.set()

    def _measured(self) -> Measured | None:
        training = self._training_seconds()
        if training is None:
            return None
        validation = self._epochs[-1].validation_seconds if self._epochs else 0.0
        return Measured(
            images_per_second=self._images["train"] / training,
            validated_per_second=self._images["val"] / validation if validation > 0 else None,
            set_up_seconds=self._set_up,
            snapshot_seconds=self._snapshot.seconds if self._snapshot else 0.0,
            snapshot_bytes=self._snapshot.size if self._snapshot else 0,
            weights_bytes=self._weights,
        )

    def _training_seconds(self) -> float | None:
        """Of one epoch of the part: the newest that was trained to its end, or what was heard of the first."""
        if self._epochs:
            return self._epochs[-1].training_seconds
        return self._images["train"] / median(self._rates) if self._rates else None
