"""Who uses a home on a network disk: one machine at a time.

The owner writes signs of life as new files, ``claim-<term>-<owner>-<beat>.json``. A network disk has no operation that
only one of two can win, so a claim is not a lock: of several, the highest (term, owner) owns the home, and everybody
else finds that out before the next copy is written. Copies of a lower rank are never taken for newer.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from petskin_tune.errors import LeaseLost, UsageError
from petskin_tune.faults import reach
from petskin_tune.files import regular, temporary
from petskin_tune.files.durable import StoreError, names_in, remove, translated, write_new
from petskin_tune.home.copies import Copies, Rank
from petskin_tune.identity import Identity

BEAT_SECONDS = 30.0  # between two signs of life
WATCH_SECONDS = 90.0  # without one, as the claimer itself sees it, the owner is gone
LONG_GONE_SECONDS = 900.0  # the owner of a sign of life that is older, by both clocks, is watched for less long:
LONG_GONE_WATCH_SECONDS = 60.0  # a beat and a margin; never for nothing, because a clock may be wrong
LOOK_SECONDS = 2.0  # between two looks while watching
_NAME = re.compile(r"claim-(\d+)-([0-9a-f]{8})-(\d+)\.json")


@dataclass(frozen=True)
class Sign:
    """The newest sign of life of one owner."""

    rank: Rank
    beat: int
    identity: Identity | None  # None: it cannot be read
    written: float  # seconds since 1970 by the owner's clock; 0: it cannot be read


class Claim:
    """The claims on one home, and ours among them.

    Args:
        folder: of the home's claims and copies.
        copies: in the same home: their names tell of owners too.
        say: takes one sentence for people.
    """

    def __init__(
        self,
        folder: Path,
        copies: Copies,
        say: Callable[[str], None],
        *,
        watch_seconds: float = WATCH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder, self._copies, self._say = folder, copies, say
        self._watch_seconds, self._clock, self._sleep = watch_seconds, clock, sleep
        self._mine = Identity.mine()
        self._beat = 0
        self.rank: Rank | None = None  # ours, or the one we joined
        self.owned = False  # whether it is ours

    def take(self, *, take_over: bool = False, join: bool = False, above: Rank) -> None:
        """Become the owner of the home, or join a living owner on this machine.

        Args:
            take_over: the user says that the owner is gone.
            join: share the home with an owner on this machine, rather than be refused.
            above: the rank of this machine's database.

        Raises:
            UsageError: another worker uses the home.
            Unavailable, Full: the disk refuses.
        """
        owner = self._highest()
        if owner is not None and not take_over:
            alive = self._is_alive(owner)
            if alive and join and owner.identity is not None and owner.identity.is_alive():
                self.rank = owner.rank
                return
            if alive:
                raise UsageError(_refusal(owner))
        self._claim(above)

    def check(self) -> None:
        """Make sure that nobody has taken the home over.

        Raises:
            LeaseLost: somebody has.
            Unavailable: the disk does not answer.
        """
        owner = self._highest()
        newest = self._copies.newest_first()
        ranks = [owner.rank] if owner else []
        ranks += [newest[0].version.rank] if newest else []
        if self.rank is None or any(rank > self.rank for rank in ranks):
            raise LeaseLost("another worker has taken this home over")

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            LeaseLost: somebody has taken the home over.
            Unavailable, Full: the disk refuses.
        """
        self.check()
        self._beat += 1
        self._write()
        self._forget(lambda rank, beat: rank == self.rank and beat < self._beat)

    def release(self) -> None:
        """Let the next one in at once, if the home is ours."""
        if not self.owned:
            return
        self.owned = False
        with contextlib.suppress(StoreError):
            self._forget(lambda rank, _beat: rank == self.rank)

    def _claim(self, above: Rank) -> None:
        newest = self._copies.newest_first()
        terms = [above.term, *(rank.term for rank, _ in self._names())]
        terms += [newest[0].version.rank.term] if newest else []
        self.rank = Rank(max(terms) + 1, _new_owner())
        self._beat = 0
        self.owned = True
        reach("home-claiming")
        self._write()
        rival = self._highest()
        if rival is not None and rival.rank > self.rank:
            self.release()
            raise UsageError(_refusal(rival))
        with contextlib.suppress(StoreError):
            self._forget(lambda rank, _beat: rank != self.rank and self.rank is not None and rank < self.rank)

    def _write(self) -> None:
        assert self.rank is not None
        content = {"identity": self._mine.to_json(), "written": time.time()}
        name = f"claim-{self.rank.term:06d}-{self.rank.owner}-{self._beat:06d}.json"
        with translated("giving a sign of life"), temporary.new_folder() as folder:
            local = folder / name
            local.write_text(json.dumps(content), encoding="utf-8")
            write_new(local, self._folder / name, network=True)

    def _is_alive(self, owner: Sign) -> bool:
        """Whether an owner gives signs of life; waits for one where it cannot be known."""
        known = owner.identity.is_alive() if owner.identity else None
        if known is not None:
            return known
        long_gone = owner.written > 0 and time.time() - owner.written > LONG_GONE_SECONDS
        seconds = min(self._watch_seconds, LONG_GONE_WATCH_SECONDS) if long_gone else self._watch_seconds
        self._say(
            f"Another worker used this home{'' if long_gone else ' until lately'}: looking for {seconds:.0f} s whether "
            "it lives (--take-over, if you know that it is gone)."
        )
        until = self._clock() + seconds
        while self._clock() < until:
            self._sleep(min(LOOK_SECONDS, seconds))
            now = self._highest()
            if now is None:  # released
                return False
            if (now.rank, now.beat) != (owner.rank, owner.beat):
                return True
        return False

    def _highest(self) -> Sign | None:
        names = self._names()
        if not names:
            return None
        rank, beat = max(names)
        path = self._folder / f"claim-{rank.term:06d}-{rank.owner}-{beat:06d}.json"
        try:
            content = json.loads(regular.read_text(path))
            return Sign(rank, beat, Identity.from_json(content["identity"]), float(content["written"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Sign(rank, beat, None, 0.0)

    def _names(self) -> list[tuple[Rank, int]]:
        matches = [_NAME.fullmatch(name) for name in names_in(self._folder)]
        return [(Rank(int(match[1]), match[2]), int(match[3])) for match in matches if match]

    def _forget(self, which: Callable[[Rank, int], bool]) -> None:
        for rank, beat in self._names():
            if which(rank, beat):
                name = f"claim-{rank.term:06d}-{rank.owner}-{beat:06d}.json"
                with contextlib.suppress(OSError):
                    remove(self._folder / name, network=True)


def _new_owner() -> str:
    return secrets.token_hex(4)


def _refusal(owner: Sign) -> str:
    who = f" ({owner.identity.host}, pid {owner.identity.pid})" if owner.identity else ""
    return (
        f"Another worker{who} uses this home, and a home on a network disk serves one at a time: wait for it, say "
        "--take-over if you know that it is gone, or use --storage postgresql://… for several machines (--device 0,1 "
        "for several GPUs of one)."
    )
