"""The dumps of ``backup.sh`` in the bucket of ``TUNE_CHECKPOINTS``, too: a machine that is lost takes none with it.

::

    store_backups.py               every new dump, as soon as it is there; the newest BACKUPS_KEPT stay
    store_backups.py once          those that are missing there, now
    store_backups.py list          what is there
    store_backups.py fetch NAME    one of them into the folder BACKUPS; then: backup.sh restore FILE

Where TUNE_CHECKPOINTS is no bucket there is nothing to do. A bucket's folder holds the dumps of one database.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import time
from pathlib import Path

from petskin_tune.checkpoints.base import Store
from petskin_tune.checkpoints.opening import open_store
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import StoreError

FOLDER = "backups"  # in the store, beside the studies
FETCHED = "fetched-"  # of a dump that came back: backup.sh keeps it, and it is not copied again
LOOK_SECONDS = 60.0
_DUMP = re.compile(r"tune-\d{8}T\d{6}Z\.dump")
_KEPT = re.compile(rf"{FOLDER}/((tune-\d{{8}}T\d{{6}}Z)-([0-9a-f]{{16}})\.dump)")


def stored(store: Store) -> list[str]:
    """The keys of the dumps in the store, oldest first."""
    return sorted(entry.key for entry in store.entries(FOLDER) if _KEPT.fullmatch(entry.key))


def copy_new(store: Store, folder: Path, kept: int) -> list[str]:
    """Copy what is missing in the store, and delete there what is older than the newest ``kept``.

    Returns:
        The keys of what was copied.

    Raises:
        StoreError: the store does not answer, or has no room.
    """
    there = stored(store)
    known = {found[2] for key in there if (found := _KEPT.fullmatch(key))}
    newest = sorted(path for path in folder.glob("tune-*.dump") if _DUMP.fullmatch(path.name))[-kept:]
    copied = []
    for path in newest:
        if path.stem not in known:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            copied.append(store.put(path, f"{FOLDER}/{path.stem}-{digest[:16]}.dump").key)
    for key in sorted({*there, *copied})[:-kept]:
        store.delete(key)
    return copied


def fetch(store: Store, name: str, folder: Path) -> Path:
    """Copy a dump back, checked by its SHA-256.

    Raises:
        UsageError: there is none of that name.
        StoreError: the store does not answer, or the dump is damaged.
    """
    found = _KEPT.fullmatch(f"{FOLDER}/{Path(name).name}")
    if found is None or found[0] not in stored(store):
        raise UsageError(f"There is no dump {name} in {store.url}; `list` names those that are there.")
    local = folder / f"{FETCHED}{found[1]}"
    store.fetch(found[0], local, found[3])
    return local


def main(words: list[str]) -> int:
    """Do what the words say; see the top of this file. Returns the exit code."""
    url, folder = os.environ.get("TUNE_CHECKPOINTS", ""), Path(os.environ.get("BACKUPS", "/backups"))
    number = os.environ.get("BACKUPS_KEPT") or "28"
    if not (number.isascii() and number.isdigit() and int(number)):
        print(f"error: BACKUPS_KEPT is a number of dumps, 1 or more, not {number!r}", file=sys.stderr)
        return 2
    kept = int(number)
    if words not in ([], ["once"], ["list"]) and (len(words) != 2 or words[0] != "fetch"):
        print("usage: store_backups.py [once | list | fetch NAME]", file=sys.stderr)
        return 2
    if "://" not in url:
        print("TUNE_CHECKPOINTS names no bucket: the dumps stay in the folder of the backups", flush=True)
        return _wait_for_the_end() if not words else 0
    try:
        store = open_store(url)
        if words == ["list"]:
            print("\n".join(Path(key).name for key in stored(store)))
        elif words and words[0] == "fetch":
            print(f"fetched: {fetch(store, words[1], folder)}")
        elif words:
            _say(copy_new(store, folder, kept), store)
        else:
            _keep_on(store, folder, kept)
    except (UsageError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _keep_on(store: Store, folder: Path, kept: int) -> None:
    while True:
        try:
            _say(copy_new(store, folder, kept), store)
        except (StoreError, OSError) as error:  # a dump that backup.sh has just deleted, too
            print(f"the dumps are not in {store.url} yet, and are tried again: {error}", file=sys.stderr, flush=True)
        time.sleep(LOOK_SECONDS)


def _say(copied: list[str], store: Store) -> None:
    for key in copied:
        print(f"copied: {store.url}/{key}", flush=True)


def _wait_for_the_end() -> int:
    while True:  # ended at once, Docker would start it again and again
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
