"""`petskin-tune doctor`: whether the study can run here, and what a session will see; nothing of it in the study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from petskin_tune.datasets import demo
from tests.support.sentences import english
from tests.support.servers import running_server
from tests.support.workers import SMALL_STUDY, load, run, write_study

NAMES = ["versions", "database", "clock", "store", "weights", "data", "training", "device", "disk"]


def doctor(folder: Path, study: Path, **environment: str) -> tuple[int, dict[str, tuple[str, str]], str]:
    """Exit code, (verdict, message) by check, and all that was printed."""
    result = run("doctor", "--study", str(study), cwd=folder, command="petskin-tune", **environment)
    assert "Traceback" not in result.stdout
    lines = re.findall(r"^(ok|warning|problem) +(\w+): (.*)$", result.stdout, flags=re.MULTILINE)
    return result.returncode, {name: (verdict, message) for verdict, name, message in lines}, result.stdout


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, dict[str, tuple[str, str]], str]:
    """A study that is begun and can run, examined."""
    folder = tmp_path_factory.mktemp("healthy")
    study = write_study(folder)
    assert run("init", "--study", str(study), cwd=folder, command="petskin-tune").returncode == 0
    return (folder, *doctor(folder, study))


def test_a_study_that_can_run_is_told_so_in_one_line_for_each_check(
    healthy: tuple[Path, int, dict[str, tuple[str, str]], str],
) -> None:
    _, code, checks, output = healthy
    assert code == 0, output
    assert list(checks) == NAMES
    assert {verdict for verdict, _ in checks.values()} == {"ok"}, output
    assert checks["database"][1].endswith("has the study, 0 trials")
    assert checks["data"][1].startswith("64 images to train on, 32 to validate, 3 classes")
    assert checks["device"][1].startswith("cpu (")
    assert output.splitlines()[-1].startswith("next, type: tune-worker --study ")


def test_what_a_session_will_see_is_measured(healthy: tuple[Path, int, dict[str, tuple[str, str]], str]) -> None:
    output = healthy[3]
    assert re.search(r"^an epoch: \d+ s \(64 images at [\d.]+ a second, and 32 to validate\)", output, re.MULTILINE)
    assert re.search(r"a snapshot: \d[\d.]* MB$", output, re.MULTILINE)
    assert re.search(r"^a full trial of 3 epochs: \d+ s$", output, re.MULTILINE)
    expected = r"^this study: 3 of 3 trials left, about \d+ (s|min) here; one 24-hour session sees all of it$"
    assert re.search(expected, output, re.MULTILINE)
    assert "a session of 24 hours" not in output, "the study does not need all of it"
    assert "fewer than 20" not in output


def test_under_a_korean_locale_it_says_the_same_in_korean(
    healthy: tuple[Path, int, dict[str, tuple[str, str]], str],
) -> None:
    folder, *_, spoken = healthy
    code, checks, output = doctor(folder, folder / "small.yaml", LC_MESSAGES="ko_KR.UTF-8")
    assert (code, checks) == (0, {}), output
    said = [line for line in output.splitlines() if not line.startswith("…")]
    assert [line.partition(" ")[0] for line in said if line.startswith("정상 ")] == ["정상"] * len(NAMES)
    assert [word for line in said if "장치: " not in line for word in english(line)] == []
    assert len(said) == len([line for line in spoken.splitlines() if not line.startswith("…")])
    assert said[-1].startswith("다음에 입력할 명령: tune-worker --study ")


def test_nothing_of_it_is_left_in_the_study_the_store_or_the_working_folder(
    healthy: tuple[Path, int, dict[str, tuple[str, str]], str],
) -> None:
    home = healthy[0] / "tune-home"
    assert load(home).trials == []
    assert [path for path in (home / "checkpoints").rglob("*") if path.is_file()] == []
    assert not (home / "work" / "doctor").exists()


def test_a_study_too_slow_for_a_search_is_told_what_makes_room(tmp_path: Path) -> None:
    train = {**SMALL_STUDY["train"], "close_mosaic": 0, "warmup_epochs": 0}
    study = write_study(tmp_path, epochs=5_000_000, train=train)
    code, _, output = doctor(tmp_path, study)
    assert code == 0, output
    (line,) = [line for line in output.splitlines() if line.startswith("warning")]
    assert "fewer than 20; any one of these makes room for them" in line
    assert re.search(r"epochs: \d+ \(now 5000000\)", line)


def test_what_is_missing_is_a_problem_each_and_exit_code_2(tmp_path: Path) -> None:
    study = write_study(tmp_path, model="nowhere.pt")
    (tmp_path / "file").write_text("not a folder")
    code, checks, output = doctor(tmp_path, study, TUNE_CHECKPOINTS=str(tmp_path / "file" / "store"))
    assert code == 2, output
    assert {name for name, (verdict, _) in checks.items() if verdict == "problem"} == {"store", "weights"}
    assert "nowhere.pt" in checks["weights"][1]
    assert checks["data"][0] == "ok", "what is wrong with the data as well would be met only afterwards"
    assert "training" not in checks
    assert output.splitlines()[-1] == "2 problems: the study cannot run here yet"


def test_training_that_fails_is_a_problem_with_its_reason(tmp_path: Path) -> None:
    data = demo.make(tmp_path / "images", train=16, val=8)
    label = next((data.parent / "labels" / "train").iterdir())
    label.write_text("0 0.1 0.1 0.2 0.2 1.9 0.3\n")
    code, checks, output = doctor(tmp_path, write_study(tmp_path, data=str(data)))
    assert code == 2, output
    problems: dict[str, Any] = {name: said for name, (verdict, said) in checks.items() if verdict == "problem"}
    assert list(problems) in (["training"], ["data"])
    assert label.name in str(problems)


def test_a_server_that_is_away_is_a_problem_and_one_that_answers_has_a_clock(tmp_path: Path) -> None:
    with running_server() as server:
        url = server.new_database()
        study = write_study(tmp_path, model="nowhere.pt")
        _, checks, output = doctor(tmp_path, study, TUNE_STORAGE=url)
        assert checks["clock"][0] == "ok", output
        assert checks["clock"][1].endswith("the database's")
        server.stop()
        code, checks, output = doctor(tmp_path, study, TUNE_STORAGE=url)
        assert code == 2
        assert checks["database"][0] == checks["clock"][0] == "problem", output
