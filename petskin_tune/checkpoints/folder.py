"""A store in a folder: on this machine's disk, a shared disk, or a mounted Google Drive."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

from petskin_tune.checkpoints.base import Entry, Store, Stored
from petskin_tune.faults import reach
from petskin_tune.files.disks import is_network
from petskin_tune.files.durable import Missing, SameDisk, Unavailable, copy_out, remove, translated, write_new


class FolderStore(Store):
    """Files in a folder.

    A folder whose disk is unmounted meanwhile is unavailable, rather than empty: otherwise snapshots would be looked
    for, and written, in the empty folder that Drive leaves behind.

    Args:
        folder: absolute; created with the first file.
        network: whether it is on a network or FUSE disk; None: as the mounts say.
    """

    def __init__(self, folder: Path, *, network: bool | None = None) -> None:
        self.url = str(folder)
        self._folder = folder
        self._network = is_network(folder) if network is None else network
        self.shows_late = self._network
        self._disk = SameDisk(folder)
        self._was_there = os.path.isdir(folder)  # not `is_dir`, which raises where a mount is dead
        self._seen = False  # whether the folder exists

    def _require_disk(self) -> None:
        """Raise Unavailable if the folder's disk was unmounted; one that was mounted since the start is its disk."""
        if not self._was_there and os.path.isdir(self._folder):
            self._disk, self._was_there = SameDisk(self._folder), True
        self._disk.require()

    def put(self, local: Path, key: str) -> Stored:
        """See :meth:`Store.put`."""
        self._require_disk()
        if not local.exists():
            raise Missing(f"{local} is not there")
        target = self._path(key)
        try:
            with translated(f"writing {key}"):
                reach("store-put")
                self._make_folders(target)
            size, sha256 = write_new(local, target, network=self._network)
        except Missing as error:
            raise Unavailable(f"{self.url} is gone") from error
        return Stored(key, size, sha256)

    def _make_folders(self, target: Path) -> None:
        """Create the folders of ``target``, on a network disk only below the store's own once that was seen.

        A Drive that is unmounted at this very instant would otherwise be written to where it was mounted.
        """
        if not self._network or not self._seen:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._seen = self._was_there = True
        for folder in reversed(list(target.relative_to(self._folder).parents)[:-1]):
            with contextlib.suppress(FileExistsError):
                (self._folder / folder).mkdir()

    def _fetch(self, key: str, dest: Path, expected: str) -> None:
        self._require_disk()
        with translated(f"reading {key}"):
            reach("store-fetch")
        try:
            copy_out(self._path(key), dest, expected)
        except Missing:
            self._require_disk()  # it may just have been unmounted
            raise

    def delete(self, key: str) -> None:
        """See :meth:`Store.delete`."""
        self._require_disk()
        with translated(f"deleting {key}"):
            remove(self._path(key), network=self._network)

    def entries(self, prefix: str = "") -> list[Entry]:
        """See :meth:`Store.entries`."""
        self._require_disk()
        with translated(f"listing {prefix or self.url}"):
            return sorted(self._walk(self._folder / prefix), key=lambda entry: entry.key)

    def require(self) -> None:
        """See :meth:`Store.require`."""
        if not os.path.isdir(self._folder):
            raise Unavailable(f"the store {self.url} is not there")
        self._require_disk()
        with translated(f"listing {self.url}"):
            if not os.listdir(self._folder):
                raise Unavailable(f"the store {self.url} is empty")

    def _walk(self, folder: Path) -> list[Entry]:
        found = []
        now = time.time()
        for path, _, names in os.walk(folder, onerror=_raise_unless_gone):
            for name in names:
                file = Path(path) / name
                with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                    status = file.lstat()
                    if not stat.S_ISREG(status.st_mode):  # nothing of ours: never read, emptied or deleted
                        continue
                    key = file.relative_to(self._folder).as_posix()
                    found.append(Entry(key, status.st_size, max(0.0, now - status.st_mtime)))
        return found

    def remove_empty_folders(self, prefix: str) -> None:
        """See :meth:`Store.remove_empty_folders`."""
        self._require_disk()
        for path, _, _ in os.walk(self._folder / prefix, topdown=False):
            with contextlib.suppress(OSError):  # something lies in it
                os.rmdir(path)

    def _path(self, key: str) -> Path:
        path = self._folder / key
        if ".." in path.parts or not path.is_relative_to(self._folder):
            raise ValueError(f"{key!r} leaves the store")
        with translated(f"looking at {key}"):
            own = [self._folder / folder for folder in list(path.relative_to(self._folder).parents)[:-1]]
            links = [folder for folder in own if folder.is_symlink()]
        if links:  # of somebody's who may write here: it would lead out of the store
            raise Unavailable(f"{links[0]} is a symbolic link")
        return path


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
