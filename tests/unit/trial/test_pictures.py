"""How the pictures of one trial are made: a process that draws without a model, a real study and store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from optuna.trial import FrozenTrial, create_trial

from petskin_tune.checkpoints import pictures
from petskin_tune.checkpoints.folder import FolderStore
from petskin_tune.datasets.fingerprint import Fingerprint
from petskin_tune.files.durable import Full
from petskin_tune.protocol import PICTURES, Failed, PicturesJob
from petskin_tune.study import attributes
from petskin_tune.trial import pictures as module
from petskin_tune.trial.inputs import Prepared
from petskin_tune.trial.pictures import Maker, NotMade, wanted
from petskin_tune.trial.process.runner import Died
from tests.support.made_up import MadeUp, a_spec
from tests.support.pictures import Draughtsman, nothing_left, weights


class Studio:
    """A study with one trial whose weights are kept."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        self.made = MadeUp(folder, a_spec(**spec))
        self.study = self.made.study
        self.store = FolderStore(folder / "checkpoints", network=False)
        self.work = folder / "work"
        self.folder = folder
        self.prepared = Prepared(folder / "data.yaml", "", Fingerprint("digest", ("a",), {}), 1, 1)

    def add(self, best: float, state: str = "COMPLETE", **more: Any) -> FrozenTrial:
        number = len(self.study.trials())
        key = weights(self.store, self.study.uid, number, self.folder / "weights.pt")
        self.made.add(state, best, **{"weights": key, "history": {"train/box_loss": [1.0]}, **more})
        return self.study.trials()[number]

    def make(self, trial: FrozenTrial, draughtsman: Draughtsman) -> str:
        return Maker(self.study, self.store, cast(Any, draughtsman), self.work, "0").make(trial, self.prepared)


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(tmp_path)


def test_pictures_are_made_from_the_best_weights_and_kept_and_nothing_is_left_on_this_machine(studio: Studio) -> None:
    trial, draughtsman = studio.add(0.3), Draughtsman()
    with nothing_left(studio.work):
        key = studio.make(trial, draughtsman)
    assert [picture.title for picture in pictures.fetch(studio.store, key)] == list(PICTURES.values())
    (job,) = draughtsman.jobs
    assert draughtsman.weights == [b"weights"]
    assert (job.trial, job.device, job.seed) == (0, "0", studio.study.spec.seed)
    assert job.history == {"train/box_loss": [1.0]}
    assert job.arguments["lr0"] == trial.params["lr0"]
    assert job.arguments["imgsz"] == 480


def _failed(_: PicturesJob) -> Failed:
    return Failed("crashed", "RuntimeError: CUDA out of memory")


def test_a_process_that_fails_is_one_sentence_and_leaves_nothing(studio: Studio) -> None:
    trial = studio.add(0.3)
    with nothing_left(studio.work), pytest.raises(NotMade, match="CUDA out of memory"):
        studio.make(trial, Draughtsman(_failed))
    assert pictures.find(studio.store, studio.study.uid, 0) is None


def test_a_process_that_dies_says_how(studio: Studio) -> None:
    class Dies(Draughtsman):
        def start(self, job: PicturesJob, hear: Any) -> Any:
            (Path(job.run_folder) / "train.log").write_text("first\nSegmentation fault\n")
            hear(Died(-11))
            return super().start(job, lambda event: None)

    with pytest.raises(NotMade, match="ended with -11: Segmentation fault"):
        studio.make(studio.add(0.3), Dies())


def test_a_process_is_ended_when_there_is_no_more_time(studio: Studio) -> None:
    draughtsman = Draughtsman(hangs=True)
    maker = Maker(studio.study, studio.store, cast(Any, draughtsman), studio.work)

    def started_at_last(*arguments: Any) -> Any:
        process = Draughtsman.start(draughtsman, *arguments)
        maker.cancel()
        return process

    draughtsman.start = started_at_last  # type: ignore[method-assign]
    trial = studio.add(0.3)
    with nothing_left(studio.work), pytest.raises(NotMade, match="no time"):
        maker.make(trial, studio.prepared)
    assert draughtsman.ended == 1
    with pytest.raises(NotMade, match="no time"):  # nor is another begun
        maker.make(trial, studio.prepared)
    assert len(draughtsman.jobs) == 1


def test_a_store_that_refuses_and_weights_that_are_gone_are_one_sentence(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, draughtsman = studio.add(0.3), Draughtsman()

    def full(*_: Any) -> None:
        raise Full("no room")

    with monkeypatch.context() as patch:
        patch.setattr(studio.store, "put", full)
        with nothing_left(studio.work), pytest.raises(NotMade, match="no room"):
            studio.make(trial, draughtsman)
    studio.store.delete(trial.user_attrs[attributes.WEIGHTS])
    with pytest.raises(NotMade, match="not there"):
        studio.make(trial, draughtsman)
    assert len(draughtsman.jobs) == 1


def test_the_top_trials_whose_weights_are_kept_have_pictures(tmp_path: Path) -> None:
    studio = Studio(tmp_path, keep_weights=3)
    for best in (0.1, 0.3, 0.2, 0.4):
        studio.add(best)
    studio.made.add("RUNNING", 0.9)
    studio.study.optuna.add_trial(create_trial(value=0.9))  # a person's own, whose weights nobody keeps
    assert [trial.number for trial in wanted(studio.study)] == [3, 1, 2]
    studio.made.add(best=0.5)  # one without weights, of a person or of long ago
    assert [trial.number for trial in wanted(studio.study)] == [3, 1]


def test_what_a_killed_process_has_left_is_forgotten_some_day(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    left = studio.work / module.FOLDER / f"{studio.study.uid}-000009-1"
    left.mkdir(parents=True)
    (left / "best.pt").write_bytes(b"x")
    trial = studio.add(0.3)
    studio.make(trial, Draughtsman())
    assert left.exists()
    monkeypatch.setattr(module, "FORGOTTEN_SECONDS", -1.0)
    studio.make(trial, Draughtsman())
    assert not left.exists()


def test_pictures_that_come_into_the_store_when_the_study_is_being_deleted_do_not_stay_there(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, genuine, came = studio.add(0.3), pictures.keep, []

    def keep(*arguments: Any) -> str:
        studio.study.mark_for_deletion()  # and the store is listed, before they are in it
        came.append(genuine(*arguments))
        return came[-1]

    monkeypatch.setattr(pictures, "keep", keep)
    with pytest.raises(NotMade, match="is being deleted"):
        studio.make(trial, Draughtsman())
    assert came
    assert pictures.find(studio.store, studio.study.uid, trial.number) is None
