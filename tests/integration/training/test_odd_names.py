"""Names of files are bytes: a trial trains in folders whose names are no UTF-8, and on what lies in them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from petskin_tune.protocol import Finished
from tests.support import training as helpers

ODD = os.fsdecode(b"pets-\xff")


@pytest.fixture
def odd(root: Path) -> Path:
    folder = root / ODD
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize("suffix", [".yaml", ".pt"])
def test_a_trial_trains_in_a_folder_whose_name_is_no_utf8(root: Path, odd: Path, suffix: str) -> None:
    model = odd / f"small-seg{suffix}"
    shutil.copy(helpers.SMALL if suffix == ".yaml" else helpers.pretrained(root, str(helpers.SMALL), 3), model)
    job = helpers.job(
        odd, f"run{suffix}", model=str(model), data=str(helpers.data(odd, train=8, val=2)), arguments={"epochs": 1}
    )
    events = helpers.run_here(job)
    assert isinstance(events[-1], Finished), events[-1]
    written = (Path(job.run_folder) / "args.yaml").read_text(encoding="utf-8")
    assert r"pets-\xff" in written
