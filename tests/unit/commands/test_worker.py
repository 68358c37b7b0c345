"""What the worker of each device is told."""

from __future__ import annotations

import os
import pickle
import re
import time
from pathlib import Path

import pytest

from petskin_tune.commands.options import Places
from petskin_tune.commands.worker import Request, _changes, _one_worker_each, _requests, start_worker
from petskin_tune.errors import UsageError
from petskin_tune.interrupts import Signals
from petskin_tune.study.spec import PrunerSpec, SamplerSpec, StudySpec
from petskin_tune.study.wanted import Wanted
from tests.support.studies import a_spec


def test_each_device_has_a_worker_with_a_name_of_its_own_and_one_alone_takes_over() -> None:
    places = Places("x", storage="postgresql://me:secret@host/tune", asked=Wanted("x", a_spec(), frozen=True))
    told = _requests(["0", "cpu"], places, Request(device="0,cpu", name="gpu", max_hours=2.0, take_over=True), 7.0)
    read = {device: pickle.loads(request) for device, request in told.items()}
    assert list(read) == ["0", "cpu"]
    for device, (parent, where, request, typed_at) in read.items():
        assert parent == os.getpid()
        assert (where.mode, where.storage, where.asked) == ("guest", places.storage, places.asked)
        own = {"device": device, "name": f"gpu-{device}", "take_over": device == "0"}
        assert request == Request(**own, max_hours=2.0, typed_device="0,cpu")
        assert request.typed == " --device 0,cpu", "what was typed, not this worker's share of it"
        assert typed_at == 7.0


def test_what_held_for_the_instant_of_the_command_is_not_told_to_a_worker_that_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first device's dies of its first life, and the second's waits for its next one."""
    program = f"""
import os, pickle, sys, time
from pathlib import Path
_, _, request, _ = pickle.load(sys.stdin.buffer)
told = Path({str(tmp_path)!r}) / request.device
with told.open("a") as file:
    file.write(f"{{request.take_over}} {{request.target_trials}} {{request.max_trials}};")
if request.device == "0":
    os.kill(os.getpid(), 9) if told.read_text().count(";") == 1 else sys.exit(0)
while (told.parent / "0").read_text().count(";") < 2:
    time.sleep(0.05)
"""
    (tmp_path / "0").touch()
    monkeypatch.setattr("petskin_tune.commands.worker.ONE_OF_SEVERAL", program)
    asked = Request(device="0,1", take_over=True, target_trials=9, max_trials=5)
    places = Places("x", home=str(tmp_path / "home"))
    with Signals() as signals:
        assert _one_worker_each(["0", "1"], places, asked, signals, time.monotonic()) == 0
    assert (tmp_path / "0").read_text() == "True 9 5;False None 5;"
    assert (tmp_path / "1").read_text() == "False 9 5;"


def test_workers_without_a_name_are_called_after_their_processes() -> None:
    told = _requests(["0", "1"], Places("x"), Request(device="0,1"), 7.0)
    assert [pickle.loads(request)[2].name for request in told.values()] == [None, None]


def test_what_is_typed_again_keeps_what_decides_which_trials_go_on() -> None:
    assert Request().typed == ""
    assert Request(data="my data.zip", exact=True).typed == " --data 'my data.zip' --exact"
    assert Request(device="cpu").typed == " --device cpu"
    assert Request(allow_different_machine=True).typed == " --allow-different-machine"


@pytest.mark.parametrize("typed", [True, False])
def test_an_address_that_ps_shows_is_warned_of_in_one_line_without_it(
    typed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[str | None] = []
    monkeypatch.setattr("petskin_tune.commands.worker._work", lambda _1, asked, *_: heard.append(asked.notify) or 0)
    monkeypatch.setenv("TUNE_NOTIFY", "https://hooks.example/SECRET")
    with Signals() as signals:
        start_worker(Places("x"), Request(notify="https://hooks.example/SECRET" if typed else None), signals)
    said = capsys.readouterr()
    assert heard == ["https://hooks.example/SECRET"]
    assert not said.out
    warning = "warning: other users can see the address in --notify (by `ps`); TUNE_NOTIFY hides it\n"
    assert said.err == (warning if typed else "")


# ---- what it changes of the study ------------------------------------------------------------------------------------

FREEZE_THAW = a_spec(
    sampler=SamplerSpec(name="freeze-thaw", rungs=(9, 18, 27)),
    pruner=PrunerSpec(name="none"),
    budget=540,
    target_trials=60,
)


@pytest.mark.parametrize(
    ("request_", "changes"),
    [
        (Request(), {}),
        (Request(budget="20"), {}),
        (Request(budget="540 epochs", target_trials=60), {}),
        (Request(budget="30"), {"budget": 810, "target_trials": 90}),
        (Request(budget="30", target_trials=60), {"budget": 810}),
        (Request(target_trials=7), {"target_trials": 7}),
    ],
)
def test_a_budget_is_raised_and_with_it_the_number_of_trials_that_it_can_begin(
    request_: Request, changes: dict[str, int]
) -> None:
    assert _changes(request_, FREEZE_THAW) == changes


def test_a_number_of_trials_that_somebody_chose_stays() -> None:
    assert _changes(Request(budget="30"), FREEZE_THAW.model_copy(update={"target_trials": 12})) == {"budget": 810}


@pytest.mark.parametrize(
    ("budget", "spec", "said"),
    [
        ("20", a_spec(), "--budget is for studies of the sampler `freeze-thaw`; petskin ends after its trials"),
        ("many", FREEZE_THAW, "--budget must be a number of full runs, such as 20"),
        ("1 epoch", FREEZE_THAW, "--budget must be from one full run"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(budget: str, spec: StudySpec, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        _changes(Request(budget=budget), spec)
