"""Whole workers of a freeze-thaw study in processes of their own; their trainings only pretend, and keep a diary."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from petskin_tune.database.engine import Patience
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.datasets.fingerprint import Fingerprint
from petskin_tune.errors import EXIT_USAGE, UsageError
from petskin_tune.home.home import Home
from petskin_tune.protocol import Event, TrialJob
from petskin_tune.study.creation import create_study
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.study import Study, find_study
from petskin_tune.trial.inputs import Prepared
from petskin_tune.trial.process.runner import Died
from petskin_tune.trial.workplace import Options, Workplace
from petskin_tune.worker.suspension import Suspension
from petskin_tune.worker.worker import Worker
from tests.support.trainings import Training, Trainings
from tests.support.workplace import Screen

MODEL = "mine-seg.yaml"


class Diary(Trainings):
    """Writes down when each training began and ended."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def start(self, job: TrialJob, hear: Callable[[Event | Died], None]) -> Training:
        self.write("began", job)

        def heard(event: Event | Died) -> None:
            if isinstance(event, Died):
                self.write("ended", job)
            hear(event)

        return super().start(job, heard)

    def write(self, event: str, job: TrialJob) -> None:
        line = json.dumps({"event": event, "trial": job.trial, "at": time.time(), "pid": os.getpid()})
        with self._path.open("a") as file:
            file.write(f"{line}\n")


def new_study(storage: PetskinStorage, spec: StudySpec) -> Study:
    return create_study(storage, spec, points=(), attributes_of_study={})


def run(url: str, folder: str, name: str, faults: str) -> None:
    """The life of one worker, in its process."""
    os.environ["TUNE_FAULTS"], os.environ["TUNE_FAULTS_LOG"] = faults, f"{folder}/{name}.faults"
    storage = open_storage(url, Patience(seconds=None))
    study = find_study(storage, "petskin")
    assert study is not None
    home = Home(Path(folder), url, f"{folder}/store", Path(folder) / f"work-{name}", network=False)
    home.local_checkpoints = True
    model = str(Path(folder) / MODEL)
    inputs = Prepared(Path(folder) / "data.yaml", model, Fingerprint("digest", ("a",), {}), 1, 1)
    trainings = Diary(Path(folder) / f"{name}.diary")
    screen = Screen()
    place = Workplace(study, home, cast(Any, trainings), screen, Options(worker=name), inputs)
    try:
        code = Worker(place, Suspension(place, None)).work()
    except UsageError as refusal:
        code = EXIT_USAGE
        screen.note(str(refusal))
    finally:
        (Path(folder) / f"{name}.said").write_text(screen.shown.getvalue())
    sys.stdout.flush()
    os._exit(code)


class Workers:
    """Starts them."""

    def __init__(self, url: str, folder: Path) -> None:
        self._arguments = (url, str(folder))
        self._folder = folder
        (folder / MODEL).write_text("nc: 7\n")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.support.segment_workers", "psycopg2", "scipy.optimize"])
        self.all: dict[str, Any] = {}

    def start(self, faults: str = "") -> str:
        name = f"worker{len(self.all):02d}"
        process = self._context.Process(target=run, args=(*self._arguments, name, faults))
        process.start()
        self.all[name] = process
        return name

    def fired(self, name: str) -> str:
        path = self._folder / f"{name}.faults"
        return path.read_text() if path.exists() else ""

    def said(self, name: str) -> str:
        """What people have seen of a worker that has ended."""
        return (self._folder / f"{name}.said").read_text()

    def trainings(self) -> list[Mapping[str, Any]]:
        """All diaries' lines, by time."""
        lines = [json.loads(line) for path in self._folder.glob("*.diary") for line in path.read_text().splitlines()]
        return sorted(lines, key=lambda line: line["at"])
