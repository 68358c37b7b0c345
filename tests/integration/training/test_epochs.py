"""What a trial tells of its epochs: masks class by class, and what its batches and its validation took."""

from __future__ import annotations

import types
from dataclasses import replace

import pytest

from petskin_tune.datasets import demo, layout
from petskin_tune.datasets.labels.rows import label_path
from petskin_tune.diagnosis.run_files import read_run
from petskin_tune.diagnosis.verdict import findings, judge
from petskin_tune.protocol import MASK_MAP, EpochDone, Finished, Progress, Suspend
from petskin_tune.training import throughput
from petskin_tune.training import trainer as loop
from petskin_tune.training.attempts import run
from petskin_tune.training.data.loading import image_cache_bytes
from petskin_tune.training.snapshots.state import Decisions
from petskin_tune.training.trainer import ResumableTrainer
from petskin_tune.training.trial_trainer import TrialTrainer
from petskin_tune.trial.recorder import appended
from tests.support import training as helpers

BATCH_SECONDS, VALIDATION_SECONDS = 0.3, 40.0
LEARNS = {"epochs": 6, "batch": 4, "nbs": 4, "lr0": 0.005, "mosaic": 0.0, "warmup_bias_lr": 0.0}


def train(job, react=lambda event: None):
    recorder = helpers.Recorder(react)
    recorder.send(run(job, recorder))
    return recorder.events


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


def without_labels(data, split, number):
    """Take all objects of one class out of the labels of one split."""
    for image in layout.read(data).images[split]:
        label = label_path(image)
        kept = [line for line in label.read_text().splitlines() if not line.startswith(f"{number} ")]
        label.write_text("".join(f"{line}\n" for line in kept))
    return data


@pytest.mark.slow
def test_a_class_that_was_never_labelled_in_train_is_told_by_name_from_a_real_trial(root):
    data = without_labels(demo.make(root / "unlabelled", train=64, val=16), "train", 2)
    model = str(helpers.model(root, 0.25))
    job = helpers.job(root, "never", data=str(data), model=model, arguments=LEARNS, snapshot_every=1e9)
    epochs = of_type(train(job), EpochDone)
    names = demo.NAMES
    assert all({f"{MASK_MAP}/{name}" for name in names} <= event.metrics.keys() for event in epochs)
    last = epochs[-1].metrics
    assert last[MASK_MAP] == pytest.approx(sum(last[f"{MASK_MAP}/{name}"] for name in names) / 3, abs=1e-4)
    history = {}
    for event in epochs:
        history = appended(history, event.epoch, event.metrics)
    found = findings(history, job.arguments)
    assert f"Never found: {names[2]}." in found["class-never-found"]
    told = [finding.message for finding in judge(read_run(root / "never")) if finding.kind == "class-never-found"]
    assert told == [found["class-never-found"]]


def test_a_class_without_objects_in_validation_is_not_recorded_and_the_others_are_after_a_resumption_too(root):
    data = without_labels(demo.make(root / "unseen", train=16, val=16), "val", 1)
    job = helpers.job(root, "whole", data=str(data), arguments={"epochs": 2})
    whole = of_type(train(job), EpochDone)
    recorded = [name for name in whole[0].metrics if name.startswith(f"{MASK_MAP}/")]
    assert recorded == [f"{MASK_MAP}/{demo.NAMES[0]}", f"{MASK_MAP}/{demo.NAMES[2]}"]
    assert list(whole[0].metrics)[-2:] == recorded  # after Ultralytics' own
    halves = replace(job, run_folder=str(root / "halves"))
    suspended = train(halves, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)[-1]
    events = train(replace(halves, snapshot=suspended.snapshot.path))
    assert isinstance(events[-1], Finished)
    assert [event.metrics for event in of_type(events, EpochDone)] == [whole[1].metrics]
    rows = [(root / run / "results.csv").read_text().splitlines() for run in ("whole", "halves")]
    assert rows[0][0] == rows[1][0]
    assert len(rows[1]) == 3


def test_neither_validation_nor_snapshot_is_taken_for_a_part_of_a_batch(root, monkeypatch):
    clock = types.SimpleNamespace(now=0.0)
    for module in (loop, throughput):
        monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    accumulate, validate = ResumableTrainer._accumulate_gradients, ResumableTrainer.validate

    def slow_batch(self, batch, index):
        clock.now += BATCH_SECONDS
        accumulate(self, batch, index)

    def slow_validation(self):
        clock.now += VALIDATION_SECONDS
        return validate(self)

    monkeypatch.setattr(ResumableTrainer, "_accumulate_gradients", slow_batch)
    monkeypatch.setattr(ResumableTrainer, "validate", slow_validation)
    events = train(helpers.job(root, "timed", arguments={"epochs": 3}, snapshot_every=1e9))
    progress = of_type(events, Progress)
    assert {event.position.epoch for event in progress} == {0, 1, 2}
    assert [event.images_per_second for event in progress] == pytest.approx([8 / BATCH_SECONDS] * len(progress))
    for event in of_type(events, EpochDone):
        assert event.training_seconds == pytest.approx(6 * BATCH_SECONDS)
        assert event.validation_seconds == pytest.approx(VALIDATION_SECONDS)


def test_a_part_of_the_data_that_stands_for_the_whole_takes_its_share_of_the_memory_for_images(root, monkeypatch):
    monkeypatch.setattr("petskin_tune.training.trial_trainer.image_cache_bytes", lambda: 1000)
    assert image_cache_bytes() > 1000
    for share, limit in ((1.0, 1000), (0.012, 12)):
        setup = TrialTrainer(helpers.job(root, "cache", cache_share=share), Decisions())
        setup._setup_train()
        assert setup.train_loader.dataset.images.limit == limit
