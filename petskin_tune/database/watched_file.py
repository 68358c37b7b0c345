"""An SQLite file that somebody deletes, moves or replaces while a worker has it open.

SQLite goes on in the file that has no name any more, and with the worker's end everything is gone. What it holds can
still be read through a connection that was opened before.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import threading
import time
from pathlib import Path

from petskin_tune.database import sqlite_file
from petskin_tune.errors import UsageError

WAIT_SECONDS = 60.0  # for a writer, while what the file holds is saved


class WatchedFile:
    """Remembers which file is open, and saves what it holds when another one, or none, lies in its place.

    Args:
        path: of an SQLite database that is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._connection = sqlite_file.connect(str(path), "ro", WAIT_SECONDS)  # reads, which opens its log too
        # A descriptor that names the file without opening it: to close another one would drop SQLite's locks.
        self._file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._refusal: UsageError | None = None

    def require(self) -> None:
        """Make sure that the file is where it was.

        Raises:
            UsageError: it is not; says where that lies which it held.
        """
        ours = os.fstat(self._file)
        try:
            there = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            there = None
        except OSError:  # the disk does not answer now
            return
        if there is not None and os.path.samestat(ours, there):
            return
        with self._lock:
            self._refusal = self._refusal or self._refuse(deleted=ours.st_nlink == 0, replaced=there is not None)
        raise self._refusal

    def _refuse(self, *, deleted: bool, replaced: bool) -> UsageError:
        what = "replaced by another file" if replaced else "deleted" if deleted else "moved away"
        said = f"The database {self._path} was {what} while this worker had it open"
        if not deleted:
            return UsageError(f"{said}: put it back, with its -wal file, then type the same command again.")
        try:
            saved = self._save()
        except (OSError, sqlite3.Error) as error:
            return UsageError(f"{said}, and what it held could not be saved ({error}).")
        if saved == self._path:
            return UsageError(f"{said}. What it held was written back there: type the same command again.")
        return UsageError(
            f"{said}. What it held was saved as {saved}: put that in its place, then type the same command again."
        )

    def _save(self) -> Path:
        """Write what the file held where it was, or beside it where something else lies by now."""
        folder = next(path for path in self._path.parents if path.is_dir())
        temporary = folder / f"{self._path.name}.{secrets.token_hex(4)}.partial"
        try:
            with contextlib.closing(sqlite3.connect(temporary)) as copy:
                self._connection.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            if folder == self._path.parent and not self._path.exists():
                for suffix in ("-wal", "-shm"):  # of the deleted file: SQLite would apply them to this one
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, self._path)
                    return self._path
            saved = folder / f"{self._path.name}.{time.strftime('%Y%m%d-%H%M%S')}.{os.getpid()}.saved"
            os.link(temporary, saved)
            return saved
        finally:
            temporary.unlink(missing_ok=True)

    def close(self) -> None:
        """Watch no longer."""
        self._connection.close()
        os.close(self._file)
