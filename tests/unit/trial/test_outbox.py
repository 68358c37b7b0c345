"""What waits on local disk: complete after a kill in mid write, owned by one token, handed on once."""

from __future__ import annotations

import errno
import json
import math
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.errors import UsageError
from petskin_tune.protocol import EpochDone
from petskin_tune.trial.outbox import Outbox


def _epoch(number: int, fitness: float = 0.5) -> EpochDone:
    return EpochDone(epoch=number, fitness=fitness, metrics={"train/box_loss": 1.25}, seconds=60.0)


def _numbers(outbox: Outbox) -> list[int]:
    return [epoch.epoch for epoch in outbox.take_over()]


def test_an_outbox_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert Outbox(tmp_path / "outbox" / "a.jsonl", 1).take_over() == []


def test_the_next_owner_on_this_disk_gets_every_epoch_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "outbox" / "a.jsonl"
    epochs = [_epoch(4, 0.1 + 0.2), _epoch(5, 1 / 3)]
    for epoch in epochs:
        Outbox(path, 1).add(epoch)
    assert Outbox(path, 2).take_over() == epochs


@given(fitness=st.floats(allow_nan=False), loss=st.floats())
def test_every_float_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, fitness: float, loss: float
) -> None:
    path = tmp_path_factory.mktemp("outbox") / "a.jsonl"
    Outbox(path, 1).add(EpochDone(1, fitness, {"loss": loss}, 1.0))
    (back,) = Outbox(path, 1).take_over()
    assert back.fitness == fitness
    assert back.metrics["loss"] == loss or math.isnan(loss)


def test_epochs_of_an_owner_before_the_direct_predecessor_are_dropped_for_good(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Outbox(path, 1).add(_epoch(4))
    assert _numbers(Outbox(path, 3)) == []
    assert not path.exists()


@pytest.mark.parametrize("token", [1, 2])
def test_epochs_of_another_trial_of_the_same_number_are_dropped_for_good(tmp_path: Path, token: int) -> None:
    path = tmp_path / "a.jsonl"
    Outbox(path, 1, "restored away").add(_epoch(4))
    assert _numbers(Outbox(path, token, "born since")) == []
    assert not path.exists()


def test_epochs_of_this_trial_are_kept_among_those_of_another_and_know_their_trial_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Outbox(path, 1, "one").add(_epoch(4, 0.25))
    Outbox(path, 1, "other").add(_epoch(4, 0.75))
    assert [epoch.fitness for epoch in Outbox(path, 2, "other").take_over()] == [0.75]
    assert _numbers(Outbox(path, 3, "one")) == []


@pytest.mark.parametrize(("theirs", "ours"), [(None, "mine"), ("mine", None)])
def test_where_the_births_cannot_be_compared_nothing_is_dropped(
    tmp_path: Path, theirs: str | None, ours: str | None
) -> None:
    path = tmp_path / "a.jsonl"
    Outbox(path, 1, theirs).add(_epoch(4))
    assert _numbers(Outbox(path, 2, ours)) == [4]


def test_lines_from_before_births_were_kept_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"token": 1, **asdict(_epoch(4))}) + "\n")
    assert Outbox(path, 2, "mine").take_over() == [_epoch(4)]


def test_what_was_taken_over_can_be_handed_on_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Outbox(path, 1).add(_epoch(4))
    assert _numbers(Outbox(path, 2)) == [4]  # killed before it could send it
    assert _numbers(Outbox(path, 3)) == [4]


def test_a_late_epoch_of_an_owner_that_came_back_from_the_dead_reaches_no_later_owner(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    zombie = Outbox(path, 1)
    zombie.add(_epoch(4))
    assert _numbers(Outbox(path, 2)) == [4]
    zombie.add(_epoch(5))
    assert _numbers(Outbox(path, 3)) == [4]


def test_an_epoch_trained_twice_counts_as_it_was_heard_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    Outbox(path, 1).add(_epoch(4, 0.25))
    Outbox(path, 2).add(_epoch(4, 0.75))
    assert [epoch.fitness for epoch in Outbox(path, 2).take_over()] == [0.25]


def test_epochs_come_in_order_whatever_the_order_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for number in (5, 4, 6):
        Outbox(path, 1).add(_epoch(number))
    assert _numbers(Outbox(path, 1)) == [4, 5, 6]


def test_a_line_that_a_kill_cut_off_costs_that_epoch_and_not_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    outbox = Outbox(path, 1)
    outbox.add(_epoch(4))
    whole = path.read_bytes()
    outbox.add(_epoch(5))
    line = path.read_bytes()[len(whole) :]
    for cut in range(1, len(line)):
        path.write_bytes(whole + line[:cut])
        outbox.add(_epoch(6))
        assert _numbers(Outbox(path, 2)) in ([4, 6], [4, 5, 6])


@pytest.mark.parametrize(
    "line", ["{}", "[]", "null", '{"token": 1}', '{"token": 1, "epoch": 1, "colour": "of a newer version"}', "\x00\x00"]
)
def test_what_is_no_epoch_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n")
    Outbox(path, 1).add(_epoch(4))
    assert _numbers(Outbox(path, 1)) == [4]


def test_an_epoch_is_on_disk_before_add_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    path = tmp_path / "a.jsonl"
    monkeypatch.setattr("petskin_tune.trial.outbox.os.fsync", lambda _: synced.append(path.read_bytes()))
    Outbox(path, 1).add(_epoch(4))
    assert json.loads(synced[0])["epoch"] == 4


def test_a_disk_that_refuses_is_told_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("petskin_tune.trial.outbox.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Outbox(tmp_path / "a.jsonl", 1).add(_epoch(4))


def test_neither_a_link_nor_a_fifo_in_its_place_is_written_read_or_waited_for(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    link, fifo = Outbox(tmp_path / "link", 2), Outbox(tmp_path / "fifo", 2)
    link.path.symlink_to(tmp_path / "thesis.txt")
    os.mkfifo(fifo.path)

    for box in (link, fifo):
        with pytest.raises(OSError, match="not a file"):
            box.add(_epoch(1))
        with pytest.raises(UsageError, match="move it away"):
            box.take_over()

    assert (tmp_path / "thesis.txt").read_text() == "mine"
