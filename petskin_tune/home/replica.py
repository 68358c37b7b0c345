"""The database of a home on a network or FUSE disk (a mounted Google Drive).

SQLite never lives there: the file lies on this machine's disk, and is copied into the home as a new file after every
epoch. A machine that comes later brings the newest whole copy to its own disk first::

    <home>/database/    home-<id>, claim-….json, tune-….db
    <local>/            tune.db, state.json (which version tune.db is), locks
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from petskin_tune.database.sqlite_file import is_whole
from petskin_tune.errors import LeaseLost, UsageError
from petskin_tune.faults import reach
from petskin_tune.files import temporary
from petskin_tune.files.atomic import sync_folder
from petskin_tune.files.durable import PASSING, SameDisk, StoreError, measure, translated, write_new
from petskin_tune.home.claim import BEAT_SECONDS, WATCH_SECONDS, Claim
from petskin_tune.home.copies import FOLDER, NOTHING, Copies, LocalState, Version, put_in_place, take_copy
from petskin_tune.home.moved import take_over
from petskin_tune.retries import retrying

Mode = Literal["owner", "guest", "reader"]  # see :meth:`petskin_tune.home.home.Home.start`

ANSWER_SECONDS = 30.0  # how long a home may not answer before the command gives up at its start
LONGEST_PAUSE = 30.0  # seconds between two tries of a copy

log = logging.getLogger(__name__)


class DatabaseReplica:
    """Brings the database of a network home to this machine, and its changes back.

    Args:
        home: the home's folder, on a network or FUSE disk.
        database: the SQLite file on this machine's disk, in a folder of its own.
        say: takes one sentence for people.
    """

    def __init__(
        self,
        home: Path,
        database: Path,
        say: Callable[[str], None],
        *,
        beat_seconds: float = BEAT_SECONDS,
        watch_seconds: float = WATCH_SECONDS,
    ) -> None:
        self._folder = home / FOLDER
        self._home = home
        self._database = database
        self._local = database.parent
        self._disk = SameDisk(home)
        self._state = self._local / "state.json"
        self._say = say
        self._beat_seconds = beat_seconds
        self._copies = Copies(self._folder)
        self._claim = Claim(self._folder, self._copies, say, watch_seconds=watch_seconds)
        self._lock: int | None = None
        self._id = ""
        self._copied: str | None = None  # SHA-256 of the newest copy of ours
        self._wanted, self._done = 0, 0  # copies asked for, and answered
        self._lost: LeaseLost | None = None
        self._failure: Exception | None = None
        self._failing = False
        self._changed = threading.Condition()
        self._closing, self._all_saved = False, False
        self._deadline = 0.0
        self._thread: threading.Thread | None = None

    # ---- the start ----

    def open(self, mode: Mode, *, take_over: bool = False) -> None:
        """Claim the home (unless as a reader) and bring the newest good copy of the database to this machine.

        Raises:
            UsageError: another worker uses the home, it does not answer, or no copy in it is whole.
        """
        reader = mode == "reader"
        try:
            self._patiently(lambda: self._find_home(create=not reader))
            if reader and not self._id:
                return
            self._local.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not reader:
                above = self._state_here().version.rank
                self._patiently(lambda: self._claim.take(take_over=take_over, join=mode == "guest", above=above))
            self._patiently(lambda: self._bring_here(mode))
        except StoreError as error:
            self._claim.release()
            raise UsageError(f"The home {self._home} cannot be used now: {error}. Try again later.") from error
        except BaseException:
            self._claim.release()
            raise
        if not reader:
            self._thread = threading.Thread(target=self._keep, name="copies of the database", daemon=True)
            self._thread.start()

    @property
    def has_home(self) -> bool:
        """Whether there is a home that the database on this machine can be the copy of."""
        return bool(self._id)

    @staticmethod
    def _patiently(step: Callable[[], None]) -> None:
        retrying(ANSWER_SECONDS, PASSING)(step)

    def _find_home(self, *, create: bool) -> None:
        """Find the home's id, or give it one: the database of a home that was deleted must not come back."""
        self._disk.require()
        with translated(f"opening {self._home}"):
            names = os.listdir(self._folder) if self._folder.exists() else []  # not `glob`: it may hide an error
            ids = sorted(name for name in names if name.startswith("home-"))
            if ids or not create:
                self._id = ids[0] if ids else ""
                return
            self._folder.mkdir(parents=True, exist_ok=True)
        name = f"home-{secrets.token_hex(8)}"
        with translated(f"marking {self._home}"), temporary.new_folder() as folder:
            mark = folder / name
            mark.write_text("The copies of the database in this folder belong together.\n", encoding="utf-8")
            write_new(mark, self._folder / name, network=True)
        self._id = name

    def _state_here(self) -> LocalState:
        """What the database on this machine is; of this home at no version when there is none of it."""
        state = LocalState.read(self._state)
        if state is None or state.home != self._id or not self._database.exists():
            return LocalState(self._id, NOTHING)
        return state

    def _bring_here(self, mode: Mode) -> None:
        """Make the database on this machine the newest of the two, and keep it from being replaced under us."""
        exclusive = self._hold(fcntl.LOCK_EX)
        if exclusive:
            self._set_aside_what_is_not_ours()
            self._restore()
        elif self._newest_there() > self._state_here().version:
            if mode == "owner":
                raise UsageError(
                    f"Another petskin-tune command on this machine has an older database of {self._home} open: end it "
                    "first, then type the same command again."
                )
            self._say(
                "Another command on this machine has the database open: what is shown may be older than the home's."
            )
        self._hold(fcntl.LOCK_SH)
        if self._claim.owned and self._claim.rank is not None:
            with self._one_at_a_time():
                counter = self._state_here().version.counter
                LocalState(self._id, Version(self._claim.rank, counter)).write(self._state)

    def _newest_there(self) -> Version:
        newest = self._copies.newest_first()
        return newest[0].version if newest else NOTHING

    def _set_aside_what_is_not_ours(self) -> None:
        if not self._database.exists():
            return
        state = LocalState.read(self._state)
        if state is not None and state.home == self._id and is_whole(self._database):
            return
        aside = self._database.with_name(f"{self._database.name}.{time.strftime('%Y%m%d-%H%M%S')}.aside")
        why = "is damaged" if state is not None and state.home == self._id else "belongs to another home"
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._database.with_name(self._database.name + suffix).rename(aside.with_name(aside.name + suffix))
        self._say(f"The database on this machine's disk {why}: it was set aside as {aside}.")

    def _restore(self) -> None:
        here = self._state_here().version
        temporary = self._local / "restored.db"
        copy, rejected = self._copies.fetch_newest_good(here, temporary)
        self._disk.require()  # else what was not found says nothing
        for reason in rejected:
            self._say(f"A copy of the database in the home cannot be used ({reason}): going on with the one before.")
        if copy is None:
            if rejected and not self._database.exists():
                raise UsageError(
                    f"None of the {len(rejected)} copies of the database in {self._folder} is whole: move them away to "
                    "start anew."
                )
            if not self._database.exists():
                self._adopt()
            return
        reach("home-restoring")
        put_in_place(self._database, temporary)
        sync_folder(self._local)
        LocalState(self._id, copy.version).write(self._state)
        reach("home-restored")

    def _adopt(self) -> None:
        """Take over the database of a home that was copied here from a local disk, where a person has put one."""
        temporary = self._local / "restored.db"
        if not take_over(self._folder, temporary):
            return
        put_in_place(self._database, temporary)
        sync_folder(self._local)
        LocalState(self._id, NOTHING).write(self._state)
        self._say(f"The home came from a local disk: its database is taken over, and copied to {self._folder}.")

    def _hold(self, kind: int) -> bool:
        """Take the lock of this machine's database, shared for using it, exclusive for replacing it."""
        if self._lock is None:
            self._lock = os.open(self._local / "database.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, kind if kind == fcntl.LOCK_SH else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    # ---- copies ----

    def save(self) -> None:
        """Copy the database into the home now; nothing is written when nothing has changed.

        Raises:
            LeaseLost: another worker has taken the home over.
            Unavailable, Full, Damaged: the home refuses; the copies before are untouched.
        """
        self.require()
        if not self._database.exists():
            return
        self._disk.require()
        try:
            with translated("copying the database"), self._one_at_a_time():
                self._save()
        except LeaseLost as error:
            self._lost = error
            raise

    def _save(self) -> None:
        self._claim.check()
        assert self._claim.rank is not None
        temporary = self._local / "copy.db"
        version = Version(self._claim.rank, self._state_here().version.counter + 1)
        take_copy(self._database, temporary)
        _, sha256 = measure(temporary)
        if sha256 == self._copied:
            return
        LocalState(self._id, version).write(self._state)  # before the copy: this machine is never older than its copies
        reach("home-counted")
        self._copies.add(temporary, version, sha256)
        self._copied = sha256

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Among the threads and the processes of this machine."""
        lock = os.open(self._local / "save.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def request_save(self) -> None:
        """Have the database copied soon, in the background.

        Raises:
            LeaseLost: another worker has taken the home over.
        """
        self.require()
        with self._changed:
            self._wanted += 1
            self._changed.notify_all()

    @property
    def is_saved(self) -> bool:
        """Whether all that was asked for is in the home."""
        with self._changed:
            return self._done == self._wanted

    def require(self) -> None:
        """Make sure that the home is still this process's.

        Raises:
            LeaseLost: another worker has taken it over.
            RuntimeError: for a reason that nobody foresaw it is copied no more; the cause comes with it.
        """
        if self._lost is not None:
            raise LeaseLost(str(self._lost))
        if self._failure is not None:
            raise RuntimeError("the database is no more copied into the home") from self._failure

    # ---- the thread ----

    def _keep(self) -> None:
        """Copies when asked for, signs of life in between, and the last copy at the end."""
        next_beat = time.monotonic() + self._beat_seconds
        pause = 0.0
        while self._wait(pause, next_beat):
            try:
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + self._beat_seconds
                    self._give_sign()
                self._answer_requests()
                pause = 0.0
            except LeaseLost as error:
                self._lost = error
                return
            except StoreError as error:
                pause = min(LONGEST_PAUSE, 2 * pause + 1.0)
                self._in_trouble(error)
            except Exception as error:
                log.exception("the copies of the database have ended")
                self._failure = error  # a worker raises it at its next report
                return
        self._save_for_the_last_time()
        self._claim.release()

    def _wait(self, pause: float, next_beat: float) -> bool:
        """Wait for something to do: a request, unless we pause after a refusal, or the next beat; False at the end."""
        due = max(0.0, next_beat - time.monotonic())
        with self._changed:
            if pause:
                self._changed.wait_for(lambda: self._closing, min(pause, due))
            else:
                self._changed.wait_for(lambda: self._closing or self._done < self._wanted, due)
            return not self._closing

    def _give_sign(self) -> None:
        self._disk.require()
        if self._claim.owned:
            self._claim.beat()

    def _answer_requests(self) -> None:
        with self._changed:
            wanted = self._wanted
        if self._done < wanted:
            self.save()
            with self._changed:
                self._done = wanted
            if self._failing:
                self._failing = False
                self._say("The database is copied to the home again.")

    def _in_trouble(self, error: StoreError) -> None:
        if not self._failing:
            self._failing = True
            self._say(f"The home refuses ({error}): training goes on, and the copy of the database is tried again.")

    def _save_for_the_last_time(self) -> None:
        try:
            retrying(max(0.0, self._deadline - time.monotonic()), PASSING)(self.save)
        except LeaseLost as error:
            self._lost = error
        except StoreError as error:
            self._say(
                f"The database's last changes are not in the home yet ({error}); they are on this machine's disk."
            )
        else:
            self._all_saved = True

    # ---- the end ----

    def close(self, timeout: float) -> bool:
        """Copy what has changed and let the next one in; whether the home has everything.

        Args:
            timeout: seconds for the last copy.
        """
        if self._thread is not None:
            self._deadline = time.monotonic() + timeout
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join(timeout + 1.0)  # a mounted Drive may hang: then the thread is left behind
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        return self._thread is None or self._all_saved
