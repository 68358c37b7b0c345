"""Worker processes that train by counting, on one PostgreSQL, killed at random: what is lost, and what is done twice.

Training is a chain: the state after an epoch is a hash of the state before it, and the reported fitness is a part of
it. So an epoch that was left out, or begun from the wrong state, shows in every epoch after it. A snapshot (the state)
is written and pointed to after every epoch. Every second worker pretends to be on a machine of its own: nobody can see
that it is dead, and its trials wait for the end of its lease.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import socket
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from petskin_tune.database.outages import Patience
from petskin_tune.database.storage import open_storage
from petskin_tune.errors import LeaseLost
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.heartbeat import Heartbeat
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held, SnapshotPointer
from petskin_tune.protocol import MASK_MAP, Position
from petskin_tune.study.fence import Fence

STUDY = "kills"
EPOCHS = 27  # of a trial
EPOCH_SECONDS = 1.0
LEASE_SECONDS = 15.0
KILL_SECONDS = 1.0  # between two kills, on average


def chain(number: int, epochs: int) -> list[str]:
    """The states of trial ``number`` after 1, 2, … epochs, when nobody disturbs it."""
    states = [str(number)]
    for epoch in range(1, epochs + 1):
        states.append(_next(states[-1], epoch))
    return states[1:]


def _next(state: str, epoch: int) -> str:
    return hashlib.sha256(f"{state} {epoch}".encode()).hexdigest()


def _fitness(state: str) -> float:
    return int(state[:8], 16) / 2**32


# ---- a worker, in its process ----------------------------------------------------------------------------------------


class _Worker:
    def __init__(self, url: str, folder: Path, name: str, sees_others: bool) -> None:
        identity = Identity.mine()
        if not sees_others:
            identity = replace(identity, host=f"{socket.gethostname()}-{name}")
        storage = open_storage(url, Patience(seconds=None))
        fence = Fence(storage.get_study_id_from_name(STUDY), None, STUDY)
        self._claims = Claims(storage, fence, name, LEASE_SECONDS, EPOCH_SECONDS, identity=identity)
        self._folder = folder
        self._log = (folder / f"{name}.jsonl").open("a", buffering=1)

    def work(self) -> None:
        """Train until the file ``enough`` is there and no trial is unfinished."""
        enough = self._folder / "enough"
        while True:
            leases = self._claims.read()
            held = self._claims.take_over(leases)
            if held is None and not enough.exists() and not self._claims.should_wait(leases):
                held = self._claims.next_trial(10**9)
            if held is not None:
                self._train(held)
            elif enough.exists() and not leases:
                return
            else:
                time.sleep(0.5)

    def _train(self, held: Held) -> None:
        self._say("claimed", held)
        trial = HeldTrial(self._claims, held)
        heartbeat = Heartbeat(trial)
        heartbeat.start()
        try:
            epoch, state = self._resumed(held)
            while epoch < EPOCHS:
                time.sleep(random.uniform(0.5, 1.5) * EPOCH_SECONDS)
                epoch, state = epoch + 1, _next(state, epoch + 1)
                self._say("trained", held, epoch=epoch)
                began = time.perf_counter()
                trial.report(epoch, _fitness(state), {"petskin-tune:history": {"epoch": [epoch], MASK_MAP: [0.0]}})
                trial.point_to(self._snapshot(held, epoch, state))
                self._say("reported", held, epoch=epoch, seconds=time.perf_counter() - began)
            trial.tell(TrialState.COMPLETE, _fitness(state), {}, {})
            self._say("finished", held)
        except LeaseLost:
            self._say("lost", held)
        finally:
            heartbeat.stop()

    def _resumed(self, held: Held) -> tuple[int, str]:
        """Epochs trained so far, and the state after them."""
        if held.lease is None or held.lease.snapshot is None:
            return 0, str(held.number)
        pointer = held.lease.snapshot
        state = (self._folder / pointer.key).read_text()
        assert hashlib.sha256(state.encode()).hexdigest() == pointer.sha256
        return pointer.position.epoch, state

    def _snapshot(self, held: Held, epoch: int, state: str) -> SnapshotPointer:
        key = f"{held.number}-{epoch}-{held.token}"
        unfinished = self._folder / f"{key}.part"
        unfinished.write_text(state)
        os.replace(unfinished, self._folder / key)
        return SnapshotPointer(key, hashlib.sha256(state.encode()).hexdigest(), Position(epoch, 0))

    def _say(self, what: str, held: Held, **facts: Any) -> None:
        facts = {"trial": held.number, "token": held.token, "at": time.time(), **facts}
        self._log.write(json.dumps({"event": what, **facts}) + "\n")


def _work(url: str, folder: Path, name: str, sees_others: bool) -> None:
    _Worker(url, folder, name, sees_others).work()


# ---- the soak --------------------------------------------------------------------------------------------------------


@dataclass
class Soak:
    """What was seen from outside: who was killed when, and who ended by itself."""

    seconds: float
    killed: dict[str, float]  # by worker
    died: list[str]  # ended with an error


def soak(url: str, folder: Path, workers: int, seconds: float) -> Soak:
    """Keep so many workers at work for so long, kill one about every second, and let the rest finish what there is."""
    storage = open_storage(url)
    optuna.create_study(study_name=STUDY, storage=storage, direction="maximize")
    storage.engine.dispose()  # no connection is shared with the workers
    context = multiprocessing.get_context("fork")
    running: dict[str, Any] = {}
    soaked, names = Soak(seconds, {}, []), iter(range(10**9))

    def fill() -> None:
        while len(running) < workers:
            number = next(names)
            name = f"w{number}"
            running[name] = context.Process(target=_work, args=(url, folder, name, number % 2 == 0))
            running[name].start()

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fill()
        time.sleep(random.uniform(0, 2 * KILL_SECONDS))
        name = random.choice(list(running))
        process = running.pop(name)
        if process.is_alive():
            soaked.killed[name] = time.time()
            process.kill()
        else:
            soaked.died.append(name)
        process.join()
    (folder / "enough").touch()
    for name, process in running.items():
        process.join()
        soaked.died += [name] if process.exitcode else []
    return soaked


# ---- what came of it -------------------------------------------------------------------------------------------------


def table(url: str, folder: Path, soaked: Soak) -> Iterator[tuple[str, str, bool]]:
    """Rows: what was counted, the figure, and whether it is as it must be."""
    events = [
        {"worker": path.stem, **json.loads(line)}
        for path in folder.glob("*.jsonl")
        for line in path.read_text().splitlines()
        if line.endswith("}")  # a kill may have cut the last one short
    ]
    of = {what: [event for event in events if event["event"] == what] for what in EVENTS}
    trials = optuna.load_study(study_name=STUDY, storage=open_storage(url)).trials
    curves = {trial.number: trial.intermediate_values for trial in trials}
    undisturbed = {n: dict(enumerate(map(_fitness, chain(n, EPOCHS)), start=1)) for n in curves}
    missing = sum(len(set(undisturbed[n]) - set(curve)) for n, curve in curves.items())
    wrong = sum(curve != undisturbed[n] for n, curve in curves.items())
    busy = _killed_at_work(of, soaked)
    yield "kills; of them, of a worker with a trial", f"{len(soaked.killed)}; {len(busy)}", bool(busy)
    yield "workers that ended with an error", str(len(soaked.died)), not soaked.died
    complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    yield "trials begun, and finished", f"{len(trials)}, {complete}", complete == len(trials)
    yield "epochs reported, and lost", f"{sum(map(len, curves.values()))}, {missing}", missing == 0
    yield "trials whose curve is not that of an undisturbed one", str(wrong), wrong == 0
    yield from _done_twice(of, busy)
    yield from _claimed(of, busy)
    seconds = [1000 * event["seconds"] for event in of["reported"]]
    rate = len(seconds) / (max(event["at"] for event in of["reported"]) - min(event["at"] for event in of["claimed"]))
    yield "epochs a second", f"{rate:.0f}", True
    yield (
        "database work of an epoch: p50, p95",
        f"{_quantile(seconds, 0.5):.0f}, {_quantile(seconds, 0.95):.0f} ms",
        True,
    )


EVENTS = ("claimed", "trained", "reported", "finished", "lost")


def _killed_at_work(of: dict[str, list[dict[str, Any]]], soaked: Soak) -> dict[tuple[int, int], float]:
    """When the owner of a trial was killed, by (trial, token)."""
    over = {(event["trial"], event["token"]) for what in ("finished", "lost") for event in of[what]}
    held = {(event["trial"], event["token"]): event["worker"] for event in of["claimed"]}
    return {key: soaked.killed[who] for key, who in held.items() if key not in over and who in soaked.killed}


def _done_twice(
    of: dict[str, list[dict[str, Any]]], busy: dict[tuple[int, int], float]
) -> Iterator[tuple[str, str, bool]]:
    """A kill between the end of an epoch and its snapshot costs that epoch, and nothing else may be done twice."""
    done: dict[tuple[int, int], list[int]] = {}
    for event in of["trained"]:
        done.setdefault((event["trial"], event["epoch"]), []).append(event["token"])
    again = {key: sorted(tokens)[:-1] for key, tokens in done.items() if len(tokens) > 1}
    after_a_kill = [(trial, token) for (trial, _), tokens in again.items() for token in tokens]
    lost = {(event["trial"], event["token"]) for event in of["lost"]}
    unasked = [key for key in after_a_kill if key not in busy and key not in lost]
    yield (
        "epochs trained again after a kill (at most one each)",
        str(len(after_a_kill)),
        set(Counter(after_a_kill).values()) <= {1},
    )
    yield "epochs trained twice without a kill", str(len(unasked)), not unasked


def _claimed(
    of: dict[str, list[dict[str, Any]]], busy: dict[tuple[int, int], float]
) -> Iterator[tuple[str, str, bool]]:
    """Every token is one worker's; how long a trial waited for its next owner."""
    owners = Counter((event["trial"], event["token"]) for event in of["claimed"])
    doubled = sum(count - 1 for count in owners.values())
    taken = {(event["trial"], event["token"]): event["at"] for event in of["claimed"]}
    waits = [taken[trial, token + 1] - at for (trial, token), at in busy.items() if (trial, token + 1) in taken]
    yield "claims, and claims of what another one owned", f"{len(of['claimed'])}, {doubled}", doubled == 0
    # Of one that had no processor for as long as a lease: by right, and nothing is lost by it.
    yield "trials taken from a living owner", str(len(of["lost"])), True
    how_long = f"{_quantile(waits, 0.5):.1f}, {_quantile(waits, 0.95):.1f} s"
    yield f"from a kill to the next owner (lease {LEASE_SECONDS:.0f} s): p50, p95", how_long, True


def _quantile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1] if len(values) > 1 else 0.0
