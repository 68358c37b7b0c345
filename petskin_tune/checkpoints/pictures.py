"""The pictures of a trial in the store: one file, so that all of them are there or none.

The file is a zip without compression. What comes out of it is looked at as what anybody could have put there: known
names only, no picture that is none, nothing larger than a picture is.
"""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.keys import is_pictures, pictures_key, trial_prefix
from petskin_tune.files import temporary
from petskin_tune.files.durable import Damaged, measure, translated
from petskin_tune.protocol import PICTURES

LARGEST = 2 * 2**20  # bytes of a picture
JPEG = b"\xff\xd8\xff"  # begins every JPEG file


@dataclass(frozen=True)
class Picture:
    """A picture: what it shows, its media type, and the content of its file."""

    title: str
    mimetype: str
    content: bytes


def keep(store: Store, uid: str, number: int, folder: Path) -> str:
    """Bring the pictures of a trial into the store; the key that they lie under.

    Args:
        store: of the study.
        uid: the study's.
        number: of the trial.
        folder: where they lie on this machine, all of :data:`~petskin_tune.protocol.PICTURES`.

    Raises:
        StoreError: the store refuses, or one of them is not there.
    """
    with translated(f"the pictures of trial {number}"), tempfile.TemporaryDirectory(dir=folder) as aside:
        bundle = Path(aside) / "pictures.zip"
        with zipfile.ZipFile(bundle, "w") as file:
            for name in PICTURES:
                file.write(folder / name, name)
        return store.put(bundle, pictures_key(trial_prefix(uid, number), measure(bundle)[1])).key


def find(store: Store, uid: str, number: int) -> str | None:
    """The key of a trial's pictures, the newest where there are several; None where there are none.

    Raises:
        StoreError: the store does not answer.
    """
    found = [entry for entry in store.entries(trial_prefix(uid, number)) if is_pictures(entry.key)]
    return min(found, key=lambda entry: (entry.age, entry.key)).key if found else None


def fetch(store: Store, key: str) -> list[Picture]:
    """The pictures under a key, in their order.

    Raises:
        StoreError: the store does not answer, they are gone, or they are not what their key promises.
    """
    with translated(key), temporary.new_folder() as folder:
        bundle = folder / "pictures.zip"
        store.fetch(key, bundle)
        return _read(bundle, key)


def _read(bundle: Path, key: str) -> list[Picture]:
    try:
        with zipfile.ZipFile(bundle) as file:
            sizes = {one.filename: one.file_size for one in file.infolist() if one.compress_type == zipfile.ZIP_STORED}
            found = {name: file.read(name) for name in PICTURES if sizes.get(name, LARGEST + 1) <= LARGEST}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise Damaged(f"{key} holds no pictures ({error})") from error
    jpegs = {name: content for name, content in found.items() if content.startswith(JPEG)}
    return [Picture(PICTURES[name], "image/jpeg", content) for name, content in jpegs.items()]
