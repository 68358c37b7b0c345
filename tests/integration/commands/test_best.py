"""``petskin-tune best`` as it is typed: files of odd names, and trials that a person has added to the study."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from optuna.trial import create_trial

from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.cli import petskin_tune
from tests.support.made_up import MadeUp
from tests.support.pictures import weights


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    """A study whose best trial has weights; its home is the one that commands look for."""
    monkeypatch.chdir(tmp_path)
    made = MadeUp(tmp_path / "tune-home")
    store = FolderStore(tmp_path / "tune-home" / "checkpoints", network=False)
    made.add(best=0.2, weights=weights(store, made.study.uid, 0, tmp_path / "tune-home" / "weights.pt"))
    return made


def test_settings_are_written_to_a_file_whose_name_is_not_utf_8(made: MadeUp) -> None:
    file = Path(os.fsdecode("털.yaml".encode("cp949")))
    written = CliRunner().invoke(petskin_tune, ["best", "--yaml", str(file)])
    assert written.exit_code == 0, written.output
    assert written.stdout.startswith(r"\xc5\xd0.yaml has the settings of trial 0")
    text = file.read_text(encoding="utf-8")
    assert yaml.safe_load(text)["imgsz"] == 480
    assert r"# Type: yolo train cfg=\xc5\xd0.yaml" in text


def test_what_a_person_calls_weights_on_a_trial_of_their_own_is_no_file_of_the_store(made: MadeUp) -> None:
    made.study.optuna.add_trial(create_trial(value=0.9, user_attrs={"weights": "runs/train/weights/best.pt"}))
    refused = CliRunner().invoke(petskin_tune, ["best", "--weights", "best.pt"])
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.startswith(
        "error: The weights of trial 1 are not kept (kept are those of trial 0); train them: petskin-tune train "
    )
    assert refused.stderr.count("\n") == 1
    assert not Path("best.pt").exists()
