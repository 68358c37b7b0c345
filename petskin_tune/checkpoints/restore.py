"""What stays in a store and what goes, and the way back to the newest snapshot that is whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Generic, Literal, Protocol, TypeVar

from petskin_tune.checkpoints.base import Entry, Store
from petskin_tune.checkpoints.keys import is_of_a_trial, snapshot_position
from petskin_tune.files.atomic import PARTIAL
from petskin_tune.files.durable import Damaged, Missing, read_patiently
from petskin_tune.protocol import Position

ORPHAN_SECONDS = 3600.0  # younger files that no lease points to may be uploads whose lease is being written
LATE_SECONDS = 900.0  # younger snapshots may not be seen yet on a disk that shows files late
_ONLY = 4  # the rank of a paused trial's only snapshot, see `_rank`


class Pointer(Protocol):
    """What a lease says about a snapshot in the store."""

    @property
    def key(self) -> str:
        """Key in the store."""

    @property
    def sha256(self) -> str:
        """Hexadecimal."""

    @property
    def position(self) -> Position:
        """Where training stood."""


AnyPointer = TypeVar("AnyPointer", bound=Pointer)


@dataclass(frozen=True)
class Rejected:
    """A snapshot that cannot be used, and why: a clause that names it; ``missing``: no file was seen."""

    key: str
    reason: str
    missing: bool = False


@dataclass(frozen=True)
class Restored(Generic[AnyPointer]):
    """The newest good snapshot of a trial, on local disk; no path and no pointer when there is none."""

    path: Path | None
    pointer: AnyPointer | None
    rejected: tuple[Rejected, ...]


def newest_good(pointers: Sequence[AnyPointer], store: Store, folder: Path) -> Restored[AnyPointer]:
    """Fetch the first of ``pointers`` (newest first) that is there and whole.

    Args:
        pointers: as the lease has them.
        store: where they lie.
        folder: local folder for the file.

    Raises:
        Unavailable: the store does not answer, which says nothing about the snapshot: try again later.
        Full: the local disk has no room.
    """
    rejected: list[Rejected] = []
    for pointer in pointers:
        path = folder / PurePosixPath(pointer.key).name
        try:
            read_patiently(partial(store.fetch, pointer.key, path, pointer.sha256))
        except (Missing, Damaged) as error:
            rejected.append(Rejected(pointer.key, str(error), isinstance(error, Missing)))
        else:
            return Restored(path, pointer, tuple(rejected))
    return Restored(None, None, tuple(rejected))


def forget_fetched(folder: Path, but: Path | None = None) -> None:
    """Delete what :func:`newest_good` has brought into ``folder``, whole or not, except ``but``."""
    for pattern in ("snapshot-*.pt", f".snapshot-*{PARTIAL}"):
        for path in folder.glob(pattern):
            if path != but:
                with suppress(OSError):
                    path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Holding:
    """What a trial has in the store.

    Attributes:
        prefix: its folder.
        state: ``paused`` trials may be continued, ``finished`` ones (pruned and failed too) never.
        snapshots: keys its lease points to, newest first.
        keep: keys of weights and curves to keep.
        pictures: whether its pictures stay as long as there is room: they can be made again.
        spare: second snapshots of a frozen trial, which nobody writes to; what else lies there may be a new owner's.
    """

    prefix: str
    state: Literal["running", "paused", "finished"]
    snapshots: tuple[str, ...] = ()
    keep: frozenset[str] = frozenset()
    pictures: bool = False
    spare: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Freed:
    """What was deleted to make room, and how many bytes are still missing (0: there is room)."""

    deleted: tuple[str, ...]
    short: int


def make_room(
    store: Store,
    entries: Sequence[Entry],
    study_uid: str,
    holdings: Iterable[Holding],
    *,
    limit: int | None,
    incoming: int,
    full: bool = False,
    paused: bool = True,
    give_up: Callable[[str], bool] = lambda _: True,
    worth: Callable[[], Mapping[str, float]] = dict,
    settle: Callable[[], None] = lambda: None,
) -> Freed:
    """Delete what is needed least, until ``incoming`` bytes more fit.

    First go orphans, then what is left of finished trials, then the second snapshots of paused and of running trials
    (the oldest first), then paused trials' only ones (of the least promising trial first). The newest snapshot of a
    running trial and kept weights stay.

    Args:
        store: the store; all studies in it count against the limit, only this study's files are deleted.
        entries: all that lies in it, listed before the holdings were read.
        study_uid: the study's folder.
        holdings: all of this study's trials that have a lease; what no holding names is an orphan after an hour.
        limit: bytes that the store may hold; None: no limit but the disk's own.
        incoming: bytes that are about to be written.
        full: whether the store has refused for want of room, whatever the limit says.
        paused: whether paused trials may lose their only snapshots.
        give_up: called with the folder of a paused trial before its only snapshot goes; False: it stays.
        worth: what paused trials promise, by folder; asked when one of them has to go. Of equals the oldest goes first.
        settle: called before the first file goes; raises where the holdings may not be what is in force.

    Raises:
        Unavailable: the store does not answer.
    """
    over = 0 if limit is None else sum(entry.size for entry in entries) + incoming - limit
    needed = max(over, incoming if full else 0)
    if needed <= 0:
        return Freed((), 0)
    deleted: list[str] = []

    def delete(least_needed_first: Iterable[Entry], may: Callable[[str], bool] = lambda _: True) -> None:
        nonlocal needed
        for entry in least_needed_first:
            if needed <= 0:
                return
            if not deleted:
                settle()
            if may(_folder(entry)):
                store.delete(entry.key)
                needed -= entry.size
                deleted.append(entry.key)

    ranked = _least_needed_first(entries, study_uid, holdings)
    delete(entry for rank, entry in ranked if rank != _ONLY)
    only = [entry for rank, entry in ranked if rank == _ONLY]
    if needed > 0 and only and paused:
        promised = worth()
        delete(sorted(only, key=lambda entry: promised.get(_folder(entry), -math.inf)), give_up)
    return Freed(tuple(deleted), max(0, needed))


def _least_needed_first(
    entries: Sequence[Entry], study_uid: str, holdings: Iterable[Holding]
) -> list[tuple[int, Entry]]:
    by_prefix = {holding.prefix: holding for holding in holdings}
    ranked = []
    for entry in entries:
        if entry.key.startswith(f"{study_uid}/") and is_of_a_trial(entry.key):
            holding = by_prefix.get(_folder(entry))
            rank = _rank(entry, holding)
            if rank is not None:
                ranked.append((rank, -entry.age, entry.key, entry))
    return [(rank, entry) for rank, *_, entry in sorted(ranked)]


def _folder(entry: Entry) -> str:
    return str(PurePosixPath(entry.key).parent)


def _rank(entry: Entry, holding: Holding | None) -> int | None:
    """How early a file goes when room is needed: 0 first; None: never."""
    if holding is not None and entry.key in holding.spare:
        return 2
    if holding is None or entry.key not in (*holding.snapshots, *holding.keep):
        if holding is not None and holding.state == "finished":
            return 1
        return 0 if entry.age >= ORPHAN_SECONDS else None
    if entry.key in holding.keep or snapshot_position(entry.key) is None:
        return None
    if holding.state == "finished":
        return 1
    newest = entry.key == holding.snapshots[0]
    if holding.state == "paused":
        return _ONLY if newest else 2
    return None if newest else 3
