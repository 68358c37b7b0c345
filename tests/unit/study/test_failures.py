"""What comes of each failure: who is blamed for it, what it costs the trial, and where a person finds all of it."""

from __future__ import annotations

import errno
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from optuna.trial import FrozenTrial

from petskin_tune.database.storage import PetskinStorage, open_storage
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import Unavailable
from petskin_tune.leases.lease import Lease, read_leases
from petskin_tune.protocol import Declined, Event, Failed
from petskin_tune.study import attributes
from petskin_tune.trial.process.runner import Died
from petskin_tune.trial.run import TrialRun
from petskin_tune.trial.workplace import Workplace
from tests.support.workplace import STARTED, Script, a_workplace, epoch_done, new_run, shown

EPOCH = epoch_done(1)
DOCTOR = "petskin-tune doctor --study petskin --home there"
DETAIL = "Traceback (most recent call last):\n  in the middle\nRuntimeError: at the end"
KILLED = Died(-signal.SIGKILL)


@dataclass(frozen=True)
class Row:
    """A cause.

    Attributes:
        says: what each process says before it ends with 0, or with the last event if that is a ``Died``.
        blames: how the sentence begins with which the worker ends; "": it goes on.
        crashes: of the trial's attempts that are used up.
        state: of the trial.
        refuses: raised where the job is made.
        trained: another trial has trained in this worker.
    """

    says: Sequence[Sequence[Event | Died]]
    blames: str
    crashes: int
    state: str = "RUNNING"
    refuses: Exception | None = None
    trained: bool = False


def failed(kind: Any) -> Failed:
    return Failed(kind, "KindError: all of it.", DETAIL)


MACHINES = "Training cannot start on this machine: "
DATA = "The data set here cannot be trained on: "
DIES = "The process of trial 0 dies before it trains: "
NO_ROOM = OSError(errno.ENOSPC, "No space left on device")
OLD = Declined("damaged-snapshot", "snapshot-2.pt cannot be gone on from: RuntimeError: size mismatch")

ROWS: dict[str, Row] = {
    # ---- what says nothing about the trial costs it nothing ----
    "the machine, before it trains": Row([[failed("machine")]], MACHINES, 0),
    "the machine, where others trained": Row([[failed("machine")]], MACHINES, 0, trained=True),
    "the machine, in mid training": Row(
        [[STARTED, EPOCH, failed("machine")]], "Training cannot go on on this machine: ", 0
    ),
    "the data set, before it trains": Row([[failed("data")]], DATA, 0),
    "the data set, in mid training": Row([[STARTED, EPOCH, failed("data")]], DATA, 0, trained=True),
    "a disk without room for the run": Row([], f"{MACHINES}OSError: ", 0, refuses=NO_ROOM),
    "a data set that is not here": Row(
        [], "The data set is missing", 0, refuses=UsageError("The data set is missing.")
    ),
    "a death before it trains, twice": Row([[KILLED], [KILLED]], DIES, 0),
    "a death before it trains, twice, where others trained": Row([[KILLED], [KILLED]], DIES, 0, trained=True),
    # ---- what is the trial's own blames no machine ----
    "its own, where nothing has trained yet": Row([[failed("crashed")]], "Trial 0 cannot start: ", 1),
    "its own, where others trained": Row([[failed("crashed")]], "", 0, "FAIL", trained=True),
    "its own, in mid training": Row([[STARTED, EPOCH, failed("crashed")]], "", 0, "FAIL"),
    "a bad argument": Row([[failed("refused")]], "", 0, "FAIL"),
    "a loss that is not finite": Row([[STARTED, failed("diverged")]], "", 0, "PRUNED"),
    "too little memory": Row([[STARTED, failed("out-of-memory")]], "", 0, "PRUNED"),
    "a snapshot that cannot be restored, and then nothing": Row(
        [[OLD], [failed("crashed")]], "Trial 0 cannot start", 1
    ),
    "a death in mid training, three times": Row([[STARTED, KILLED]] * 3, "", 3, "FAIL"),
}


class Life:
    """One trial in the hands of a worker, and what its making is refused with."""

    def __init__(self, storage: PetskinStorage, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._storage, self._folder, self._monkeypatch = storage, folder, monkeypatch
        self._place: Workplace | None = None
        self.refuses: Exception | None = None

    def run(self, script: Script) -> TrialRun:
        """A run of the trial, which is born or taken over."""
        if self._place is None:
            self._place = a_workplace(self._storage, self._folder, script, typed=" --home there")
            self._monkeypatch.setattr(self._place, "inputs_for", self._inputs)
        self._place.processes = cast(Any, script)
        return new_run(self._place)

    def _inputs(self, _snapshot: object) -> Any:
        if self.refuses is not None:
            raise self.refuses
        assert self._place is not None
        (self._place.folder(0) / "train.log").write_text("Fatal error: a library is missing\n")
        return self._place.inputs()

    @property
    def place(self) -> Workplace:
        assert self._place is not None
        return self._place

    def trial(self) -> FrozenTrial:
        return self.place.study.trials()[0]

    def lease(self) -> Lease:
        (lease,) = read_leases(self._storage, self.place.study.id)
        return lease


def script_of(row: Row) -> Script:
    return Script(*row.says, has_trained=row.trained)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PetskinStorage]:
    opened = open_storage(f"sqlite:///{tmp_path_factory.mktemp('failures') / 'tune.db'}")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def life(storage: PetskinStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Life:
    return Life(storage, tmp_path, monkeypatch)


@pytest.mark.parametrize("cause", ROWS)
def test_a_cause_blames_whom_it_is_of_costs_the_trial_only_what_is_its_own_and_can_be_found(
    life: Life, cause: str
) -> None:
    row = ROWS[cause]
    life.refuses = row.refuses
    run = life.run(script_of(row))
    if row.blames:
        with pytest.raises(UsageError) as caught:
            run.run()
        told, key = str(caught.value), attributes.GIVEN_BACK
        assert told.startswith(row.blames)
        assert ("this machine" in told) == row.blames.startswith("Training cannot")
        assert told.endswith(f"Look at it with: {DOCTOR}") or isinstance(row.refuses, UsageError)
        assert life.lease().state == "released"
        reason = life.lease().reason
        assert reason is not None
        assert reason in told or reason.partition(": ")[2].rstrip(".") in told
        assert DOCTOR not in reason
    else:
        outcome = run.run()
        told, key = outcome.reason, attributes.FAILURE
        assert outcome.end == "failed"
    assert life.lease().crashes == row.crashes
    assert life.trial().state.name == row.state
    if row.says and isinstance(row.says[-1][-1], Failed):
        log = str(life.place.folder(0) / "train.log")
        assert "KindError: all of it" in told
        assert f"all of it is in {log}" in told.replace("All", "all")
        kept = life.trial().user_attrs[key]
        assert (kept["message"], kept["detail"], kept["log"]) == ("KindError: all of it.", DETAIL, log)


def test_a_process_that_dies_before_it_trains_is_told_with_the_end_of_its_log(life: Life) -> None:
    with pytest.raises(UsageError, match=r"killed by SIGKILL.*2 times in a row \(Fatal error: a library is missing\)"):
        life.run(script_of(ROWS["a death before it trains, twice"])).run()


def test_a_store_that_is_away_is_waited_for_and_costs_nothing(life: Life) -> None:
    life.refuses = Unavailable("Input/output error")
    run = life.run(Script())
    ended: list[str] = []
    running = threading.Thread(target=lambda: ended.append(run.run().end))
    running.start()
    deadline = time.monotonic() + 240.0
    while "cannot be had now (Input/output error)" not in shown(life.place):
        assert time.monotonic() < deadline, shown(life.place)
        time.sleep(0.02)
    run.suspend("SIGINT", time.monotonic())
    running.join(240.0)
    assert ended == ["suspended"]
    assert (life.lease().state, life.lease().crashes) == ("released", 0)


def test_a_trial_that_trains_again_forgets_what_it_was_given_back_for(life: Life) -> None:
    with pytest.raises(UsageError):
        life.run(script_of(ROWS["the machine, before it trains"])).run()
    assert life.trial().user_attrs[attributes.GIVEN_BACK]
    assert life.run(script_of(ROWS["a loss that is not finite"])).run().kind == "diverged"
    assert life.trial().user_attrs[attributes.GIVEN_BACK] is None


def test_a_trial_that_cannot_start_three_times_fails(life: Life) -> None:
    for attempt in (1, 2):
        with pytest.raises(UsageError, match="Trial 0 cannot start"):
            life.run(script_of(ROWS["its own, where nothing has trained yet"])).run()
        assert life.lease().crashes == attempt
    assert life.run(script_of(ROWS["its own, where nothing has trained yet"])).run().end == "failed"
    assert life.trial().user_attrs[attributes.FAILURE]["kind"] == "crashed"
