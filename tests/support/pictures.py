"""Pictures made up: small JPEGs, and a process that makes them without a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.keys import trial_prefix, weights_key
from petskin_tune.checkpoints.pictures import keep
from petskin_tune.files.durable import measure
from petskin_tune.protocol import PICTURES, Event, PicturesJob, PicturesMade
from petskin_tune.trial.process.runner import Died


def draw(folder: Path, size: tuple[int, int] = (40, 30)) -> Path:
    """All pictures of a trial in ``folder``, of one colour each; ``size``: width and height in pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(PICTURES):
        Image.new("RGB", size, (20 * place, 90, 160)).save(folder / name, "JPEG")
    return folder


def kept(store: Store, uid: str, number: int, folder: Path) -> str:
    """The key of pictures that a trial has in the store."""
    return keep(store, uid, number, draw(folder))


def weights(store: Store, uid: str, number: int, file: Path) -> str:
    """The key of best weights, of a few bytes, that a trial has in the store."""
    file.write_bytes(b"weights")
    return store.put(file, weights_key(trial_prefix(uid, number), 1, measure(file)[1])).key


class Draughtsman:
    """Starts processes that draw at once, in a thread each.

    Args:
        says: the last words of each process; None: it draws. A process that hangs says nothing until it is ended.
    """

    def __init__(self, says: Callable[[PicturesJob], Event | None] = lambda _: None, *, hangs: bool = False) -> None:
        self.jobs: list[PicturesJob] = []
        self.ended = 0
        self.weights: list[bytes] = []
        self.has_trained = True
        self._says, self._hangs = says, hangs

    def warm_up(self) -> None:
        """Nothing has to be imported."""

    def start(self, job: PicturesJob, hear: Callable[[Event | Died], None]) -> Any:
        self.jobs.append(job)
        self.weights.append(Path(job.weights).read_bytes())
        if not self._hangs:
            drawn = draw(Path(job.run_folder) / "pictures")
            hear(self._says(job) or PicturesMade(str(drawn), 0.1, ("a",)))
            hear(Died(0))
        return _Process(self)

    def is_alive(self) -> bool:
        return self._hangs and not self.ended


class _Process:
    def __init__(self, owner: Draughtsman) -> None:
        self._owner = owner

    def wait(self, seconds: float) -> bool:
        if self._owner.is_alive():
            threading.Event().wait(min(seconds, 0.01))
        return not self._owner.is_alive()

    def end(self, patience: float = 0.0) -> None:
        self._owner.ended += 1


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Whatever happens in it leaves no file in ``folder``."""
    yield
    assert [path for path in folder.rglob("*") if path.is_file()] == []
