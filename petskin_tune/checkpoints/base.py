"""A store of files under keys: opened by its URL, the same four verbs whatever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from petskin_tune.checkpoints.keys import digest_in


@dataclass(frozen=True)
class Stored:
    """A file that is in the store and was verified there: size in bytes, SHA-256 in hexadecimal."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """What a listing says about one file: size in bytes, age in seconds since it was written."""

    key: str
    size: int
    age: float


class Store(ABC):
    """Files under keys such as ``study/trial-000007/best-12-….pt``. Safe to use from several threads.

    Every method raises :class:`~petskin_tune.files.durable.Unavailable` when the store does not answer.

    Attributes:
        url: the address to keep; it carries no credentials.
        shows_late: whether what another machine has written may be seen here only minutes later.
    """

    url: str
    shows_late: bool = False

    @abstractmethod
    def put(self, local: Path, key: str) -> Stored:
        """Copy a local file into the store, and return once its size and SHA-256 are verified there.

        Raises:
            Full: no room left, or a quota is reached.
            Damaged: what came to lie there is not what was sent.
            Missing: the local file is not there.
        """

    def fetch(self, key: str, dest: Path, sha256: str | None = None) -> None:
        """Copy a file out of the store to ``dest``, which appears whole or not at all.

        Args:
            key: which file.
            dest: a local file, replaced if it is there.
            sha256: what it must hash to, or the start of it; None: what its key promises.

        Raises:
            Missing: there is no such key.
            Damaged: its SHA-256 differs.
            ValueError: neither ``sha256`` nor the key says what the file must hash to.
        """
        expected = sha256 or digest_in(key)
        if expected is None:
            raise ValueError(f"nothing says what {key} must hash to")
        self._fetch(key, dest, expected)

    @abstractmethod
    def _fetch(self, key: str, dest: Path, expected: str) -> None: ...

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete a file; one that is not there is fine."""

    @abstractmethod
    def entries(self, prefix: str = "") -> list[Entry]:
        """All files whose key lies in the folder ``prefix``, unfinished ones too, by key."""

    def require(self) -> None:  # noqa: B027 (a bucket that is gone says so by itself)
        """Make sure that the store is there, and only the file is not: a disk may not be mounted yet.

        Raises:
            Unavailable: it is not.
        """

    def remove_empty_folders(self, prefix: str) -> None:  # noqa: B027 (a bucket has none)
        """Remove the folders of ``prefix`` in which nothing lies any more, where a store has folders."""
