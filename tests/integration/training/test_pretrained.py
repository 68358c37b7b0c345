"""Models that begin with weights of other data: killed and resumed without those weights, they end as undisturbed.

``BaseModel.load`` of Ultralytics gives a model the class branch of the weights: no architecture file says how it looks.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product

import pytest

from petskin_tune.protocol import Finished, SnapshotWritten
from petskin_tune.training import trainer
from petskin_tune.training.trial_trainer import TrialTrainer
from tests.support import training as helpers
from tests.support.provocations import poisoned_at
from tests.support.soak import part

SLOW = pytest.mark.slow
SHORT = {"epochs": 1, "imgsz": 32, "batch": 4, "nbs": 8}  # of four batches
WIDTHS = {"v8": 0.0625, "11": 0.125, "26": 0.125}  # of models that are small enough for the default tests


def architecture(root, family, scale):
    if scale == "tiny":
        return str(helpers.model(root, WIDTHS[family], family))
    return f"{helpers.FAMILIES[family]}{scale}-seg.yaml"


TINY = [(family, "tiny", 80, 2) for family in helpers.FAMILIES]
PUBLISHED = list(product(helpers.FAMILIES, ("n", "s"), (80, 200), (2, 7)))
KINDS = [
    pytest.param(*kind, id="{}{}, {} to {} classes".format(*kind), marks=() if kind[:2] == ("11", "tiny") else SLOW)
    for kind in (*TINY, *part(PUBLISHED, least=8))
]


@pytest.mark.parametrize(("family", "scale", "source", "classes"), KINDS)
def test_pretrained_weights_are_resumed_without_the_weights(root, monkeypatch, family, scale, source, classes):
    monkeypatch.setattr(trainer, "SnapshotKeeper", helpers.waiting_keeper())
    weights = helpers.pretrained(root, architecture(root, family, scale), source)
    data = str(helpers.data(root, train=16, val=4, classes=classes))
    name = f"{family}{scale}-{source}-{classes}"
    alone = helpers.job(root, f"alone-{name}", model=str(weights), data=data, arguments=SHORT)
    assert isinstance(helpers.run_here(alone)[-1], Finished)

    job = replace(alone, run_folder=str(root / f"killed-{name}"), snapshot_every=helpers.EVERY_BATCH)
    events = helpers.run_here(job, "batch-done", 3)
    assert not isinstance(events[-1], Finished), "it was not killed"
    written = [event for event in events if isinstance(event, SnapshotWritten)][-1]
    resumed = helpers.run_here(replace(job, snapshot=written.path, model="weights-that-are-gone.pt"))
    assert isinstance(resumed[-1], Finished), resumed[-1]
    assert helpers.differences(helpers.final_state(alone.run_folder), helpers.final_state(job.run_folder)) == []
    for run_folder in (alone.run_folder, job.run_folder):
        shutil.rmtree(run_folder)


def test_a_fall_back_goes_on_with_the_class_branch_of_the_weights(root, monkeypatch):
    """It throws the trainer away and builds another from its state."""
    monkeypatch.setattr(TrialTrainer, "_mixed_precision_available", lambda self: True)
    poison = poisoned_at(monkeypatch, 0, 2, "amp")
    weights = helpers.pretrained(root, str(helpers.model(root)), 80)
    events = helpers.run_here(helpers.job(root, "fall-back", model=str(weights), arguments={**SHORT, "amp": True}))
    assert poison.fired == 1
    assert isinstance(events[-1], Finished), events[-1]
    assert any("fp32 from now on" in note for note in helpers.notes(events)), helpers.notes(events)
