from __future__ import annotations

from pathlib import Path

from petskin_tune.diagnosis.run_files import read_run
from petskin_tune.files.results_csv import render
from tests.support.curves import BOX, MASK


def test_what_is_written_is_read_back_whatever_the_classes_are_called(tmp_path: Path) -> None:
    columns = {
        "epoch": [1, 2],
        "time": [1.5, 3.25],
        BOX: [0.1, 0.2],
        MASK: [0.1, 0.25],
        f'{MASK}/a, "b"\n피부': [0.5, 0.75],
    }
    (tmp_path / "results.csv").write_text(render(columns), encoding="utf-8")
    curves = read_run(tmp_path)
    assert list(curves.fitness) == [0.1, 0.25]
    assert {name: list(values) for name, values in curves.classes.items()} == {'a, "b"\n피부': [0.5, 0.75]}


def test_without_a_row_there_is_no_table() -> None:
    assert render({}) == render({"epoch": [], MASK: []}) == ""
