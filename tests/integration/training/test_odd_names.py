"""A trial trains in folders of any name, and on what lies in them: names of files are bytes, and people's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from petskin_tune.printable import printable
from petskin_tune.protocol import Finished
from petskin_tune.training.pictures import validation
from tests.support import training as helpers

ODD = {
    "no UTF-8": os.fsdecode(b"pets-\xff"),
    "apostrophe": "Kim's pets",  # Ultralytics takes apostrophes out of the paths of weights
    "another release": "yolov5 and u.yaml",  # in whose files it adds or takes out a letter
}


@pytest.mark.parametrize("suffix", [".yaml", ".pt"])
@pytest.mark.parametrize("kind", ODD)
def test_a_trial_trains_in_a_folder_of_any_name(root: Path, kind: str, suffix: str) -> None:
    odd = root / ODD[kind]
    odd.mkdir(exist_ok=True)
    model = odd / f"small-seg{suffix}"
    shutil.copy(helpers.SMALL if suffix == ".yaml" else helpers.pretrained(root, str(helpers.SMALL), 3), model)
    job = helpers.job(
        odd, f"run{suffix}", model=str(model), data=str(helpers.data(odd, train=8, val=2)), arguments={"epochs": 1}
    )
    events = helpers.run_here(job)
    assert isinstance(events[-1], Finished), events[-1]
    written = (Path(job.run_folder) / "args.yaml").read_text(encoding="utf-8")
    assert printable(ODD[kind]) in written.replace("''", "'")
    model, _ = validation.load_checkpoint(f"{job.run_folder}/weights/best.pt")
    assert model.task == "segment"
