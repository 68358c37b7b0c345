"""What the commands refuse before they do anything."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from petskin_tune.cli import petskin_tune, tune_worker

TRAIN = ["train", "--epochs", "3"]


@pytest.mark.parametrize("hours", ["inf", "-inf", "nan", "NaN", "1e9", "8760.1", "0", "-1", "", "soon", "1e400"])
@pytest.mark.parametrize(("command", "arguments"), [(tune_worker, []), (petskin_tune, TRAIN)], ids=["worker", "train"])
def test_hours_that_no_session_has_are_wrong_usage(
    command: click.Command, arguments: list[str], hours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(command, [*arguments, "--study", "no-such-study", f"--max-hours={hours}"])
    assert refused.exit_code == 2
    assert "Invalid value for '--max-hours'" in refused.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hours", ["0.001", "24", "8760"])
def test_hours_of_a_session_are_taken(hours: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(petskin_tune, [*TRAIN, "--study", "no-such-study", "--max-hours", hours])
    assert "there is no study `no-such-study`" in refused.output


@pytest.mark.parametrize("command", ["show", "status", "stop", "best", "report", "init"])
@pytest.mark.parametrize("study", ["x" * 300, "x" * 300 + ".yaml", "/x" * 300 + ".yaml", "~nobody/x.yaml", ""])
def test_a_study_name_that_no_file_can_have_is_refused_in_one_sentence(
    command: str, study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(petskin_tune, [command, "--study", study])
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.startswith("error: ")
    assert refused.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_of_two_files_neither_is_written_where_one_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = ["--yaml", "best.yaml", "--weights", "nowhere/best.pt"]
    refused = CliRunner().invoke(petskin_tune, ["best", "--study", "demo", *files])
    assert refused.exit_code == 2, refused.output
    assert refused.stderr == "error: nowhere/best.pt cannot be written: there is no folder nowhere.\n"
    assert list(tmp_path.iterdir()) == []


def test_the_home_of_an_unknown_user_is_a_name_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(petskin_tune, ["status", "--study", "demo", "--home", "~nobody-here/x"])
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []
