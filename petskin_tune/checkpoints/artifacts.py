"""Pictures as Optuna artifacts: what ``optuna.artifacts`` and optuna-dashboard ask an artifact store for.

Optuna keeps a row for each artifact with the trial, and its file in an artifact store. Of ours nothing is written to
the database: an artifact's id says under which key its picture lies, and the rows are made when somebody looks, from
what is in the store then. So they come and go with the files, whoever has made or deleted those, on whatever machine.

Artifacts that a person has added to a study with Optuna lie in a folder of the home. Their rows are not trusted: an id
becomes the name of a file only in the form in which Optuna writes it.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from petskin_tune.checkpoints import pictures
from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.keys import digest_in, is_pictures, trial_number, trial_prefix
from petskin_tune.files import regular
from petskin_tune.files.atomic import replacing
from petskin_tune.files.durable import StoreError

PREFIX = "artifacts:"  # Optuna's own, of the names of the rows
LARGEST = 64 * 2**20  # bytes of a person's artifact
MOST_TRIALS = 20  # with pictures, at once: the newest
FRESH_SECONDS = 20.0  # the store is listed anew after so long
_OURS = re.compile(r"([0-9a-f]{12})-([0-9a-f]{8})-([0-9a-f]{2})-([0-9a-f]{16})")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # as Optuna and its dashboard name theirs
_MIMETYPE = re.compile(r"[\w.+-]+/[\w.+-]+")

Row = dict[str, Any]  # of one artifact: id, file name, media type, encoding


def read_row(name: str, value: object) -> Row | None:
    """A row of Optuna's, as far as it is one; None: it is none, or names no file that Optuna would have written.

    Args:
        name: of the attribute, with what comes before the id.
        value: of the attribute, anybody's.
    """
    try:
        row = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    artifact_id, filename, mimetype = (row.get(key) for key in ("artifact_id", "filename", "mimetype"))
    if not isinstance(artifact_id, str) or not _UUID.fullmatch(artifact_id) or not name.endswith(f":{artifact_id}"):
        return None
    if not isinstance(filename, str) or not isinstance(mimetype, str) or not _MIMETYPE.fullmatch(mimetype):
        return None
    return {"artifact_id": artifact_id, "filename": filename, "mimetype": mimetype, "encoding": None}


class Artifacts:
    """An artifact store of Optuna's: the pictures of one study's trials, and what a person has added.

    Args:
        store: of the study.
        uid: the study's.
        folder: of a person's artifacts; None: there is none.
    """

    def __init__(self, store: Store, uid: str, folder: Path | None = None) -> None:
        self._store = store
        self._uid = uid
        self._folder = folder
        self._listed: float | None = None
        self._made: dict[str, tuple[int, list[pictures.Picture]]] = {}  # by key

    def rows(self) -> Mapping[int, list[Row]]:
        """The rows of the pictures in the store, by number of their trial; as it was when it answered last."""
        if self._listed is None or time.monotonic() - self._listed > FRESH_SECONDS:
            self._look()
        return {
            number: [_row(self._uid, number, at, key, found[at]) for at in range(len(found))]
            for key, (number, found) in self._made.items()
        }

    def _look(self) -> None:
        self._listed = time.monotonic()
        try:
            entries = sorted(self._store.entries(self._uid), key=lambda entry: entry.age)
            kept = [entry.key for entry in entries if is_pictures(entry.key)]
            newest: dict[int, str] = {}
            for key in kept:
                if (number := trial_number(key)) is not None and len(newest) < MOST_TRIALS:
                    newest.setdefault(number, key)
            self._made = {key: (number, self._known(key) or self._fetched(key)) for number, key in newest.items()}
        except StoreError:
            return

    def _known(self, key: str) -> list[pictures.Picture]:
        """What was fetched before; nothing where the store did not answer then: it is asked again."""
        return self._made.get(key, (0, []))[1]

    def _fetched(self, key: str) -> list[pictures.Picture]:
        try:
            return pictures.fetch(self._store, key)
        except StoreError:
            return []

    # ---- as Optuna asks ----

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The content of an artifact.

        Raises:
            ArtifactNotFound: there is none of that id.
        """
        if ours := _OURS.fullmatch(artifact_id):
            return io.BytesIO(self._picture(*ours.groups()).content)
        try:
            return io.BytesIO(regular.read_bytes(self._file(artifact_id), LARGEST))
        except OSError as error:
            raise _not_found(f"there is no artifact {artifact_id}") from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Keep a person's artifact.

        Raises:
            ArtifactNotFound: its id is not one of Optuna's.
            OSError: the disk refuses.
        """
        path = self._file(artifact_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            while block := content_body.read(1 << 20):
                file.write(block)

    def remove(self, artifact_id: str) -> None:
        """Delete a person's artifact; pictures of ours go with their trial's weights."""
        if not _OURS.fullmatch(artifact_id):
            self._file(artifact_id).unlink(missing_ok=True)

    def _picture(self, uid: str, number: str, place: str, digest: str) -> pictures.Picture:
        key = f"{trial_prefix(uid, int(number, 16))}/pictures-{digest}.zip"
        self.rows()
        found = self._known(key) if uid == self._uid else []
        if int(place, 16) >= len(found):
            raise _not_found(f"there are no such pictures of trial {int(number, 16)}")
        return found[int(place, 16)]

    def _file(self, artifact_id: str) -> Path:
        if self._folder is None or not _UUID.fullmatch(artifact_id):
            raise _not_found(f"there is no artifact {artifact_id}")
        path = self._folder / artifact_id
        if path.is_symlink():
            raise _not_found(f"{artifact_id} is a symbolic link")
        return path


def _row(uid: str, number: int, place: int, key: str, picture: pictures.Picture) -> Row:
    return {
        "artifact_id": f"{uid}-{number:08x}-{place:02x}-{digest_in(key)}",
        "filename": f"{place + 1} {picture.title}.jpg",  # the dashboard sorts by it
        "mimetype": picture.mimetype,
        "encoding": None,
    }


def _not_found(what: str) -> Exception:
    """Optuna's error, imported where it is needed: it brings the libraries of two clouds along."""
    from optuna.artifacts.exceptions import ArtifactNotFound

    return ArtifactNotFound(what)
