"""What a rung costs: batches thrown away and seconds without training, of a real small study of ``freeze-thaw``.

    python benchmarks/search.py --rung               # or this file; three minutes on two cores, nothing to download

At a rung the trial's process takes its snapshot and trains on while its worker reports and chooses. Where the choice is
to go on, nothing was lost but the copy of the state; where it is to freeze, the batches since are thrown away. Beside
it, from the same run: what every rung would cost a worker whose training waits for the choice. How long the processor
is idle from one trial to the next is printed, too: that is a process's start, and no rung's.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

RUNGS, EPOCHS, RUNS = (3, 6), 9, 4  # epochs after which a trial may pause, of a trial, full runs of the study
STUDY: dict[str, Any] = {
    "study": "rungs",
    "data": "demo",
    "epochs": EPOCHS,
    "train": {
        "imgsz": 64,
        "batch": 4,
        "nbs": 4,
        "optimizer": "AdamW",
        "warmup_epochs": 1,
        "warmup_bias_lr": 0.0,
        "close_mosaic": 2,
        "amp": False,
        "workers": 0,
    },
    "search": {"lr0": {"low": 3e-4, "high": 2e-2, "log": True}, "momentum": [0.8, 0.98], "mosaic": [0.0, 1.0]},
    "sampler": {"name": "freeze-thaw", "rungs": list(RUNGS)},
    "snapshot_every": "5m",
}
NOTES = "notes.txt"  # of a run folder: what its processes did, and when
BATCH, VALIDATED, BEGIN = "batch-done", "epoch-validated", "begin"


# ---- in a trial's process --------------------------------------------------------------------------------------------


def noted_child(connection: Any, job: Any) -> None:
    """A trial's process that notes its batches and its epochs (monotonic seconds, which all processes share)."""
    from petskin_tune import faults
    from petskin_tune.training.process.child import main as train

    with open(Path(job.run_folder) / NOTES, "a", buffering=1, encoding="utf-8") as notes:
        notes.write(f"{BEGIN} {time.monotonic()}\n")

        def reach(point: str) -> None:
            if point in (BATCH, VALIDATED):
                notes.write(f"{point} {time.monotonic()}\n")

        faults.reach = reach
        train(connection, job)


@dataclass
class Process:
    """One process of a trial: instants of its batches, and of the ends of its epochs, validation included."""

    batches: list[float] = field(default_factory=list)
    validated: list[float] = field(default_factory=list)


def processes_of(notes: Path) -> list[Process]:
    """All processes of a trial, in their order."""
    found: list[Process] = []
    for line in notes.read_text(encoding="utf-8").splitlines():
        point, instant = line.split()
        if point == BEGIN:
            found.append(Process())
        else:
            (found[-1].batches if point == BATCH else found[-1].validated).append(float(instant))
    return found


# ---- in the worker ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What was said of a trial at a rung, and when."""

    trial: int
    epoch: int
    freeze: bool
    at: float


def worked(place: Path, runs: float) -> list[Verdict]:
    """Work on the study in this process to its end; the verdicts of its rungs."""
    from petskin_tune.commands.worker import Request, start_worker
    from petskin_tune.interrupts import Signals
    from petskin_tune.opening.places import Places
    from petskin_tune.trial import run
    from petskin_tune.trial.process import runner as process

    verdicts: dict[tuple[int, int], Verdict] = {}
    plain = run.judge

    @functools.wraps(plain)
    def judge(trial: Any, workplace: Any, epoch: int, own: Any) -> Any:
        verdict = plain(trial, workplace, epoch, own)
        if epoch in RUNGS:  # a thawed trial is judged once more where it stood: that is no rung
            verdicts.setdefault((trial.number, epoch), Verdict(trial.number, epoch, verdict.freeze, time.monotonic()))
        return verdict

    run.judge, process._child = judge, noted_child
    places = Places(str(_study(place, runs)), home=str(place / "home"))
    with Signals() as signals:
        code = start_worker(places, Request(device="cpu"), signals)
    if code:
        raise SystemExit(code)
    return list(verdicts.values())


def _study(place: Path, runs: float) -> Path:
    import yaml

    model = str(Path(__file__).with_name("small-seg.yaml"))
    path = place / "rungs.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "model": model, "budget": runs}))
    return path


# ---- what it cost ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rung:
    """One rung that a trial has reached.

    Attributes:
        choice: seconds from the end of the epoch to the verdict.
        thrown: instants of the batches that were trained after it for nothing.
        standstill: seconds from the end of the epoch to the end of the next batch.
    """

    freeze: bool
    choice: float
    thrown: tuple[float, ...]
    standstill: float | None


def rungs_of(trial: int, processes: Sequence[Process], verdicts: Sequence[Verdict]) -> Iterator[Rung]:
    """The rungs of a trial; each of its processes began where the one before was frozen."""
    own = [verdict for verdict in verdicts if verdict.trial == trial]
    begins = [0, *(verdict.epoch for verdict in own if verdict.freeze)]
    for begin, process, end in zip(begins, processes, [*begins[1:], EPOCHS], strict=False):
        for verdict in own:
            if begin < verdict.epoch <= end and verdict.epoch - begin <= len(process.validated):
                reached = process.validated[verdict.epoch - begin - 1]
                after = [instant for instant in process.batches if instant > reached]
                standstill = after[0] - reached if after else None
                thrown = tuple(after) if verdict.freeze else ()
                yield Rung(verdict.freeze, verdict.at - reached, thrown, standstill)


def ordinary_ends(processes: Sequence[Process], rungs: Sequence[Rung]) -> list[float]:
    """Seconds from the end of an epoch that is no rung to the end of the next batch."""
    at_rungs = {rung.standstill for rung in rungs}
    found = []
    for process in processes:
        for validated in process.validated:
            if after := [instant for instant in process.batches if instant > validated]:
                found.append(after[0] - validated)
    return [seconds for seconds in found if seconds not in at_rungs]


def report(trials: dict[int, list[Process]], verdicts: Sequence[Verdict]) -> None:
    rungs = [rung for trial, processes in trials.items() for rung in rungs_of(trial, processes, verdicts)]
    processes = sorted(
        (one for found in trials.values() for one in found if one.batches), key=lambda one: one.batches[0]
    )
    frozen, on = [rung for rung in rungs if rung.freeze], [rung for rung in rungs if not rung.freeze]
    batches = sum(len(process.batches) for process in processes)
    thrown = sum(len(rung.thrown) for rung in frozen)
    seconds = statistics.median(
        later - earlier for process in processes for earlier, later in pairwise(process.batches)
    )
    ordinary = ordinary_ends(processes, rungs)
    usual = statistics.median(ordinary) if ordinary else 0.0
    stood = [max(0.0, rung.standstill - usual) for rung in on if rung.standstill is not None]
    ours = (thrown * seconds + sum(stood)) / max(len(rungs), 1)
    waits = statistics.fmean(rung.choice for rung in rungs)
    print(f"\n{len(rungs)} rungs: {len(frozen)} times frozen, {len(on)} times gone on with; {batches} batches\n")
    print("| a rung | |\n|---|---|")
    print(f"| batches thrown away where it freezes, mean | {thrown / max(len(frozen), 1):.1f} |")
    print(f"| of all batches | {thrown / batches:.1%} |")
    print(
        f"| seconds that training stands still where it goes on, beyond an ordinary epoch's end | {_mean(stood):.3f} |"
    )
    print(f"| seconds from the epoch's end to the choice, median and longest | {_spread(rungs)} |")
    print(f"| **lost a rung, ours: thrown away or stood still** | **{ours:.3f} s** |")
    print(f"| lost a rung where training waits for the choice | {waits:.3f} s |")
    print(f"| **ratio** | **{ours / waits:.2f}** |")
    print(
        f"| seconds from one trial's last batch to the next one's first, median | {_switch(processes, seconds):.2f} |"
    )


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else 0.0


def _spread(rungs: Sequence[Rung]) -> str:
    choices = [rung.choice for rung in rungs]
    return f"{statistics.median(choices):.2f}, {max(choices):.2f}"


def _switch(processes: Sequence[Process], seconds: float) -> float:
    """Between two processes, less a batch of ``seconds``."""
    gaps = [later.batches[0] - earlier.batches[-1] - seconds for earlier, later in pairwise(processes)]
    return statistics.median(gaps) if gaps else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=float, default=RUNS, help="full runs' worth of epochs")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        verdicts = worked(place, runs)
        notes = sorted((place / "home" / "work" / "trials").glob(f"*/{NOTES}"))
        report({int(path.parent.name.split("-")[1]): processes_of(path) for path in notes}, verdicts)


if __name__ == "__main__":
    main()
