"""Run folders and logs of tune as Ultralytics leaves them, and a study to import them into."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from petskin_tune.database.storage import PetskinStorage
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from petskin_tune.study.spec import PrunerSpec, Range, SamplerSpec, StudySpec
from petskin_tune.study.study import Study
from tests.support.curves import BOX, MASK
from tests.support.studies import a_spec

EPOCHS = 9
SEARCH = {"lr0": Range(low=1e-5, high=1e-1, log=True), "momentum": Range(low=0.6, high=0.98)}
ARGUMENTS = {
    "model": "/content/yolov8l-seg.pt",
    "data": "/content/datasets/petskin/data.yaml",
    "epochs": EPOCHS,
    "imgsz": 480,
    "batch": 16,
    "warmup_epochs": 1,
    "optimizer": "AdamW",
    "lr0": 0.001,
    "momentum": 0.9,
}


def spec(**changes: Any) -> StudySpec:
    """A study by `freeze-thaw` over lr0 and momentum, to which a run of ARGUMENTS can be compared."""
    known: dict[str, Any] = {
        "epochs": EPOCHS,
        "train": {"imgsz": 480, "batch": 16, "optimizer": "AdamW", "warmup_epochs": 1},
        "search": SEARCH,
        "sampler": SamplerSpec(name="freeze-thaw"),
        "pruner": PrunerSpec(name="none"),
        "budget": 10 * EPOCHS,
    }
    return a_spec(**known | changes)


def study(storage: PetskinStorage, **changes: Any) -> Study:
    made = spec(**changes)
    return create_study(storage, made, points=(), attributes_of_study={attributes.STORE: "home:///checkpoints"})


def rising(end: float, epochs: int = EPOCHS) -> list[float]:
    return [round(end * (1 - 0.5**epoch), 5) for epoch in range(1, epochs + 1)]


def run_folder(
    folder: Path, scores: Sequence[float], *, masks: bool = True, rates: Sequence[float] = (), **changes: Any
) -> Path:
    """A run folder with one mask mAP an epoch; ``changes`` of ARGUMENTS, None: the argument is left out."""
    folder.mkdir(parents=True)
    column = MASK if masks else BOX
    rates = rates or [0.001] * len(scores)
    rows = [f"{n},2.5,{score},{rate}" for n, (score, rate) in enumerate(zip(scores, rates, strict=True), 1)]
    (folder / "results.csv").write_text("\n".join([f"epoch,train/seg_loss,{column},lr/pg0", *rows]) + "\n")
    known = {name: value for name, value in {**ARGUMENTS, **changes}.items() if value is not None}
    (folder / "args.yaml").write_text(yaml.safe_dump(known))
    return folder


def tune_csv(file: Path, rows: Sequence[Mapping[str, float]]) -> Path:
    """A log with the columns of the first row."""
    names = list(rows[0])
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    file.write_text("\n".join(lines) + "\n")
    return file


def tune_ndjson(file: Path, rows: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> Path:
    """A log of (hyperparameters, metrics) of one data set."""
    lines = [
        {"iteration": n, "fitness": sum(metrics.values()), "hyperparameters": known, "datasets": {"pets": metrics}}
        for n, (known, metrics) in enumerate(rows, 1)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file
