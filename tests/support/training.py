"""A tiny study for tests of training, and a parent that speaks the protocol with a real training process."""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import petskin_tune.training  # noqa: F401 (it sets the environment that ultralytics wants at its import)
from petskin_tune.datasets import demo
from petskin_tune.protocol import EpochDone, Event, Note, Order, Position, SnapshotWritten, Started, TrialJob

# Of a model so small that an epoch of 48 images of 64 px takes a third of a second.
ARGUMENTS: Mapping[str, Any] = {
    "epochs": 4,
    "batch": 8,
    "imgsz": 64,
    "optimizer": "AdamW",
    "lr0": 0.003,
    "momentum": 0.9,
    "nbs": 24,  # three batches to an optimizer step
    "warmup_epochs": 1,
    "close_mosaic": 1,
    "seed": 3,
    "amp": False,
}


EVERY_BATCH = 1e-6  # seconds between snapshots: one after every batch that an optimizer step follows


@cache
def data(root: Path, train: int = 48, val: int = 16, classes: int = 3) -> Path:
    """Return the YAML of a demo data set below ``root``; where it has other classes, objects are dealt out to them."""
    path = demo.make(root / f"demo-{train}-{val}-{classes}", train=train, val=val)
    if classes != 3:
        for label in sorted(path.parent.glob("labels/*/*.txt")):
            rows = [row.split(" ", 1) for row in label.read_text().splitlines()]
            dealt = [(int(label.stem[-5:]) + place) % classes for place in range(len(rows))]
            label.write_text("".join(f"{kind} {outline}\n" for kind, (_, outline) in zip(dealt, rows, strict=True)))
        described = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**described, "names": {kind: f"kind {kind}" for kind in range(classes)}}))
    return path


FAMILIES = {"v8": "yolov8", "11": "yolo11", "26": "yolo26"}


SMALL = Path(__file__).parent / "small-seg.yaml"


@cache
def model(root: Path, width: float = 0.0625, family: str = "v8") -> Path:
    """Return the YAML of a whole family's model, tiny, below ``root``; YOLO11 and YOLO26 need a width of 0.125."""
    import ultralytics

    source = Path(ultralytics.__file__).parent / f"cfg/models/{family}/{FAMILIES[family]}-seg.yaml"
    description = yaml.safe_load(source.read_text())
    description["scales"] = {"n": [0.33, width, 1024]}
    path = root / f"tiny-{family}-{width}-seg.yaml"
    path.write_text(yaml.safe_dump(description))
    return path


@cache
def pretrained(root: Path, architecture: str, classes: int) -> Path:
    """Return weights as Ultralytics publishes them, of random values: what training makes of them is of no matter.

    Args:
        architecture: A name that Ultralytics knows ("yolo11n-seg.yaml"), or the path of a file.
        classes: How many the weights were trained on.
    """
    from ultralytics.nn.tasks import SegmentationModel

    from petskin_tune.training.snapshots import weights

    torch.manual_seed(classes)
    source = SegmentationModel(architecture, nc=classes, verbose=False)
    source.names = {kind: f"thing {kind}" for kind in range(classes)}
    path = root / f"{Path(architecture).stem}-{classes}.pt"
    weights.write(weights.checkpoint(source, {"task": "segment"}, {}, 1), path)
    return path


def job(root: Path, run: str, **changes: Any) -> TrialJob:
    """Return a job in the folder ``root/run``; ``arguments`` among the changes are added to the tiny study's."""
    arguments = {**ARGUMENTS, **changes.pop("arguments", {})}
    plain = TrialJob(
        study="tiny",
        trial=0,
        run_folder=str(root / run),
        model=str(SMALL),
        data=str(data(root)),
        arguments=arguments,
        device="cpu",
        threads=1,
        snapshot_every=0,
        identity={"study": "tiny", "trial": "0", "data": "demo", "model": "tiny"},
        workers=0,
    )
    return replace(plain, **changes)


class Recorder:
    """A channel for training in the test's own process."""

    def __init__(self, react: Callable[[Event], Order | None] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.order: Order | None = None
        self._react = react

    def send(self, event: Event) -> None:
        self.events.append(event)
        self.order = self._react(event) or self.order


@dataclass
class Life:
    """What a parent saw of one training process."""

    events: list[Event] = field(default_factory=list)
    exit_code: int | None = None
    fired: str = ""  # the faults that fired, a line each

    @property
    def snapshot(self) -> str | None:
        written = [event.path for event in self.events if isinstance(event, SnapshotWritten)]
        return written[-1] if written else None


def live(
    job: TrialJob,
    faults: str = "",
    react: Callable[[Event], Order | None] = lambda event: None,
    kill_when: Callable[[Event], bool] = lambda event: False,
    kill_after: float | None = None,
    method: str = "forkserver",
    witness: Path | None = None,
) -> Life:
    """Run a job in a process of its own until it ends.

    Args:
        faults: As TUNE_FAULTS; points at which the process dies.
        react: May answer an event with an order.
        kill_when: Says after which event the process is killed.
        kill_after: Seconds from the first event to SIGKILL.
        method: How the process is started.
        witness: A file to which every use of the network is written.
    """
    log = Path(job.run_folder).parent / f"{Path(job.run_folder).name}.faults"
    log.write_text("")
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["petskin_tune.training.process.preload"])
    ours, theirs = context.Pipe()
    environment = {"TUNE_FAULTS": faults, "TUNE_FAULTS_LOG": str(log), "NETWORK_WITNESS": str(witness or "")}
    process = context.Process(target=_child, args=(theirs, job, environment))
    process.start()
    theirs.close()
    life = Life()
    while True:
        try:
            event = ours.recv()
        except (EOFError, ConnectionResetError):
            break
        life.events.append(event)
        if kill_after is not None and len(life.events) == 1:
            threading.Timer(kill_after, process.kill).start()
        if kill_when(event):
            process.kill()
            kill_when = _never
        if order := react(event):
            with contextlib.suppress(BrokenPipeError):
                ours.send(order)
    process.join()
    life.exit_code, life.fired = process.exitcode, log.read_text()
    return life


def _child(connection: Connection, job: TrialJob, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    from petskin_tune.training.process.child import main

    if witness := environment.get("NETWORK_WITNESS"):
        _watch_the_network(Path(witness))
    if job.snapshot_every == EVERY_BATCH:
        _wait_for_every_snapshot()
    main(connection, job)


def _watch_the_network(witness: Path) -> None:
    """Write every attempt to use the network to a file."""
    witness.write_text("watching\n")

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname") and arguments[-1] != "":
            if isinstance(arguments[-1], (str, bytes)) and event == "socket.connect":
                return  # a Unix socket
            with witness.open("a") as file:
                file.write(f"{event} {arguments}\n")

    sys.addaudithook(watch)


def waiting_keeper() -> type:
    """Return a keeper that writes every snapshot asked for: where must not depend on how busy this machine is."""
    from petskin_tune.training.snapshots import schedule as keeper

    class Waiting(keeper.SnapshotKeeper):
        def begin(self, *arguments: Any) -> None:
            super().begin(*arguments)
            self.wait()
            self._pause = self._every

    return Waiting


def _wait_for_every_snapshot() -> None:
    from petskin_tune.training import trainer

    trainer.SnapshotKeeper = waiting_keeper()


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL, which ``live`` sends."""


def run_here(job: TrialJob, point: str | None = None, nth: int = 0) -> list[Event]:
    """Train a job in the test's own process, killed when a point is reached for the n-th time; return its events.

    A job that ends before was not killed: its last event says how it ended.
    """
    from petskin_tune import faults
    from petskin_tune.training.attempts import run

    reached = 0

    def reach(name: str) -> None:
        nonlocal reached
        reached += name == point
        if name == point and reached == nth:
            raise Killed

    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faults, "reach", reach)
        with contextlib.suppress(Killed):
            recorder.send(run(job, recorder))
    return recorder.events


def _never(event: Event) -> bool:
    return False


def live_on(job: TrialJob, deaths: list[Mapping[str, Any]]) -> list[Life]:
    """Kill a job in each of these ways in turn, go on from its newest snapshot, and let it end at last.

    Args:
        deaths: Arguments of ``live``; every one of them must end in SIGKILL, and faults must have fired.
    """
    lives, newest = [], None
    for death in deaths:
        life = live(replace(job, snapshot=newest), **death)
        assert life.exit_code == -signal.SIGKILL, f"{death} did not kill: {life.events[-1]}"
        assert life.fired or "faults" not in death, f"{death} did not fire"
        newest = life.snapshot or newest
        lives.append(life)
    lives.append(live(replace(job, snapshot=newest)))
    return lives


@contextlib.contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let the system refuse every byte of a file beyond the first ``room`` (EFBIG, for want of a disk to fill)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- comparing two runs ---------------------------------------------------------------------------------------------


def final_state(run_folder: str | Path) -> dict[str, Any]:
    """Return all that a finished run left, without its clock and its machine's words."""
    from petskin_tune.training.snapshots import file as snapshot

    folder = Path(run_folder)
    newest = max(folder.glob("snapshots/*.pt"), key=lambda path: path.name)
    state = snapshot.read(newest)
    for clock in ("times", "elapsed"):
        del state[clock]
    rows = list(csv.DictReader((folder / "results.csv").open()))
    for row in rows:
        del row["time"]
    best = torch.load(folder / "weights/best.pt", weights_only=False)["model"].state_dict()
    return {"state": state, "results": rows, "best": best}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """List where two nested values differ; tensors are compared bit for bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [path]
    if isinstance(one, Mapping):
        if not isinstance(other, Mapping) or one.keys() != other.keys():
            return [path]
        return [found for key in one for found in differences(one[key], other[key], f"{path}/{key}")]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [path]
        return [
            found for i, (a, b) in enumerate(zip(one, other, strict=True)) for found in differences(a, b, f"{path}/{i}")
        ]
    return [] if one == other else [path]


def curve(lives: list[Life]) -> dict[int, Mapping[str, float]]:
    """Return the metrics of every epoch over several lives; an epoch told twice must be told the same."""
    told: dict[int, Mapping[str, float]] = {}
    for event in (event for life in lives for event in life.events if isinstance(event, EpochDone)):
        assert told.setdefault(event.epoch, event.metrics) == event.metrics, f"epoch {event.epoch} was told differently"
    return told


def notes(events: Iterable[Event]) -> list[str]:
    """Return what was noted, but for the snapshot interval: that depends on how busy this machine's disk is."""
    noted = [event for event in events if isinstance(event, Note)]
    return [note.message for note in noted if note.key != "snapshot-interval"]


def started_at(life: Life) -> Position:
    """Return where a life began."""
    return next(event.position for event in life.events if isinstance(event, Started))
