"""Diagnosis of files that Ultralytics wrote, of all ages and in all states."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from petskin_tune.diagnosis.explain import of_run
from petskin_tune.diagnosis.run_files import read_run
from petskin_tune.errors import UsageError
from tests.support import curves as made
from tests.support.curves import BOX, MASK


def write(folder: Path, history: made.History, arguments: dict | None = None, *, padded: bool = False) -> Path:
    """A results.csv as Ultralytics writes it (``padded``: as it did in 2023, counting epochs from 0)."""
    columns = {"epoch": np.arange(1, len(history[MASK]) + 1)} | dict(history)
    if padded:
        columns["epoch"] = np.arange(len(history[MASK]))
    with open(folder / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"{name:>23}" if padded else name for name in columns])
        for row in zip(*columns.values(), strict=True):
            writer.writerow([f"{value:>23.5g}" if padded else f"{value:.6g}" for value in row])
    if arguments is not None:
        (folder / "args.yaml").write_text(yaml.safe_dump(arguments))
    return folder / "results.csv"


def test_a_run_folder_is_diagnosed_with_the_arguments_beside_it(tmp_path: Path) -> None:
    write(tmp_path, made.seed_project(), {"optimizer": "AdamW", "lr0": 7.3e-5, "epochs": 47, "mosaic": 0.0})
    text = of_run(tmp_path)
    assert text.startswith(f"{tmp_path}: something is wrong: stuck\nStuck since epoch")
    assert "\n47 epochs, best mask mAP 0.12" in text
    assert "; training loss 3.9 → " in text
    assert "learning rate up to 7.3e-05." in text
    assert "Stuck since epoch" in text
    assert "\n  → Try lr0=0.00036." in text


def test_a_results_csv_alone_will_do(tmp_path: Path) -> None:
    assert "Stuck since epoch" in of_run(write(tmp_path, made.seed_project()))


def test_a_healthy_run_is_told_how_it_compares_and_gets_no_verdict(tmp_path: Path) -> None:
    text = of_run(write(tmp_path, made.healthy(0), made.arguments()))
    assert text.partition("\n")[0].endswith(": nothing is wrong")
    assert "No sign of trouble: 90 % of the best was there at epoch" in text
    assert "\n  →" not in text


def test_a_run_in_progress_is_told_how_far_it_is_and_not_how_it_ended(tmp_path: Path) -> None:
    history = {name: values[:20] for name, values in made.healthy(0).items()}
    text = of_run(write(tmp_path, history, made.arguments()))
    assert "No sign of trouble so far, 20 of 100 epochs are done." in text


def test_a_run_that_finds_nothing_yet_is_not_called_healthy(tmp_path: Path) -> None:
    nothing = np.abs(np.random.default_rng(0).normal(0, 0.0003, 100))
    history = {name: values[:12] for name, values in (made.healthy(0) | {MASK: nothing, BOX: nothing}).items()}
    text = of_run(write(tmp_path, history, made.arguments()))
    assert "No verdict yet: after 12 epochs nothing is found" in text
    assert "compare the labels and the classes of train and val" in text


def test_a_run_whose_score_fell_in_its_first_epochs_is_told_to_wait(tmp_path: Path) -> None:
    history = {name: values[:5] for name, values in made.healthy(0).items()}
    history[MASK] = np.array([0.795, 0.002, 0.008, 0.001, 0.026])
    history[BOX] = history[MASK]
    text = of_run(write(tmp_path, history))
    assert "No verdict yet: mask mAP fell from 0.795 (epoch 1) to" in text
    assert "Diverged" not in text


@pytest.mark.parametrize(("done", "planned"), [(8, 8), (16, 100)], ids=["over", "long after its best"])
def test_a_run_whose_score_cannot_come_back_any_more_gets_a_verdict(tmp_path: Path, done: int, planned: int) -> None:
    history = {name: values[:done] for name, values in made.healthy(0).items()}
    history[MASK] = np.array([0.2, 0.2, 0.5] + [0.2] * (done - 3))
    history[BOX] = history[MASK]
    text = of_run(write(tmp_path, history, made.arguments(planned)))
    assert text.partition("\n")[0].endswith(": worth a look")
    assert "mask mAP fell from 0.500 (epoch 3) to 0.200 and did not come back: the weights of epoch 3 are" in text
    assert "No verdict yet" not in text


def test_a_run_that_was_validated_in_its_last_epoch_only_is_not_judged_by_the_others(tmp_path: Path) -> None:
    """``val: false``: Ultralytics writes 0 for every score and loss that it has not measured."""
    history = made.healthy(0, epochs=50)
    for name, values in history.items():
        if name.startswith(("metrics/", "val/")):
            values[:-1] = 0.0  # type: ignore[index]
    text = of_run(write(tmp_path, history, made.arguments(50, val=False)))
    assert "Too short for a verdict: only 1 of 50 epochs validated and recorded in numbers" in text


def test_a_run_that_was_to_be_validated_at_its_end_and_has_not_come_there_gets_no_verdict(tmp_path: Path) -> None:
    history = {name: values[:20] for name, values in made.healthy(0, epochs=50).items()}
    for name, values in history.items():
        if name.startswith(("metrics/", "val/")):
            values[:] = 0.0  # type: ignore[index]
    text = of_run(write(tmp_path, history, made.arguments(50, val=False)))
    assert "only 0 of 20 epochs validated" in text


def test_cells_that_are_blank_cost_their_epoch_and_no_more(tmp_path: Path) -> None:
    file = write(tmp_path, made.healthy(0), made.arguments())
    lines = file.read_text().splitlines()
    for line, name in ((21, "train/seg_loss"), (30, MASK), (40, "lr/pg0"), (50, "epoch")):
        cells = lines[line].split(",")
        cells[lines[0].split(",").index(name)] = ""
        lines[line] = ",".join(cells)
    file.write_text("\n".join(lines) + "\n")
    text = of_run(file)
    assert "No sign of trouble: 90 %" in text
    assert "nan" not in text


def test_a_best_that_stands_out_of_its_noise_is_told_with_the_noise(tmp_path: Path) -> None:
    text = of_run(write(tmp_path, made.healthy(0, noise=0.04), made.arguments()))
    assert "from one epoch to the next" in text


def test_a_run_that_ends_far_below_its_best_is_never_called_untroubled(tmp_path: Path) -> None:
    text = of_run(write(tmp_path, made.healthy(0, noise=0.05, decline=0.1), made.arguments()))
    assert text.partition("\n")[0].endswith(": worth a look")
    assert "the last epochs lie 36.0% below the best (2.7% is usual)" in text
    assert "→ The best epoch may be luck" in text
    assert "No sign of trouble" not in text


def test_a_single_high_epoch_near_the_end_is_no_reason_to_train_longer(tmp_path: Path) -> None:
    history = made.healthy(0, decline=0.1)
    history[MASK][91] = 0.6  # type: ignore[index]
    text = of_run(write(tmp_path, history, made.arguments()))
    assert "90 % of the best was there at epoch 92" in text
    assert text.count("  → ") == 1
    assert "may make it better" not in text


def test_a_short_run_is_told_that_it_is_too_short(tmp_path: Path) -> None:
    history = {name: values[:3] for name, values in made.healthy(0).items()}
    assert "Too short for a verdict: 3 epochs, 5 are needed." in of_run(write(tmp_path, history))


def test_files_of_2023_with_padded_columns_epochs_from_0_and_infinite_losses_are_read_alike(tmp_path: Path) -> None:
    history = made.healthy(0) | {"val/box_loss": np.zeros(100), "val/seg_loss": np.full(100, np.inf)}
    curves = read_run(write(tmp_path, history, padded=True))
    assert (curves.number(0), curves.number(99)) == (1, 100)
    assert curves.val_loss is None
    assert curves.fitness == pytest.approx(np.asarray(history[MASK]), abs=1e-4)


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, made.healthy(0))
    file.write_text(file.read_text()[:-40])
    assert len(read_run(file)) == 99


def test_epochs_that_a_resumed_run_did_again_count_once_the_newest(tmp_path: Path) -> None:
    file = write(tmp_path, made.healthy(0))
    lines = file.read_text().splitlines()
    again = lines[90].split(",")
    again[lines[0].split(",").index(MASK)] = "0.99999"
    file.write_text("\n".join([*lines, lines[0], ",".join(again)]) + "\n")
    curves = read_run(file)
    assert len(curves) == 90, "it has not come to the later ones again"
    assert curves.fitness[89] == 0.99999


def test_a_damaged_args_yaml_costs_only_what_it_would_have_told(tmp_path: Path) -> None:
    file = write(tmp_path, made.seed_project())
    (tmp_path / "args.yaml").write_text("lr0: [")
    assert "Stuck since epoch" in of_run(file)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a results.csv of Ultralytics"),
        (b"epoch,loss\n1,2\n", "it has no column"),
        (b"\xff\xfe\x00\x01", "it is no text"),
        (f"epoch,{MASK}\n".encode(), "no finished epoch yet"),
    ],
)
def test_what_is_no_results_csv_is_refused_in_one_sentence(tmp_path: Path, content: bytes, why: str) -> None:
    file = tmp_path / "results.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=why):
        of_run(file)


def test_a_missing_run_is_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="or the run folder that holds one"):
        of_run(tmp_path)


def test_a_detection_run_is_diagnosed_by_its_boxes(tmp_path: Path) -> None:
    history = {name: values for name, values in made.healthy(0).items() if name != MASK}
    columns = {"epoch": np.arange(1, 101)} | history
    rows = [",".join(columns)] + [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    (tmp_path / "results.csv").write_text("\n".join(rows))
    assert f"best box mAP {max(history[BOX]):.3f}" in of_run(tmp_path)


def test_mosaic_that_closes_during_a_plateau_does_not_hide_it_with_or_without_known_arguments(tmp_path: Path) -> None:
    history = made.seed_project()
    history["train/seg_loss"][-10:] *= 0.85  # type: ignore[index]
    known = {"optimizer": "AdamW", "epochs": 47, "mosaic": 1.0, "close_mosaic": 10}
    assert "Stuck since epoch" in of_run(write(tmp_path, history, known))
    (tmp_path / "args.yaml").unlink()
    assert "Stuck since epoch" in of_run(tmp_path)
