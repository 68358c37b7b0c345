"""Simulated workers: everything of a worker that touches the database, in a process of its own, without the training.

``start("work", …)`` starts one; what it does it appends to its log, one JSON object a line, so that a test can wait for
an instant and afterwards compare what a worker believed with what the database holds. The fitness that a simulated
worker reports tells the epoch and the token under which it was reported: ``epoch + token / 1000``.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from petskin_tune.database import engine as database
from petskin_tune.database.outages import Patience
from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import LeaseLost
from petskin_tune.identity import Identity
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.heartbeat import Heartbeat
from petskin_tune.leases.held_trial import HeldTrial
from petskin_tune.leases.lease import Held, SnapshotPointer
from petskin_tune.protocol import MASK_MAP, EpochDone, Position
from petskin_tune.search.pruners import Verdict
from petskin_tune.study import attributes
from petskin_tune.study.fence import Fence
from petskin_tune.trial.outbox import Outbox
from petskin_tune.trial.recorder import Recorder

PATIENCE = 240.0  # seconds that a test waits for what must happen; these machines may be busy
# A lease that is to run out is as short as this; one that must not, because its owner lives, lasts longer than any test
# keeps a living process from running.
LEASE = 2.0
LONG = 600.0
UNREACHABLE = 10**6  # trials, or epochs of one: more than are done before a test has seen its faults happen

# ---- in the simulated worker's process ------------------------------------------------------------------------------


class SimulatedWorker:
    """One worker, as its options say.

    Options: url, study_id, log; name, lease, snapshots (seconds between them), idle (PostgreSQL's patience with an idle
    transaction), elsewhere (pretend to be another machine), faults, outbox (folder); those of a role: see there.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        os.environ["TUNE_FAULTS"] = options.get("faults", "")
        os.environ["TUNE_FAULTS_LOG"] = f"{options['log']}.faults"
        database.IDLE_TRANSACTION_SECONDS = options.get("idle", database.IDLE_TRANSACTION_SECONDS)
        identity = Identity.mine()
        if options.get("elsewhere"):
            identity = replace(identity, host=f"elsewhere-{os.getpid()}")
        self.storage = open_storage(options["url"], Patience(seconds=None))
        self._identity = identity

    @cached_property
    def leases(self) -> Claims:
        """Of the study, which an empty database does not have."""
        options = self.options
        return Claims(
            self.storage,
            self._fence(options["study_id"]),
            options.get("name", f"worker-{os.getpid()}"),
            options.get("lease", LEASE),
            options.get("snapshots", 1000.0),
            identity=self._identity,
        )

    def _fence(self, study_id: int) -> Fence:
        uid = self.storage.get_study_user_attrs(study_id).get(attributes.UID)
        return Fence(study_id, uid, self.storage.get_study_name_from_id(study_id))

    def log(self, event: str, **facts: Any) -> None:
        log(self.options, event, **facts)

    # ---- roles ----

    def open(self) -> None:
        """Open the database and look around."""
        self.log("opened", studies=[study.study_name for study in self.storage.get_all_studies()])

    def give_birth(self) -> None:
        """Create ``count`` trials and hold them until the end of the process (a fault, as a rule)."""
        for _ in range(self.options["count"]):
            held = self.leases.next_trial(10**6)
            assert held is not None
            self.log("born", trial=held.trial_id)

    def race(self) -> None:
        """Take over whatever can be had, once for each line that the test writes into the file ``starts``."""
        for round_number in range(self.options["rounds"]):
            until(lambda n=round_number: len(_lines(Path(self.options["starts"]))) > n, "the start of a round")
            while held := self.leases.take_over():
                self.log("claimed", trial=held.trial_id, token=held.token, round=round_number)
            self.log("through", round=round_number)
        until(lambda: False, "the end: whoever leaves makes orphans of its trials", seconds=3600)

    def do_one_thing(self) -> None:
        """Create a trial, write ``doing`` to it, and say how that went."""
        trial = self._newborn()
        self.log("born", trial=trial.held.trial_id)
        try:
            WRITES[self.options["doing"]](trial)
            self.log("written")
        except LeaseLost as error:
            self.log("lost", why=str(error))

    def hold(self) -> None:
        """Create a trial and hold it; take over what can be had meanwhile; until killed."""
        trial = self._newborn()
        renewal = Heartbeat(trial, lambda: self.log("lost", trial=trial.held.trial_id))
        renewal.start()
        self.log("born", trial=trial.held.trial_id)
        self._look_for_orphans(forever=True)

    def wait_at_the_door(self) -> None:
        """Take over what can be had, until killed; begin when the file ``wait_for`` is there."""
        self._wait_for_the_sign()
        self._look_for_orphans(forever=True)

    def work(self) -> None:
        """Take over, create and train trials until ``target`` are over; begin when the file ``wait_for`` is there.

        With the option ``enough``, a file: no trial is created any more once it is there, and one in work ends.
        """
        self._wait_for_the_sign()
        while True:
            self.leases.adopt_unleased()
            held = self.leases.take_over() or self._new_trial()
            if held is not None:
                self.train(held)
            elif not self.leases.read():
                break
            else:
                self.log("looked")
                time.sleep(0.1)
        self.log("ends")

    def _wait_for_the_sign(self) -> None:
        self.log("ready")
        if "wait_for" in self.options:
            until(Path(self.options["wait_for"]).exists, "the sign to begin", seconds=3600)

    def _new_trial(self) -> Held | None:
        return None if self._is_enough() else self.leases.next_trial(self.options["target"])

    def _is_enough(self) -> bool:
        return "enough" in self.options and Path(self.options["enough"]).exists()

    def _hold(self, recorder: Recorder) -> None:
        sign = Path(self.options["hold_until"])
        until(lambda: recorder.lost or sign.exists(), "the sign to end a trial", seconds=3600)
        if recorder.lost:  # it had run ahead of its reports
            raise LeaseLost

    def train(self, held: Held) -> None:
        """A trial of ``epochs`` epochs, one every ``pace`` seconds, or the rest of the one that another worker began.

        With the option ``hold_until``, a file: its last epoch is not over before that file is there.
        """
        self.log("claimed", trial=held.trial_id, number=held.number, token=held.token)
        trial = HeldTrial(self.leases, held)
        renewal = Heartbeat(trial)
        renewal.start()
        try:
            self._train(trial)
            self.log("over", trial=held.trial_id)
        except LeaseLost:
            self.log("lost", trial=held.trial_id, token=held.token)
        finally:
            renewal.stop()

    def _train(self, trial: HeldTrial) -> None:
        if not trial.read().params:
            draw(trial)
        outbox = Outbox(Path(self.options["outbox"]) / f"{trial.number}.jsonl", trial.held.token, trial.birth)
        recorder = Recorder(trial, outbox, self._judge, lambda: None, lambda _news: None)
        recorder.start()
        recorder.drain(None)
        epoch = max(recorder.curve, default=0)
        while epoch < self.options["epochs"] and recorder.verdict is None and not (epoch and self._is_enough()):
            if recorder.lost:
                raise LeaseLost
            if recorder.error:
                raise recorder.error
            time.sleep(self.options.get("pace", 0.0))
            epoch += 1
            if epoch == self.options["epochs"] and "hold_until" in self.options:
                self._hold(recorder)
            recorder.heard(epoch_done(epoch, trial.held.token))
            self.log("heard", trial=trial.held.trial_id, epoch=epoch, token=trial.held.token)
        recorder.drain(None)
        if recorder.error:
            raise recorder.error
        state = TrialState.PRUNED if recorder.verdict else TrialState.COMPLETE
        trial.tell(state, max(recorder.curve.values()), {}, {})
        recorder.close()
        outbox.discard()

    def _judge(self, epoch: int, _curve: Mapping[int, float]) -> Verdict:
        return Verdict(epoch == self.options.get("prune_at"), "simulated")

    def _newborn(self) -> HeldTrial:
        held = self.leases.next_trial(10**6)
        assert held is not None
        return HeldTrial(self.leases, held)

    def _look_for_orphans(self, *, forever: bool) -> None:
        while forever:
            if held := self.leases.take_over():
                Heartbeat(HeldTrial(self.leases, held)).start()
                self.log("claimed", trial=held.trial_id, token=held.token)
            self.log("looked")
            time.sleep(0.1)


def log(options: Mapping[str, Any], event: str, **facts: Any) -> None:
    line = json.dumps({"event": event, "at": time.time(), **facts}) + "\n"
    with open(options["log"], "a", encoding="utf-8") as file:
        file.write(line)


def draw(trial: HeldTrial, value: float = 0.5) -> None:
    trial.store_draw({"x": value}, {"x": FloatDistribution(0.0, 1.0)}, {"sampler": "said"}, {"origin": "search"})


def epoch_done(epoch: int, token: int) -> EpochDone:
    fitness = epoch + token / 1000
    return EpochDone(
        epoch=epoch, fitness=fitness, metrics={MASK_MAP: fitness, "train/box_loss": 1 / epoch}, seconds=1.0
    )


def pointer(epoch: int = 1) -> SnapshotPointer:
    return SnapshotPointer(f"snapshot-{epoch}", "0" * 64, Position(epoch, 0))


WRITES: dict[str, Callable[[HeldTrial], Any]] = {
    "report": lambda trial: trial.report(1, 0.1, {"history": [0.1]}),
    "parameters": draw,
    "attributes": lambda trial: trial.describe({"worker": "me"}),
    "snapshot pointer": lambda trial: trial.point_to(pointer()),
    "tell": lambda trial: trial.tell(TrialState.COMPLETE, 0.1, {"worker": "me"}, {"constraints": [0.0]}),
    "release": lambda trial: trial.release("suspended"),
}


def main(role: str, options: Mapping[str, Any]) -> None:
    if role == "open_stock":
        optuna.storages.RDBStorage(options["url"])
        return
    try:
        worker = SimulatedWorker(options)
        getattr(worker, role)()
    except BaseException:
        log(options, "died", error=traceback.format_exc())
        raise


# ---- in the test's process ------------------------------------------------------------------------------------------


class Process:
    """A simulated worker as the test sees it."""

    def __init__(self, process: Any, log: Path) -> None:
        self._process = process
        self._log = log
        self.pid: int = process.pid

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in _lines(self._log)]
        return [line for line in lines if event is None or line["event"] == event]

    def fired(self, point: str) -> bool:
        """Whether a fault happened at ``point``."""
        return any(line.split()[0] == point for line in _lines(self._log.with_name(f"{self._log.name}.faults")))

    def count(self, event: str) -> int:
        """How many such events there were."""
        return self._log.read_text(encoding="utf-8").count(f'"event": "{event}"') if self._log.exists() else 0

    def wait_for(self, event: str, times: int = 1) -> list[dict[str, Any]]:
        until(lambda: self.count(event) >= times, f"{times} x {event!r} in {self._log.name}")
        return self.events(event)

    def wait_until_stopped(self) -> None:
        until(lambda: _state(self.pid) == "T", "a stopped process")

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def wait(self) -> int | None:
        """Its exit code; negative: the signal that ended it."""
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, f"{self._log.name} does not end: {self.events()[-3:]}"
        return self._process.exitcode

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        if self.is_alive:
            self.signal(signal.SIGKILL)
        self.wait()


class Workers:
    """Starts simulated workers for one study and ends them with the test."""

    def __init__(self, folder: Path, url: str, study_id: int) -> None:
        self.url = url
        self._folder = folder
        self._common = {"url": url, "study_id": study_id, "outbox": str(folder / "outbox")}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["petskin_tune.trial.recorder", "petskin_tune.leases.heartbeat", "psycopg2"]
        )
        self.all: list[Process] = []

    def start(self, role: str, **options: Any) -> Process:
        log = self._folder / f"{len(self.all):02d}-{role}.jsonl"
        process = self._context.Process(target=main, args=(role, {**self._common, **options, "log": str(log)}))
        process.start()
        self.all.append(Process(process, log))
        return self.all[-1]

    def end(self) -> None:
        for worker in self.all:
            with contextlib.suppress(ProcessLookupError):
                worker.signal(signal.SIGKILL)
        for worker in self.all:
            worker.wait()


@contextlib.contextmanager
def workers_of(
    folder: Path, storage: PetskinStorage | None, study_id: int, url: str | None = None
) -> Iterator[Workers]:
    if url is None:
        assert storage is not None
        url = storage.engine.url.render_as_string(hide_password=False)
    workers = Workers(folder, url, study_id)
    try:
        yield workers
    finally:
        workers.end()


def let_the_lease_run_out(storage: PetskinStorage, trial_id: int) -> None:
    """As if the owner of a trial, which is dead or stopped, had had a lease of a second, which is long over."""
    ended = f"lease_seconds = 1, expires_at = expires_at - {LONG} - 1"
    with storage.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE trial_leases SET {ended} WHERE trial_id = {trial_id}")


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain for {what}"
        time.sleep(0.02)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
