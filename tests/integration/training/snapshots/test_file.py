"""A snapshot file is whole or absent, damaged ones are told apart, and nothing in it can run code."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest
import torch

from petskin_tune import packages
from petskin_tune.protocol import Position
from petskin_tune.training.snapshots import file as snapshot
from tests.support import training as helpers
from tests.support.soak import first

IDENTITY = {"study": "petskin", "trial": "7", "data": "abc", "model": "yolov8n-seg"}
ARGUMENTS = {"lr0": 0.01, "optimizer": "SGD"}


def state(**changes):
    return {
        "format": snapshot.FORMAT,
        "identity": IDENTITY,
        "requested": ARGUMENTS,
        "position": [3, 4],
        "model": {"weight": torch.arange(1000.0), "count": torch.tensor(5)},
        "history": [{"loss": 0.5}],
        "none": None,
        **changes,
    }


@pytest.fixture
def path(tmp_path):
    return snapshot.path_for(tmp_path / "snapshots", Position(3, 4))


def test_the_format_of_snapshots_is_the_one_that_workers_compare():
    assert packages.here()["snapshot_format"] == snapshot.FORMAT


def test_what_was_written_is_read(path):
    written = snapshot.write(state(), path)
    read = snapshot.read(path)
    assert torch.equal(read["model"].pop("weight"), torch.arange(1000.0))
    assert read == {**state(), "model": {"count": torch.tensor(5)}}
    assert written.size == path.stat().st_size
    assert written.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_torch_reads_a_snapshot_without_our_code(path):
    snapshot.write(state(), path)
    assert torch.load(path, weights_only=True)["history"] == [{"loss": 0.5}]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_snapshot_is_damaged(path, share):
    size = snapshot.write(state(), path).size
    os.truncate(path, int(size * share))
    with pytest.raises(snapshot.SnapshotDamaged, match=r"snapshot-00003-0000004\.pt"):
        snapshot.read(path)


def test_any_flipped_bit_makes_a_snapshot_damaged(path):
    size = snapshot.write(state(), path).size
    content = path.read_bytes()
    for place in range(0, size, 97):
        altered = bytearray(content)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        with pytest.raises(snapshot.SnapshotDamaged):
            snapshot.read(path)


def test_an_absent_snapshot_is_damaged(path):
    with pytest.raises(snapshot.SnapshotDamaged, match="cannot be read"):
        snapshot.read(path)


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_snapshot_with_code_in_it_is_refused_and_runs_nothing(path, tmp_path):
    snapshot.write({**state(), "payload": RunsCode(tmp_path / "trap")}, path)
    with pytest.raises(snapshot.SnapshotDamaged, match="mkdir"):
        snapshot.read(path)
    assert not (tmp_path / "trap").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "trap").exists(), "the trap does not work"


def test_a_failing_disk_leaves_the_snapshot_before_it(path, monkeypatch):
    snapshot.write(state(history=["old"]), path)

    def fail(source, target):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        snapshot.write(state(history=["new"]), path)
    assert snapshot.read(path)["history"] == ["old"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("room", first(2, [1000, 500_000, 0, 30_000, 999_000]))
def test_a_full_disk_is_named_as_one_wherever_it_fills_up(path, room):
    """torch hides it behind an error about a position in the file."""
    large = state(model={str(index): torch.zeros(50_000) for index in range(5)})
    snapshot.write(state(), path)
    with helpers.full_disk(room), pytest.raises(OSError, match="File too large"):
        snapshot.write(large, path)
    assert snapshot.read(path)["model"].keys() == {"weight", "count"}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_an_error_that_is_not_the_disks_keeps_its_name(path):
    with pytest.raises(Exception, match=r"pickle|local object"):
        snapshot.write(state(payload=lambda: None), path)


def test_the_two_newest_snapshots_stay(tmp_path):
    for batch in range(4):
        snapshot.write(state(), snapshot.path_for(tmp_path, Position(0, batch)))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "snapshot-00000-0000002.pt",
        "snapshot-00000-0000003.pt",
    ]


def test_a_clock_that_stands_still_or_is_set_back_removes_no_newer_snapshot(tmp_path):
    for age, batch in enumerate((8, 9, 10, 11)):
        path = snapshot.write(state(), snapshot.path_for(tmp_path, Position(0, batch))).path
        os.utime(path, (1e9 - age // 2, 1e9 - age // 2))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "snapshot-00000-0000010.pt",
        "snapshot-00000-0000011.pt",
    ]


def test_after_a_fall_back_the_snapshots_of_the_course_that_was_given_up_go(tmp_path):
    for position in (Position(99_999, 8), Position(100_000, 5), Position(99_999, 9)):
        snapshot.write(state(), snapshot.path_for(tmp_path, position))
    (tmp_path / "snapshot-mine.pt").touch()
    snapshot.write(state(), snapshot.path_for(tmp_path, Position(99_999, 10)))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "snapshot-99999-0000009.pt",
        "snapshot-99999-0000010.pt",
        "snapshot-mine.pt",
    ]


def test_names_sort_as_positions_do(tmp_path):
    positions = [Position(0, 9), Position(0, 10), Position(2, 0), Position(10, 5)]
    names = [snapshot.path_for(tmp_path, position).name for position in positions]
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"identity": {**IDENTITY, "study": "cats"}}, "study 'cats'"),
        ({"identity": {**IDENTITY, "trial": "8"}}, "trial '8'"),
        ({"identity": {**IDENTITY, "data": "def"}}, "data 'def'"),
        ({"identity": {**IDENTITY, "model": "yolov8l-seg"}}, "model 'yolov8l-seg'"),
        ({"identity": {}}, "data None"),
        ({"requested": {**ARGUMENTS, "lr0": 0.02}}, "argument lr0 0.02"),
        ({"format": 99}, "format 99"),
    ],
)
def test_a_snapshot_of_something_else_is_refused_by_name(changes, named):
    with pytest.raises(snapshot.SnapshotForeign, match=named):
        snapshot.check_identity(state(**changes), IDENTITY, ARGUMENTS)


def test_a_snapshot_of_this_trial_is_accepted():
    snapshot.check_identity(state(), IDENTITY, ARGUMENTS)
