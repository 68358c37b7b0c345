"""Diagnosis of runs that stock Ultralytics trained a moment ago: each illness provoked for real, on the demo data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from petskin_tune.datasets import demo
from petskin_tune.diagnosis.curves import from_history
from petskin_tune.diagnosis.explain import of_run
from petskin_tune.diagnosis.run_files import read_run
from petskin_tune.diagnosis.verdict import judge

pytestmark = pytest.mark.slow

TRAIN = """
import json, sys
import torch
from ultralytics import YOLO
torch.set_num_threads(1)
arguments = json.loads(sys.argv[1])
YOLO(arguments.pop("model")).train(**arguments)
"""

NO_AUGMENTATION = dict.fromkeys(("mosaic", "fliplr", "scale", "translate", "hsv_h", "hsv_s", "hsv_v"), 0.0)
LEARNING = {"epochs": 14, "optimizer": "AdamW", "lr0": 0.003, "close_mosaic": 2}


def train(folder: Path, data: Path, name: str, **changes: Any) -> Path:
    """Train with stock Ultralytics in a process of its own; gives the run folder."""
    arguments = {
        "model": "yolov8n-seg.yaml",
        "data": str(data),
        "imgsz": 64,
        "batch": 8,
        "nbs": 8,
        "workers": 0,
        "amp": False,
        "plots": False,
        "project": str(folder),
        "name": name,
    }
    environment = os.environ | {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(folder / "config"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", TRAIN, json.dumps(arguments | changes)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return demo.make(folder / "data", train=64, val=16)


@pytest.fixture(scope="module")
def learnt(folder: Path, data: Path) -> Path:
    return train(folder, data, "learnt", **LEARNING)


def kinds(run: Path) -> list[str]:
    return [finding.kind for finding in judge(read_run(run))]


def test_a_stock_run_that_learns_and_was_cut_short_is_told_to_go_on(learnt: Path) -> None:
    assert kinds(learnt) == ["still-improving"]


def test_a_stock_run_at_a_hundred_times_the_usual_rate_diverged(folder: Path, data: Path) -> None:
    run = train(folder, data, "broken", epochs=10, optimizer="SGD", lr0=1.0, momentum=0.99, warmup_epochs=0)
    assert kinds(run) == ["diverged"]


def test_a_stock_run_at_a_vanishing_rate_did_not_learn_and_is_told_to_raise_it(folder: Path, data: Path) -> None:
    run = train(folder, data, "asleep", epochs=8, optimizer="AdamW", lr0=1e-7, warmup_epochs=0)
    (finding,) = judge(read_run(run))
    assert finding.kind == "not-learning"
    assert "10000 times below the usual 0.001: raise lr0" in finding.advice


def test_a_stock_run_that_goes_on_from_learnt_weights_at_a_vanishing_rate_is_stuck(
    folder: Path, data: Path, learnt: Path
) -> None:
    weights = str(learnt / "weights" / "best.pt")
    vanishing = {"optimizer": "AdamW", "lr0": 1e-7, "warmup_epochs": 0, "freeze": 22, **NO_AUGMENTATION}
    (finding,) = judge(read_run(train(folder, data, "stuck", model=weights, epochs=12, **vanishing)))
    assert finding.kind == "stuck"
    assert "a learning rate that is too low, not a local minimum" in finding.message


def test_what_diagnose_says_of_a_run_folder_is_what_its_history_says(learnt: Path) -> None:
    curves = read_run(learnt)
    history = {"metrics/mAP50-95(M)": curves.fitness, "train/all": curves.train_loss, "lr/pg0": curves.learning_rate}
    (finding,) = judge(from_history(history, curves.arguments))
    assert finding.message in of_run(learnt)
