"""The pictures of what a trial's best weights do: made in a process of their own, kept in the store beside the weights.

Nothing depends on them. Whatever goes wrong is one sentence, and they are left to whoever looks at the study next.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

from optuna.trial import FrozenTrial

from petskin_tune.checkpoints import pictures
from petskin_tune.checkpoints.base import Store
from petskin_tune.error_text import tail
from petskin_tune.errors import UsageError
from petskin_tune.faults import reach
from petskin_tune.files.durable import StoreError
from petskin_tune.protocol import TRAIN_LOG, Event, Failed, PicturesJob, PicturesMade
from petskin_tune.study import attributes
from petskin_tune.study.best.ranking import ranked
from petskin_tune.study.extent import begun_here
from petskin_tune.study.stored import recorded
from petskin_tune.study.study import FINISHED, Study, settings_of
from petskin_tune.trial.inputs import Prepared
from petskin_tune.trial.job import trial_job
from petskin_tune.trial.process.runner import Died, Runner

FOLDER = "pictures"  # in a home's work folder: of the processes that make them
LOOK_SECONDS = 0.2
FORGOTTEN_SECONDS = 24 * 3600.0  # a folder of a process that was killed goes after so long


class NotMade(Exception):
    """The pictures of a trial were not made; the text says why, as a clause."""


def wanted(study: Study) -> list[FrozenTrial]:
    """The trials that have pictures: the top ``keep_weights``, as long as their weights are kept; the best first."""
    first = begun_here(ranked(study.trials(*FINISHED), study.attributes))[: study.spec.keep_weights]
    return [trial for trial in first if recorded(trial).get(attributes.WEIGHTS)]


class Maker:
    """Makes the pictures of one trial.

    Args:
        study: open.
        store: of the study.
        runner: starts the process.
        work: folder of this machine for what is made of studies.
        device: as a worker is told.
    """

    def __init__(self, study: Study, store: Store, runner: Runner, work: Path, device: str = "") -> None:
        self._study = study
        self._store = store
        self._runner = runner
        self._work = work
        self._device = device
        self._is_cancelled = threading.Event()

    def cancel(self) -> None:
        """Make nothing more: the process ends at once; may be called from any thread."""
        self._is_cancelled.set()

    def make(self, trial: FrozenTrial, prepared: Prepared) -> str:
        """Make the pictures of a trial and bring them into the store; the key under which they lie there.

        Args:
            trial: ended, with weights in the store.
            prepared: the data set on this machine.

        Raises:
            NotMade: says why.
        """
        folder = self._work / FOLDER / f"{self._study.uid}-{trial.number:06d}-{os.getpid()}"
        try:
            _forget_old(folder.parent)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            made = self._run(self._job(trial, prepared, folder))
            reach("pictures-to-store")
            key = pictures.keep(self._store, self._study.uid, trial.number, Path(made.folder))
            self._leave_nothing_of_a_deleted_study(key)
            return key
        except (OSError, StoreError) as error:
            raise NotMade(str(error)) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _leave_nothing_of_a_deleted_study(self, key: str) -> None:
        """Delete what came into the store when whoever deletes the study may have listed it: nobody waits for pictures.

        Raises:
            NotMade: the study is gone, or is going.
        """
        try:
            self._study.require()
        except UsageError as gone:
            self._store.delete(key)
            self._store.remove_empty_folders(self._study.uid)
            raise NotMade(str(gone)) from gone

    def _job(self, trial: FrozenTrial, prepared: Prepared, folder: Path) -> PicturesJob:
        known = recorded(trial)
        weights = folder / "best.pt"
        self._store.fetch(known[attributes.WEIGHTS], weights)
        training = trial_job(self._study, prepared, trial.number, known, settings_of(trial, self._study.spec), folder)
        return PicturesJob(
            trial=trial.number,
            run_folder=str(folder),
            weights=str(weights),
            data=training.data,
            arguments=training.arguments,
            device=self._device,
            seed=self._study.spec.seed,
            history=known.get(attributes.HISTORY, {}),
            label_cache=str(self._work / "trials" / "labels"),
            threads=training.threads,
            workers=training.workers,
        )

    def _run(self, job: PicturesJob) -> PicturesMade:
        heard: list[Event | Died] = []
        if self._is_cancelled.is_set():
            raise NotMade("there was no time")
        process = self._runner.start(job, heard.append)
        try:
            while not process.wait(LOOK_SECONDS):
                if self._is_cancelled.is_set():
                    raise NotMade("there was no time")
        finally:
            process.end(patience=0.0)
        made = next((event for event in heard if isinstance(event, PicturesMade)), None)
        if made is None:
            raise NotMade(_reason(job, heard))
        return made


def _reason(job: PicturesJob, heard: list[Event | Died]) -> str:
    for event in heard:
        if isinstance(event, Failed):
            return event.message
    code = next((event.exit_code for event in heard if isinstance(event, Died)), None)
    with suppress(OSError):
        said = " ".join(tail((Path(job.run_folder) / TRAIN_LOG).read_text(encoding="utf-8", errors="replace"), 1))
        return f"their process ended with {code}: {said}" if said else f"their process ended with {code}"
    return f"their process ended with {code}"


def _forget_old(folder: Path) -> None:
    """Delete what processes have left that were killed long ago."""
    with suppress(OSError):
        for path in folder.iterdir():
            if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
