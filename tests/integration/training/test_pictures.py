"""Pictures of a real, small training: the weights' own value, the same images in every trial, and none half made."""

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from petskin_tune.datasets import layout
from petskin_tune.datasets.labels.rows import label_rows
from petskin_tune.protocol import (
    MASK_MAP,
    PICTURES,
    EpochDone,
    Event,
    Failed,
    Finished,
    PicturesJob,
    PicturesMade,
    TrialJob,
)
from petskin_tune.training.pictures import making
from petskin_tune.trial.process.runner import Died, Runner
from tests.support import training as helpers
from tests.support.provocations import memory_for


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialJob, list[EpochDone]]:
    """The job of a finished training that has learnt a little, and what it told of its epochs."""
    root = tmp_path_factory.mktemp("trained")
    data = helpers.data(root, 48, 14, 3)
    arguments = {"epochs": 12, "close_mosaic": 12, "lr0": 0.01, "nbs": 8}
    job = helpers.job(root, "run", data=str(data), arguments=arguments)
    life = helpers.live(job)
    assert isinstance(life.events[-1], Finished), life.events[-1]
    return job, [event for event in life.events if isinstance(event, EpochDone)]


def a_job(trained: tuple[TrialJob, list[EpochDone]], folder: Path, **changes: Any) -> PicturesJob:
    training, epochs = trained
    return replace(
        PicturesJob(
            trial=7,
            run_folder=str(folder),
            weights=str(Path(training.run_folder) / "weights" / "best.pt"),
            data=training.data,
            arguments=training.arguments,
            device="cpu",
            seed=3,
            history={name: [epoch.metrics[name] for epoch in epochs] for name in epochs[0].metrics},
            label_cache=str(folder / "labels"),
            threads=1,
            workers=0,
        ),
        **changes,
    )


def drawn(job: PicturesJob, settings: Path) -> list[Event | Died]:
    """What the process that makes the pictures says."""
    heard: list[Event | Died] = []
    process = Runner(settings).start(job, heard.append)
    with contextlib.ExitStack() as stack:
        stack.callback(process.end, 0.0)
        assert process.wait(300.0)
    return heard


def test_the_pictures_are_of_the_trials_own_value_and_of_the_same_images_in_every_trial(
    trained: tuple[TrialJob, list[EpochDone]], tmp_path: Path
) -> None:
    made, died = drawn(a_job(trained, tmp_path / "one"), tmp_path / "settings")
    assert isinstance(made, PicturesMade), made
    assert died == Died(0)
    best = max(epoch.metrics[MASK_MAP] for epoch in trained[1])
    assert best > 0.001
    assert made.fitness == pytest.approx(best, abs=1e-4)
    again, _ = drawn(a_job(trained, tmp_path / "two", trial=8, history={}), tmp_path / "settings")
    assert isinstance(again, PicturesMade)
    assert again.images == made.images
    for name in PICTURES:
        picture = cv2.imread(str(Path(made.folder) / name))
        assert picture is not None, name
        assert picture.std() > 5, name  # something is drawn
    data_set = layout.read(Path(trained[0].data))
    paths = {layout.image_name(data_set, path): path for path in data_set.images["val"]}
    labels = [Path(str(paths[name]).replace("/images/", "/labels/")).with_suffix(".txt") for name in made.images]
    assert len(made.images) == 12
    assert {number for label in labels for number, _ in label_rows(label)} == {0, 1, 2}


def test_what_keeps_them_from_being_made_is_told_and_leaves_no_picture(
    trained: tuple[TrialJob, list[EpochDone]], tmp_path: Path
) -> None:
    (tmp_path / "no.pt").write_bytes(b"no weights")
    failed, died = drawn(a_job(trained, tmp_path / "run", weights=str(tmp_path / "no.pt")), tmp_path / "settings")
    assert isinstance(failed, Failed)
    assert died == Died(0)
    assert not list((tmp_path / "run").rglob("*.jpg"))


def test_a_process_that_is_killed_is_heard_to_have_died(tmp_path: Path) -> None:
    multiprocessing.forkserver._forkserver._stop()  # it has its own environment
    try:
        runner = Runner(tmp_path / "settings", {"TUNE_FAULTS": "pictures-begun=kill"})
        heard: list[Event | Died] = []
        job = PicturesJob(7, str(tmp_path / "run"), "", "", {}, "cpu", 3, {}, "")
        assert runner.start(job, heard.append).wait(300.0)
    finally:
        multiprocessing.forkserver._forkserver._stop()
    assert heard == [Died(-signal.SIGKILL)]


def test_a_device_without_room_for_whole_batches_has_its_pictures_made_in_smaller_ones(
    trained: tuple[TrialJob, list[EpochDone]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = memory_for(monkeypatch, images=3, training_only=False)
    made = making.make(a_job(trained, tmp_path / "small"))
    assert memory.fired > 0
    best = max(epoch.metrics[MASK_MAP] for epoch in trained[1])
    assert made.fitness == pytest.approx(best, abs=1e-3)
    assert len(list(Path(made.folder).iterdir())) == len(PICTURES)
