"""Logs of `model.tune()` from anywhere: of all releases, cut short, of nothing but failures, or no logs at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from petskin_tune.errors import UsageError
from petskin_tune.imports.fitting import Terms
from petskin_tune.imports.outcome import outcome
from petskin_tune.imports.sources import read_path
from petskin_tune.imports.tune_logs import read_log
from petskin_tune.study.foreign import foreign_of
from tests.support.curves import BOX, MASK
from tests.support.foreign_runs import EPOCHS, spec, tune_csv, tune_ndjson

ROWS = [{"fitness": 0.3 + 0.1 * n, "lr0": 0.001 * (n + 1), "momentum": 0.9} for n in range(4)]
ADAMW = Terms(spec(), assumed={"optimizer": "AdamW"})


def test_a_row_is_a_trial_with_one_observation_at_the_last_epoch(tmp_path: Path) -> None:
    found = outcome("log", read_log(tune_csv(tmp_path / "tune_results.csv", ROWS)), ADAMW)
    assert [trial.intermediate_values for trial in found.trials] == [{EPOCHS: row["fitness"]} for row in ROWS]
    (scale,) = {foreign.scale for trial in found.trials if (foreign := foreign_of(trial))}
    assert scale.startswith("fitness of ")


def test_a_row_of_fitness_0_has_failed(tmp_path: Path) -> None:
    runs = read_log(tune_csv(tmp_path / "log.csv", [*ROWS, {"fitness": 0.0, "lr0": 0.1, "momentum": 0.9}]))
    assert [run.diverged for run in runs] == [False] * 4 + [True]


@pytest.mark.parametrize(("fitness", "why"), [(0.0, "all its 3 runs have failed"), (0.61, "the same fitness, 0.61")])
def test_a_log_in_which_nothing_varies_is_left_out(tmp_path: Path, fitness: float, why: str) -> None:
    rows = [{"fitness": fitness, "lr0": 0.001 * n, "momentum": 0.9} for n in (1, 2, 3)]
    found = outcome("log", read_log(tune_csv(tmp_path / "log.csv", rows)), ADAMW)
    assert not found.trials
    assert why in found.reasons


def test_rows_outside_of_the_space_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*ROWS, *({"fitness": 0.2, "lr0": 0.2 + n / 10, "momentum": 0.9} for n in range(2))]
    found = outcome("log", read_log(tune_csv(tmp_path / "log.csv", rows)), ADAMW)
    assert len(found.trials) == 4
    assert found.reasons == "`lr0` outside of the space (2)"


def test_what_a_log_does_not_say_is_asked_for(tmp_path: Path) -> None:
    rows = [{"fitness": 0.1 * n, "lr0": 0.001 * n} for n in (1, 2, 3)]
    runs = read_log(tune_csv(tmp_path / "log.csv", rows))
    assert "--assume momentum=…" in outcome("log", runs, ADAMW).reasons
    assumed = Terms(spec(), assumed={"optimizer": "AdamW", "momentum": 0.9})
    assert [trial.params["momentum"] for trial in outcome("log", runs, assumed).trials] == [0.9] * 3
    defaults = Terms(spec(), assumed={"optimizer": "AdamW"}, defaults=True)
    assert [trial.params["momentum"] for trial in outcome("log", runs, defaults).trials] == [0.937] * 3


def test_the_newer_log_holds_mask_map_itself(tmp_path: Path) -> None:
    rows = [({"lr0": 0.001 * n, "momentum": 0.9}, {MASK: 0.1 * n, BOX: 0.2 * n}) for n in (1, 2, 3)]
    runs = read_log(tune_ndjson(tmp_path / "log.ndjson", rows))
    assert [run.final for run in runs] == [pytest.approx(0.1 * n) for n in (1, 2, 3)]
    assert {run.scale for run in runs} == {""}


def test_a_newer_log_of_detection_is_left_out(tmp_path: Path) -> None:
    rows = [({"lr0": 0.001 * n, "momentum": 0.9}, {BOX: 0.2 * n}) for n in (1, 2, 3)]
    found = outcome("log", read_log(tune_ndjson(tmp_path / "log.ndjson", rows)), ADAMW)
    assert not found.trials
    assert "no mask mAP" in found.reasons


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    for file in (
        tune_csv(tmp_path / "log.csv", ROWS),
        tune_ndjson(tmp_path / "log.ndjson", [({"lr0": 0.001 * n}, {MASK: 0.1 * n}) for n in (1, 2, 3, 4)]),
    ):
        file.write_bytes(file.read_bytes()[:-6])
        assert len(read_log(file)) in (3, 4)


def test_the_same_row_of_a_longer_log_has_the_same_digest(tmp_path: Path) -> None:
    first = read_log(tune_csv(tmp_path / "a.csv", ROWS[:2]))
    longer = read_log(tune_csv(tmp_path / "b.csv", ROWS))
    assert [run.digest for run in longer][:2] == [run.digest for run in first]
    assert len({run.digest for run in longer}) == len(longer)


FAILED = {"fitness": 0.0, "lr0": 0.01, "momentum": 0.9}


@pytest.mark.parametrize("begun", [ROWS[:1], [FAILED, ROWS[0]]], ids=["from the first row", "after one that failed"])
def test_the_fitness_of_a_log_has_one_scale_wherever_it_lies_and_however_long_it_is(
    tmp_path: Path, begun: list[dict[str, float]]
) -> None:
    first = read_log(tune_csv(tmp_path / "tune_results.csv", begun))
    longer = read_log(tune_csv(tmp_path / "moved.csv", [*begun, *ROWS[1:]]))
    (scale,) = {run.scale for run in [*first, *longer]}
    assert scale
    other = read_log(tune_csv(tmp_path / "other.csv", [FAILED, {**ROWS[0], "fitness": 0.7}, *ROWS[1:]]))
    assert {run.scale for run in other} != {scale}


ANYTHING = st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
CELLS = st.sampled_from(["fitness", "lr0", "momentum", MASK, "epoch", "1", "nan", "-inf", "1e999", "", '"', "{}", "x"])
TABLES = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=4).map(lambda rows: "\n".join(rows).encode())
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: st.dictionaries(st.sampled_from(["hyperparameters", "datasets", "fitness", "lr0", MASK, BOX]), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(content=ANYTHING | TABLES, name=st.sampled_from(["results.csv", "tune_results.csv", "x.ndjson", "x"]))
def test_a_file_of_anything_is_read_or_refused_in_one_sentence(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    _read_or_refused(tmp_path / name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(lines=st.lists(JSON, max_size=3))
def test_json_of_anything_is_read_or_refused_in_one_sentence(tmp_path: Path, lines: list[object]) -> None:
    (tmp_path / "x.ndjson").write_text("\n".join(map(json.dumps, lines)))
    _read_or_refused(tmp_path / "x.ndjson")


def _read_or_refused(path: Path) -> None:
    try:
        found = read_path(path)
    except UsageError:
        return
    for source, runs in found:
        outcome(str(source), runs, Terms(spec(), defaults=True))  # what was read is held against a study
