from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from petskin_tune.datasets import demo
from petskin_tune.study import attributes
from petskin_tune.study.spec import Range, StudySpec
from petskin_tune.views.export import write_yaml


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The YAML of the best trial of a study on the demo data, as `petskin-tune best --yaml` writes it."""
    data = demo.make(tmp_path / "data", train=8, val=4)
    spec = StudySpec(
        study="small",
        model="yolov8n-seg.yaml",
        data=str(data),
        epochs=1,
        train={"imgsz": 64, "batch": 4, "optimizer": "AdamW", "amp": False},
        search={"lr0": Range(low=1e-5, high=1e-2, log=True)},
    )
    study = optuna.create_study(study_name="small", direction="maximize")
    study.set_user_attr(attributes.SPEC, spec.model_dump(mode="json"))
    lr0 = FloatDistribution(1e-5, 1e-2, log=True)
    study.add_trial(create_trial(value=0.3, params={"lr0": 0.0021}, distributions={"lr0": lr0}))
    write_yaml(study, tmp_path / "best.yaml")
    return tmp_path / "best.yaml"


def test_ultralytics_accepts_every_key_and_value_of_the_yaml(exported: Path) -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg

    written = yaml.safe_load(exported.read_text())
    assert set(written) <= set(DEFAULT_CFG_DICT)
    in_force = vars(get_cfg(overrides=written))
    assert {name: in_force[name] for name in written} == written


def test_yolo_train_takes_the_yaml_unchanged_and_trains_what_it_says(exported: Path, tmp_path: Path) -> None:
    yolo = [sys.executable, "-c", "from ultralytics.cfg import entrypoint; entrypoint()"]
    environment = os.environ | {
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(tmp_path / "config"),
        "OMP_NUM_THREADS": "1",
    }
    # Else it lies in a git repository around Ultralytics' own package, or where a settings file says.
    place = [f"project={tmp_path / 'runs'}", "name=exported"]
    run = [*yolo, "train", f"cfg={exported}", *place, "plots=False"]  # drawn in twice the time that it trains
    result = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    arguments = tmp_path / "runs" / "exported" / "args.yaml"
    in_force = yaml.safe_load(arguments.read_text())
    written = yaml.safe_load(exported.read_text())
    assert {name: in_force[name] for name in written} == written
    with open(arguments.parent / "results.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
