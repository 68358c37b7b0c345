"""What a worker and the process that trains its trial say to each other.

The worker sends one :class:`TrialJob` when it starts the child, and orders afterwards; the child sends events. All of
it is plain, picklable data: neither side needs the other's libraries (the worker never imports torch, the child knows
neither SQL nor Optuna). The child never waits for an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

SNAPSHOT_FORMAT = 1  # raise it when older snapshots cannot be resumed
MASK_MAP = "metrics/mAP50-95(M)"  # the one fitness: mask mAP50-95 of the validation set, Ultralytics' own name

SNAPSHOT_FAILED = "snapshot-failed"  # key of the note on a snapshot that this machine's disk refuses
TRAIN_LOG = "train.log"  # in a run folder: what the trial's process says, tracebacks too; it stays when the trial ends

# The pictures of what a trial's model does, by the names of their files, in the order in which they are shown.
PICTURES: Mapping[str, str] = {
    "predictions-1.jpg": "Labels and predictions, images 1 to 4",
    "predictions-2.jpg": "Labels and predictions, images 5 to 8",
    "predictions-3.jpg": "Labels and predictions, images 9 to 12",
    "confusion-matrix.jpg": "Confusion matrix",
    "precision-recall.jpg": "Precision and recall of masks",
    "f1-confidence.jpg": "F1 of masks by confidence",
    "map-by-class.jpg": "Mask mAP by class",
    "losses.jpg": "Losses",
}

FailureKind = Literal["diverged", "out-of-memory", "data", "interrupted", "crashed", "refused", "machine"]


@dataclass(frozen=True)
class Position:
    """Where a training stands: ``batch`` batches of epoch ``epoch`` (0-based) are done.

    ``(e, 0)`` is the instant before the first batch of epoch *e*; ``(e, len(loader))`` the one between the last batch
    of epoch *e* and its validation. Positions order as tuples.
    """

    epoch: int
    batch: int

    def __lt__(self, other: Position) -> bool:
        return (self.epoch, self.batch) < (other.epoch, other.batch)


@dataclass(frozen=True)
class TrialJob:
    """One trial, as its training process needs to know it. Everything is resolved: no look-ups, no defaults left."""

    study: str
    trial: int  # Optuna's trial number
    run_folder: str  # local folder of this run: log, results.csv, weights/, snapshots/
    model: str  # path of the weights (.pt) or of the architecture (.yaml)
    data: str  # path of the data set's YAML in force (a subset is already applied)
    arguments: Mapping[str, Any]  # Ultralytics' training arguments in full: fixed and drawn ones, epochs, seed
    device: str  # "cpu" or a CUDA index such as "0"
    threads: int | None = None  # torch threads; None: as Ultralytics decides, and reported
    snapshot_every: float = 300.0  # seconds between snapshots; 0: one at the end of every epoch
    rungs: tuple[int, ...] = ()  # epochs (1-based) after which one is taken in any case: the trial may pause there
    snapshot: str | None = None  # local file to resume from
    identity: Mapping[str, str] = field(default_factory=dict)  # study, trial, data, model: what a snapshot must match
    recorded_machine: Mapping[str, Any] | None = None  # versions, threads, device model, CUDA of the trial's last run
    environment: Mapping[str, Any] | None = None  # the study's, see ``packages``
    allow_different_machine: bool = False  # another release of Ultralytics, too
    exact: bool = False  # decline what cannot be continued bit for bit
    on_oom: Literal["split", "prune"] = "split"
    patience_epochs: int | None = None  # end as complete after so many epochs without a better mask mAP
    workers: int | None = None  # data loader processes; None: as Ultralytics decides, none on CPU
    cache_share: float = 1.0  # of the memory for decoded images; below 1 where a part of the data stands for the whole


@dataclass(frozen=True)
class PicturesJob:
    """Pictures of what a trial's best weights do, as the process that makes them needs to know it."""

    trial: int  # Optuna's trial number
    run_folder: str  # local folder of this process: its log, and what it makes
    weights: str  # path of the best weights
    data: str  # path of the YAML of the data set in force
    arguments: Mapping[str, Any]  # Ultralytics' training arguments that were asked for
    device: str  # as of a TrialJob
    seed: int  # of the choice of images: the same in every trial of a study
    history: Mapping[str, Sequence[float]]  # the trial's curves: {column of results.csv: one value an epoch}
    label_cache: str  # folder of the trials' caches of labels
    threads: int | None = None
    workers: int | None = None


# ---- events: child -> worker --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """The first event of a child: what it runs on and what is in force, before the first batch."""

    pid: int
    preloaded: tuple[str, ...]  # modules that the forkserver had already imported
    machine: Mapping[str, Any]  # versions, threads, device, device_model, cuda
    arguments: Mapping[str, Any]  # in force
    batch: int  # effective batch in force
    position: Position  # where training (re)starts
    batches: int  # batches per epoch
    history: tuple[Mapping[str, float], ...]  # metrics of the epochs done before, oldest first (from the snapshot)
    notes: tuple[str, ...] = ()  # decisions worth recording: "micro-batches of 8", "fp32 after a non-finite loss"


@dataclass(frozen=True)
class Progress:
    """A sign of life, at most a few a second; droppable."""

    position: Position
    losses: Mapping[str, float]  # running means of this epoch; empty while unknown
    images_per_second: float


@dataclass(frozen=True)
class EpochDone:
    """An epoch was trained and validated. ``epoch`` is 1-based, as reported to Optuna."""

    epoch: int
    fitness: float  # mask mAP50-95
    metrics: Mapping[str, float]  # one row of results.csv: losses, precision, recall, mAPs, learning rates
    seconds: float
    training_seconds: float = 0.0  # of the batches that this process trained
    validation_seconds: float = 0.0


@dataclass(frozen=True)
class SnapshotWritten:
    """A complete snapshot lies on local disk (fsynced, renamed)."""

    path: str
    position: Position
    size: int  # bytes
    sha256: str
    seconds: float  # what training lost to it
    total: float = 0.0  # seconds from its begin until it lay there


@dataclass(frozen=True)
class BestWeights:
    """New best weights lie on local disk (fp32 EMA, loadable by ``YOLO(path)``)."""

    path: str
    epoch: int  # 1-based
    fitness: float


@dataclass(frozen=True)
class Finished:
    """All epochs are done, or patience ended the run."""

    epochs: int
    best_epoch: int  # 1-based
    early: bool = False


@dataclass(frozen=True)
class Suspended:
    """The answer to an order to suspend: the snapshot (if any batch was done) lies on disk, the child ends."""

    snapshot: SnapshotWritten | None


@dataclass(frozen=True)
class Failed:
    """The run cannot go on."""

    kind: FailureKind
    message: str  # one sentence
    detail: str = ""  # traceback, which is in the log as well


@dataclass(frozen=True)
class Declined:
    """This process may not go on with the trial; nothing was trained, the trial itself is untouched.

    ``different-machine``: Ultralytics, or (with ``exact``) anything that training depends on, is not as in the trial's
    last run; the message says what to do. ``damaged-snapshot``: the file fails its checksum or its state cannot be
    restored, an older one may do.
    ``foreign-snapshot``: it belongs to another trial, study, data set, model or an incompatible version; the message
    names which.
    """

    reason: Literal["different-machine", "damaged-snapshot", "foreign-snapshot"]
    message: str  # one sentence


@dataclass(frozen=True)
class Note:
    """Something that the trial should remember (an attribute) and a person should read (a line)."""

    key: str
    message: str


@dataclass(frozen=True)
class PicturesMade:
    """All :data:`PICTURES` lie in ``folder`` on local disk."""

    folder: str
    fitness: float  # mask mAP50-95 as it came out this time
    images: tuple[str, ...]  # names of those that the predictions are of


Event = (
    Started
    | Progress
    | EpochDone
    | SnapshotWritten
    | BestWeights
    | Finished
    | Suspended
    | Failed
    | Declined
    | Note
    | PicturesMade
)

# ---- orders: worker -> child --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Suspend:
    """Write a snapshot at the next batch and end."""


@dataclass(frozen=True)
class Stop:
    """End without a snapshot: the trial was pruned, or its lease is lost."""


Order = Suspend | Stop
