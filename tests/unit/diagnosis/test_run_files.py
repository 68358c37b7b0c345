"""Run files from anywhere: of two trainings in one, unreadable, endless, broken, or made of anything at all."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.diagnosis.explain import of_run
from petskin_tune.diagnosis.run_files import MOST_RESULTS, read_run
from petskin_tune.errors import UsageError
from tests.support.curves import BOX, MASK
from tests.support.fuzzing import cases

HEADER = f"epoch,time,train/box_loss,{BOX},{MASK},val/box_loss,lr/pg0"
MOST_SECONDS = 2.0  # of this process, however busy the machine is
SCREEN = 24 * 80  # characters


def row(epoch: object, score: object = 0.1) -> str:
    return f"{epoch},1,2.5,{score},{score},3,0.01"


def results(folder: Path, *rows: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "results.csv").write_text("\n".join((HEADER, *rows)) + "\n", encoding="utf-8")
    return folder


def run(epochs: int, score: float, first: int = 1) -> list[str]:
    return [row(epoch, score) for epoch in range(first, first + epochs)]


# ---- several trainings in one file ----


def test_of_two_trainings_in_one_file_the_last_is_judged_and_said_to_be_it(tmp_path: Path) -> None:
    said = of_run(results(tmp_path, *run(60, 0.5), *run(15, 0.15)))
    assert "\n15 epochs, best mask mAP 0.150" in said
    assert "holds 2 trainings" in said


@pytest.mark.parametrize("first", [0, 1])
def test_three_trainings_are_counted(tmp_path: Path, first: int) -> None:
    curves = read_run(results(tmp_path, *run(9, 0.5, first), *run(7, 0.4, first), *run(6, 0.3, first)))
    assert len(curves) == 6
    assert "3 trainings" in curves.remarks[0]


def test_a_training_that_counts_from_one_behind_one_that_counted_from_zero_is_another(tmp_path: Path) -> None:
    curves = read_run(results(tmp_path, *run(9, 0.5, first=0), *run(6, 0.3)))
    assert (len(curves), curves.number(0)) == (6, 1)


def test_another_header_in_the_middle_begins_another_training(tmp_path: Path) -> None:
    curves = read_run(results(tmp_path, *run(9, 0.5), f"epoch,{BOX}", "1,0.2", "2,0.3"))
    assert (len(curves), curves.fitness_name) == (2, "box mAP")


@pytest.mark.parametrize("rows", [[*run(9, 0.5), *run(3, 0.6, first=8)], [*run(1, 0.1), *run(5, 0.2)]])
def test_epochs_that_a_resumed_training_did_again_are_no_second_one(tmp_path: Path, rows: list[str]) -> None:
    assert read_run(results(tmp_path, *rows)).remarks == ()


@pytest.mark.parametrize("epochs", [12, 10, 8, 6])
def test_what_a_training_did_before_it_was_resumed_from_an_earlier_epoch_is_replaced(
    tmp_path: Path, epochs: int
) -> None:
    curves = read_run(results(tmp_path, *run(10, 0.5), *run(epochs - 5, 0.2, first=6)))
    assert curves.remarks == ()
    assert [curves.number(index) for index in range(len(curves))] == list(range(1, epochs + 1))
    assert list(curves.fitness) == [0.5] * 5 + [0.2] * (epochs - 5)


# ---- what is no file, or may not be read ----


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as refusal:
        read_run(path)
    return str(refusal.value)


def test_a_device_a_fifo_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "results.csv").symlink_to("/dev/zero")
    assert "it is a device" in refused(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    assert "it is a FIFO" in refused(tmp_path / "fifo")
    (tmp_path / "run" / "results.csv").mkdir(parents=True)
    assert "it is a folder" in refused(tmp_path / "run")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "nothing here"])
def test_a_name_of_no_file_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path / name).startswith("There is no ")


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """The disk refuses to open a file of that name: nothing else does so to the user root."""

    def refuse(name: str, number: int) -> None:
        opened = os.open

        def open_unless(path: str | os.PathLike[str], *how: Any, **more: Any) -> int:
            if os.path.basename(path) == name:
                raise OSError(number, os.strerror(number), str(path))
            return opened(path, *how, **more)

        monkeypatch.setattr(os, "open", open_unless)

    return refuse


OF_THE_DISK = [(errno.EIO, "Input/output error"), (errno.EACCES, "Permission denied"), (errno.ESTALE, "Stale file")]


@pytest.mark.parametrize(("number", "said"), OF_THE_DISK)
def test_an_error_of_the_disk_is_one_sentence(
    tmp_path: Path, refuse: Callable[[str, int], None], number: int, said: str
) -> None:
    results(tmp_path, *run(3, 0.1))
    refuse("results.csv", number)
    assert f"results.csv cannot be read: {said}" in refused(tmp_path)


def test_an_endless_file_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "results.csv", "wb") as file:
        file.truncate(MOST_RESULTS + 1)
    assert "it is larger than" in refused(tmp_path)


# ---- args.yaml ----

BROKEN = {
    "a number of 5000 digits": "seed: " + "9" * 5000,
    "brackets 3000 deep": "x: " + "[" * 3000 + "]" * 3000,
    "no timestamp": "name: !!timestamp x",
    "no number": "epochs: !!int x",
    "a python object": "x: !!python/object:os.system {}",
    "no map": "- 1",
    "laughs": "\n".join(["a0: &a0 x", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_run_is_diagnosed_without_arguments_that_are_broken_and_it_is_said(tmp_path: Path, text: str) -> None:
    results(tmp_path, *run(9, 0.5))
    (tmp_path / "args.yaml").write_text(f"{text}\n")
    (remark,) = read_run(tmp_path).remarks
    assert remark.startswith("The diagnosis does without args.yaml: ")
    assert len(remark) < SCREEN


@pytest.mark.parametrize(("number", "said"), OF_THE_DISK)
def test_a_run_is_diagnosed_without_arguments_that_the_disk_refuses(
    tmp_path: Path, refuse: Callable[[str, int], None], number: int, said: str
) -> None:
    results(tmp_path, *run(9, 0.5))
    (tmp_path / "args.yaml").write_text("epochs: 15\n")
    refuse("args.yaml", number)
    assert f"The diagnosis does without args.yaml: {said}" in of_run(tmp_path)


@pytest.mark.parametrize("kind", ["a device", "a FIFO", "a folder"])
def test_a_run_is_diagnosed_without_arguments_that_are_no_file(tmp_path: Path, kind: str) -> None:
    results(tmp_path, *run(9, 0.5))
    arguments = tmp_path / "args.yaml"
    {"a device": lambda: arguments.symlink_to("/dev/zero"), "a FIFO": lambda: os.mkfifo(arguments)}.get(
        kind, arguments.mkdir
    )()
    assert f"The diagnosis does without args.yaml: it is {kind}, not a file." in of_run(tmp_path)


def test_a_name_that_looks_like_a_date_costs_no_argument(tmp_path: Path) -> None:
    results(tmp_path, *run(9, 0.5))
    (tmp_path / "args.yaml").write_text("epochs: 15\nname: 2024-31-12\ndate: 2024-12-31\n")
    curves = read_run(tmp_path)
    assert curves.arguments == {"epochs": 15, "name": "2024-31-12", "date": "2024-12-31"}
    assert curves.planned == 15


@pytest.mark.parametrize("epochs", ["1" + "0" * 400, ".nan", "[1]", "2024-13-45", "-3", "1.0e+300"])
def test_a_number_of_epochs_that_is_none_is_as_good_as_unknown(tmp_path: Path, epochs: str) -> None:
    results(tmp_path, *run(9, 0.5))
    (tmp_path / "args.yaml").write_text(f"epochs: {epochs}\n")
    assert read_run(tmp_path).planned is None


# ---- anything ----

CELLS = st.one_of(
    st.sampled_from(
        ["0", "1", "2", "3", "nan", "inf", "-inf", "", "1e300", "-1", "0.5", "9" * 400, "epoch", MASK, '"']
    ),
    st.floats().map(str),
    st.integers().map(str),
    st.text(max_size=5),
)
LINES = st.one_of(
    st.builds(row, st.integers(-1, 12), st.one_of(st.floats(0, 1), st.floats())),
    st.lists(CELLS, min_size=7, max_size=7).map(",".join),
    st.lists(CELLS, max_size=9).map(",".join),
    st.sampled_from([HEADER, f"epoch,{MASK}", "", "\0", '"']),
)
YAML_VALUES = st.one_of(
    st.sampled_from(
        ["2024-13-45", "!!timestamp x", "!!int x", "!!bool x", "9" * 400, ".inf", ".nan", "*a", "&a", "[", "{"]
    ),
    st.text(max_size=10),
    st.floats().map(str),
    st.integers().map(str),
)
NAMES = st.sampled_from(
    ["epochs", "optimizer", "lr0", "mosaic", "close_mosaic", "warmup_epochs", "val", "name", "<<", "? "]
)
ARGUMENTS = st.one_of(
    st.lists(st.builds("{}: {}".format, NAMES, YAML_VALUES), max_size=8).map("\n".join),
    st.text(max_size=200),
)
BYTES = st.one_of(
    st.lists(LINES, max_size=40).map(lambda lines: "\n".join([HEADER, *lines]).encode("utf-8", "surrogatepass")),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=100),
)


@pytest.mark.filterwarnings("error")
@cases(200)
@given(content=BYTES, arguments=ARGUMENTS)
def test_whatever_the_files_hold_the_answer_is_short_and_soon_there(
    tmp_path: Path, content: bytes, arguments: str
) -> None:
    (tmp_path / "results.csv").write_bytes(content)
    (tmp_path / "args.yaml").write_text(arguments, encoding="utf-8", errors="surrogatepass")
    began = time.process_time()
    try:
        said = of_run(tmp_path)
    except UsageError as refusal:
        said = str(refusal)
    assert time.process_time() - began < MOST_SECONDS
    assert len(said) < SCREEN
