"""The thread that brings one trial's snapshots and best weights into the store while training goes on."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenacity import RetryCallState, Retrying

from petskin_tune.checkpoints.base import Store, Stored
from petskin_tune.checkpoints.jobs import KEPT, Commit, Job, Lane, Uploads
from petskin_tune.checkpoints.keys import snapshot_key, weights_key
from petskin_tune.checkpoints.restore import ORPHAN_SECONDS, Freed, Pointer
from petskin_tune.errors import LeaseLost, UsageError
from petskin_tune.faults import reach
from petskin_tune.files.durable import PASSING, Damaged, Full, Missing, StoreError, measure
from petskin_tune.protocol import BestWeights, Position, SnapshotWritten
from petskin_tune.retries import retrying
from petskin_tune.text import done

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries
HURRIED_PAUSE = 0.5  # the same once the worker waits for us

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class UploadState:
    """What of a trial is safe.

    Attributes:
        durable: position of the newest snapshot that another machine could resume from.
        here: position of the newest snapshot on this machine's disk.
        trouble: why the store refuses at the moment; None: it does not.
        expected_seconds: how long an upload takes, by the slowest of the last few; None: none was made yet.
        lost: whether the trial turned out to be another worker's.
    """

    durable: Position | None
    here: Position | None
    trouble: str | None = None
    expected_seconds: float | None = None
    lost: bool = False


class Uploader:
    """Brings one trial's snapshots into the store: upload, verify, commit, settle, then delete what is older.

    At most one snapshot waits for the one in work; a newer one replaces it. What the store or the database refuses for
    the moment is tried again, without end, until :meth:`close`. :class:`LeaseLost` from a commit ends it quietly.

    Args:
        store: where to.
        prefix: the trial's folder in it.
        token: of the lease that this worker holds.
        known: what the lease points to already, newest first.
        known_weights: the key of the best weights so far.
        say: takes one sentence for the trial's notes and for people.
        settle: called after a commit and before anything older is deleted; raises if the commit may still be lost (on a
            network home the database's copy there must not point to what is gone).
        make_room: called before an upload with its bytes, whether the store has refused for want of room, and whether
            paused trials may lose their only snapshots for it.
        retriable: exceptions of ``commit``, ``settle`` and ``make_room`` that may pass, beside the store's own.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        token: int,
        *,
        say: Callable[[str], None],
        known: Sequence[Pointer] = (),
        known_weights: str | None = None,
        settle: Callable[[], None] | None = None,
        make_room: Callable[[int, bool, bool], Freed] | None = None,
        retriable: tuple[type[Exception], ...] = (),
    ) -> None:
        self._store, self._prefix, self._token = store, prefix, token
        self._say, self._settle, self._make_room = say, settle, make_room
        self._passing: tuple[type[Exception], ...] = (*PASSING, *retriable)
        keys = [pointer.key for pointer in reversed(known)]
        self._uploads = Uploads(keys, set(keys))
        self._weights, self._snapshots = Lane(), Lane()
        self._weights_keys = [known_weights] if known_weights else []
        self._local: list[Path] = []
        self._durable = known[0].position if known else None
        self._here = self._durable
        self._trouble: str | None = None
        self._trouble_since = 0.0
        self._room: Literal["enough", "refused", "made"] = "enough"  # in the store, as far as is known
        self._short_said = False
        self._seconds: deque[float] = deque(maxlen=5)
        self._lost = self._ended = self._tidying = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._hurry, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"upload {prefix}", daemon=True)
        self._thread.start()

    # ---- the worker's side ----

    def submit(self, snapshot: SnapshotWritten, commit: Commit) -> None:
        """Take a snapshot on local disk; ``commit`` runs in this thread once it lies verified in the store."""
        path = Path(snapshot.path)
        job = Job(
            path,
            f"the snapshot of {done(snapshot.position)}",
            lambda _: snapshot_key(self._prefix, self._token, snapshot.position),
            commit,
            snapshot.size,
            snapshot.sha256,
            snapshot.position,
        )
        with self._changed:
            self._here = snapshot.position
            self._local = [*(known for known in self._local if known != path), path]
        self._take(self._snapshots, job)

    def submit_weights(self, best: BestWeights, commit: Commit) -> None:
        """Take the newest best weights; they go before any snapshot, and older best weights are deleted."""
        job = Job(
            Path(best.path),
            f"the best weights (epoch {best.epoch})",
            lambda sha256: weights_key(self._prefix, best.epoch, sha256),
            commit,
        )
        self._take(self._weights, job)

    def has_fetched(self, path: Path) -> None:
        """Take the file of a fetched snapshot for one of ours: it goes once two newer ones lie here, and not before."""
        with self._changed:
            self._local = [*(known for known in self._local if known != path), path]

    def fall_back(self, to: Pointer | None, rejected: Collection[str]) -> None:
        """Training goes on from an older snapshot, or anew (None): the ``rejected`` keys are not safe, nor to keep."""
        self._uploads.committed.difference_update(rejected)
        with self._changed:
            self._durable = self._here = to.position if to else None

    @property
    def state(self) -> UploadState:
        """What is safe now."""
        with self._changed:
            return UploadState(self._durable, self._here, self._trouble, max(self._seconds, default=None), self._lost)

    def raise_failure(self) -> None:
        """Say that the thread has ended for a reason that nobody foresaw.

        Raises:
            UsageError: somebody deleted the study.
            RuntimeError: it has; the cause comes with it.
        """
        if isinstance(self._failure, UsageError):
            raise self._failure
        if self._failure is not None:
            raise RuntimeError("the upload of snapshots has failed") from self._failure

    def drain(self, timeout: float, *, hurry: bool = True) -> bool:
        """Wait up to ``timeout`` seconds until everything taken is durable; whether it is.

        Args:
            timeout: to wait.
            hurry: whether what the store refuses is tried more often: for who has little time, not for who waits on.
        """
        self._wait_until(lambda: self._idle and not self._tidying, timeout, hurry=hurry)
        self.raise_failure()
        with self._changed:
            return self._idle and not self._lost

    def drain_weights(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until the best weights taken are in the store; whether they are, or never."""
        return self._wait_until(lambda: self._weights.empty, timeout) or self._ended

    def _wait_until(self, done: Callable[[], bool], timeout: float, *, hurry: bool = True) -> bool:
        """Whether ``done`` comes true, and the trial is not lost, within ``timeout`` seconds."""
        if hurry:
            self._hurry.set()
        try:
            with self._changed:
                self._changed.wait_for(lambda: done() or self._ended, timeout)
                return done() and not self._lost
        finally:
            self._hurry.clear()

    def close(self, timeout: float = 5.0) -> None:
        """Give up what is not durable; wait up to ``timeout`` seconds for the step in work."""
        self._closed.set()
        self._hurry.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout)

    def _take(self, lane: Lane, job: Job) -> None:
        with self._changed:
            self.raise_failure()
            lane.waiting = job
            self._changed.notify_all()
        self._tidy_here()

    @property
    def _idle(self) -> bool:
        return self._weights.empty and self._snapshots.empty

    # ---- the thread's side ----

    def _work(self) -> None:
        try:
            while self._wait_for_work():
                self._until_done(self._bring_newest)
        except LeaseLost:
            self._leave()
        except self._passing:
            pass  # closed while the store refused
        except UsageError as refusal:
            log.warning("the upload of %s ends: %s", self._prefix, refusal)
            self._failure = refusal
        except BaseException as error:
            log.exception("the upload of %s has ended", self._prefix)
            self._failure = error
            raise
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    @property
    def _until_done(self) -> Retrying:
        return retrying(
            None,
            self._passing,
            stopped=self._closed,
            pauses=(FIRST_PAUSE, LONGEST_PAUSE),
            sleep=self._pause,
            before_pause=self._in_trouble,
        )

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or not self._idle)
            return not self._closed.is_set()

    def _bring_newest(self) -> None:
        with self._changed:
            lane = self._snapshots if self._weights.empty else self._weights
            job = lane.newest()
        if job is None:
            return
        started = time.monotonic()
        try:
            self._bring(job)
        except Missing as error:
            if job.path.exists():
                raise Damaged(str(error)) from error
            self._say(f"{job.name.capitalize()} was not kept: {error}.")
        else:
            self._succeeded(job, time.monotonic() - started)
        with self._changed:
            lane.current = None
            self._tidying = True
        reach("before-old-snapshots-go")
        self._tidy_store()
        self._tidy_here()
        with self._changed:
            self._tidying = False
            self._changed.notify_all()

    def _bring(self, job: Job) -> None:
        if self._may_be_an_orphan(job):
            job.stored = None
        self._store_and_commit(job)
        while self._is_gone(job):  # an outage of the database held its commit up, and others took it for an orphan
            job.stored, job.committed = None, False
            self._store_and_commit(job)
        if self._settle is not None:
            self._settle()

    def _store_and_commit(self, job: Job) -> None:
        if job.stored is None:
            job.stored = self._upload(job)
            job.stored_at = time.monotonic()
        if not job.committed:
            job.commit(job.stored)
            job.committed = True
            reach("upload-committed")
            if job.position is not None:
                self._uploads.committed.add(job.stored.key)

    def _may_be_an_orphan(self, job: Job) -> bool:
        """Whether what waited long in the store for its commit may have been deleted: then it goes up once more.

        A snapshot goes up under a new key, whether it was deleted or not: it may be deleted at this instant.
        """
        return not job.committed and self._has_waited(job) and (job.position is not None or self._is_gone(job))

    def _is_gone(self, job: Job) -> bool:
        """Whether what waited long in the store for its commit is not there any more."""
        if job.stored is None or not self._has_waited(job):
            return False
        return job.stored.key not in {entry.key for entry in self._store.entries(self._prefix)}

    @staticmethod
    def _has_waited(job: Job) -> bool:
        return job.stored is not None and time.monotonic() - job.stored_at >= ORPHAN_SECONDS / 2

    def _upload(self, job: Job) -> Stored:
        if job.size is None or job.sha256 is None:
            job.size, job.sha256 = measure_local(job.path)
        self._tidy_store()
        if self._make_room is not None:
            self._say_shortage(self._free(self._make_room, job.size))
        key = job.key(job.sha256)
        log.debug("%s goes up as %s, %d bytes", job.name, key, job.size)
        try:
            stored = self._store.put(job.path, key)
        except StoreError:
            if job.position is not None:  # the next attempt has a new key: what lies under this one goes before it
                self._uploads.unwanted.append(key)
            raise
        if stored.sha256 != job.sha256:
            self._uploads.unwanted.append(stored.key)
            self._refuse_changed(job)
        if job.position is not None:
            self._uploads.keys.append(stored.key)
        log.info("%s is in the store, %d bytes", stored.key, stored.size)
        reach("upload-verified")
        return stored

    def _free(self, make_room: Callable[[int, bool, bool], Freed], size: int) -> Freed:
        """Delete what is needed least; of paused trials, for a store that stays full although it has had room, once."""
        freed = make_room(size, self._room != "enough", self._room != "made")
        if self._room == "refused" and not freed.short:
            self._room = "made"
        return freed

    @staticmethod
    def _refuse_changed(job: Job) -> None:
        """The file is not what it was said to be: new weights took its place, or the local disk damaged a snapshot."""
        if job.position is None:
            job.size = job.sha256 = None
            raise Damaged(f"{job.path.name} changed while it was read")
        job.path.unlink(missing_ok=True)
        raise Missing("its file on this machine's disk is damaged")

    def _succeeded(self, job: Job, seconds: float) -> None:
        assert job.stored is not None
        if job.position is not None:
            self._uploads.forget_old()
            self._seconds.append(seconds)
        else:
            self._uploads.unwanted += [key for key in self._weights_keys if key != job.stored.key]
            self._weights_keys = [job.stored.key]
        log.info("%s is recorded, after %.2f s", job.stored.key, seconds)
        with self._changed:
            trouble, self._trouble, self._room = self._trouble, None, "enough"
            if job.position is not None:
                self._durable = job.position
        if trouble:
            waited = time.monotonic() - self._trouble_since
            self._say(f"{job.name.capitalize()} is in the store, after {waited:.0f} s of trouble ({trouble}).")

    def _in_trouble(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        with self._changed:
            first = self._trouble is None
            self._trouble = str(error) if isinstance(error, StoreError) else "the database does not answer"
            self._trouble_since = self._trouble_since if not first else time.monotonic()
            newly_full = isinstance(error, Full) and self._room == "enough"
            self._room = "refused" if newly_full else self._room
            job = (self._snapshots if self._weights.empty else self._weights).current
        if newly_full:
            self._say(f"The store is full ({error}): training goes on, and the upload is tried again; make room there.")
        elif first:
            what = job.name.capitalize() if job else "A snapshot"
            self._say(f"{what} is not safe yet ({self._trouble}): training goes on, and it is tried again.")

    def _say_shortage(self, freed: Freed) -> None:
        if freed.short and not self._short_said:
            self._say(
                f"The store stays {freed.short / 1e6:.0f} MB over its limit: what is left are snapshots that running "
                "trials need and weights to keep; raise store_limit or lower keep_weights."
            )
        self._short_said = bool(freed.short)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._closed.is_set() and (left := deadline - time.monotonic()) > 0:
            if self._hurry.is_set():
                self._closed.wait(min(left, HURRIED_PAUSE))
                return
            self._hurry.wait(left)

    def _leave(self) -> None:
        """Another worker owns the trial: take back what nobody points to."""
        log.warning("another worker owns %s: nothing more goes up", self._prefix)
        with self._changed:
            self._lost = self._tidying = True
            jobs = [lane.current for lane in (self._weights, self._snapshots)]
            self._weights, self._snapshots = Lane(), Lane()
        self._uploads.unwanted += [job.stored.key for job in jobs if job and job.stored and not job.committed]
        self._tidy_store()

    def _tidy_store(self) -> None:
        """Delete what is unwanted; what the store refuses comes last the next time, else goes as an orphan."""
        while self._uploads.unwanted:
            key = self._uploads.unwanted.pop(0)
            try:
                self._store.delete(key)
            except StoreError as error:
                log.warning("%s stays for now: %s", key, error)
                self._uploads.unwanted.append(key)
                return
            log.debug("%s is deleted", key)

    def _tidy_here(self) -> None:
        """Delete local snapshots but the newest two and the ones on their way."""
        with self._changed:
            lane = self._snapshots
            needed = {job.path for job in (lane.waiting, lane.current) if job} | set(self._local[-KEPT:])
            spare = [path for path in self._local if path not in needed]
            self._local = [path for path in self._local if path in needed]
        for path in spare:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def measure_local(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a local file; Missing when it is gone."""
    try:
        return measure(path)
    except FileNotFoundError as error:
        raise Missing(f"{path} is gone") from error
