"""What the worker of each device is told."""

from __future__ import annotations

import pickle

from petskin_tune.commands.options import Places
from petskin_tune.commands.worker import Request, _requests
from petskin_tune.study.study import Wanted
from tests.support.studies import a_spec


def test_each_device_has_a_worker_with_a_name_of_its_own_and_one_alone_takes_over() -> None:
    places = Places("x", storage="postgresql://me:secret@host/tune", asked=Wanted("x", a_spec(), frozen=True))
    told = _requests(["0", "cpu"], places, Request(device="0,cpu", name="gpu", max_hours=2.0, take_over=True), 7.0)
    read = {device: pickle.loads(request) for device, request in told.items()}
    assert list(read) == ["0", "cpu"]
    for device, (where, request, typed_at) in read.items():
        assert (where.mode, where.storage, where.asked) == ("guest", places.storage, places.asked)
        assert request == Request(device=device, name=f"gpu-{device}", max_hours=2.0, take_over=device == "0")
        assert typed_at == 7.0


def test_workers_without_a_name_are_called_after_their_processes() -> None:
    told = _requests(["0", "1"], Places("x"), Request(device="0,1"), 7.0)
    assert [pickle.loads(request)[1].name for request in told.values()] == [None, None]


def test_what_is_typed_again_keeps_what_decides_which_trials_go_on() -> None:
    assert Request().typed == ""
    assert Request(data="my data.zip", exact=True).typed == " --data 'my data.zip' --exact"
    assert Request(allow_different_machine=True).typed == " --allow-different-machine"
