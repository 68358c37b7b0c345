"""Bad input: one clear sentence, exit code 2, no traceback, nothing created."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from petskin_tune.datasets import demo
from tests.support.workers import SMALL_STUDY, run, write_study


def refused(folder: Path, *arguments: str, command: str = "tune-worker", **environment: str) -> str:
    """The sentence with which the command refuses; nothing may be left behind by it."""
    before = sorted(path for path in folder.rglob("*"))
    result = run(*arguments, cwd=folder, command=command, **environment)
    assert result.returncode == 2, result.stdout
    assert "Traceback" not in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stdout
    assert sorted(path for path in folder.rglob("*")) == before, "something was created"
    return lines[0]


def test_an_unknown_study_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    assert "petskin" in refused(tmp_path, "--study", "petskn")


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("study: x\nmodel: [unclosed\ndata: demo\n")
    assert "line" in refused(tmp_path, "--study", "broken.yaml")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"search": {"momentm": {"low": 0.8, "high": 0.9}}}, "momentum"),
        ({"search": {"lr0": {"low": 1e-2, "high": 1e-4}}}, "lr0"),
        ({"search": {}}, "search"),
        ({"train": {**SMALL_STUDY["train"], "optimizer": "auto"}}, "auto"),
        ({"start": [{"lr0": 0.5}]}, "lr0"),
        ({"search": {"imgsz": {"choices": [64, 128]}}}, "imgsz"),
        ({"train": {**SMALL_STUDY["train"], "fraction": 0.2}}, "subset"),
        ({"model": "nowhere.pt"}, "nowhere.pt"),
        ({"data": "nowhere/data.yaml"}, "nowhere"),
        ({"subset": {"train": 100_000}}, "100"),
    ],
    ids=["misspelt", "reversed", "empty", "auto", "start", "incomparable", "fraction", "model", "data", "subset"],
)
def test_a_study_that_cannot_run_is_refused_before_anything_is_created(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    demo.make(tmp_path / "here", train=8, val=4)
    study = write_study(tmp_path, **{"data": "here/data.yaml", **changes})
    assert expected in refused(tmp_path, "--study", str(study))


@pytest.mark.parametrize("missing", ["images", "labels"])
def test_a_data_set_without_images_or_labels_is_refused(missing: str, tmp_path: Path) -> None:
    data = demo.make(tmp_path / "here", train=8, val=4)
    for path in (data.parent / missing).rglob("*.*"):
        path.unlink()
    study = write_study(tmp_path, data="here/data.yaml")
    assert missing.rstrip("s") in refused(tmp_path, "--study", str(study))


def test_weights_that_cannot_be_fetched_are_named(tmp_path: Path) -> None:
    study = write_study(tmp_path, model="yolov8x-seg.pt")
    environment = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    assert "yolov8x-seg.pt" in refused(tmp_path, "--study", str(study), **environment)


def test_a_database_that_is_away_is_named_without_the_password(tmp_path: Path) -> None:
    sentence = refused(tmp_path, "--study", "demo", "--storage", "postgresql://me:geheim@127.0.0.1:9/none")
    assert "127.0.0.1" in sentence
    assert "geheim" not in sentence


def test_a_database_that_refuses_the_password_is_asked_once_and_named_without_it(
    tmp_path: Path, guarded: tuple[sqlalchemy.URL, Path]
) -> None:
    url, log = guarded
    wrong = url.set(password="geheim").render_as_string(hide_password=False)
    sentence = refused(tmp_path, "--study", "demo", "--storage", wrong)
    assert sentence.endswith("refuses the user or the password.")
    assert "geheim" not in sentence
    assert log.read_text().count(f'password authentication failed for user "{url.username}"') == 1
    init = ("init", "--study", "demo", "--storage", url.render_as_string(hide_password=False))
    assert run(*init, cwd=tmp_path, command="petskin-tune").returncode == 0, "the right password is refused, too"


@pytest.fixture
def guarded(postgres_url: str) -> tuple[sqlalchemy.URL, Path]:
    """URL of a new, empty database of a user whom PostgreSQL asks for a password, and the server's log."""
    url = sqlalchemy.make_url(postgres_url)
    user = f"user_{url.database}"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {user} LOGIN PASSWORD 'richtig'")
        connection.exec_driver_sql(f"ALTER DATABASE {url.database} OWNER TO {user}")
        access = Path(connection.exec_driver_sql("SHOW hba_file").scalar_one())
        access.write_text(f"local all {user} scram-sha-256\n{access.read_text()}")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    return url.set(username=user, password="richtig"), access.with_name("log")


def test_a_changed_study_file_is_refused_with_the_difference_and_the_way_on(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1)
    for command in (["init"], ["try", "lr0=0.002"]):  # now something was done for it
        assert run(*command, "--study", str(study), cwd=tmp_path, command="petskin-tune").returncode == 0
    write_study(tmp_path, target_trials=1, epochs=7)
    sentence = refused_after(tmp_path, "--study", str(study))
    assert "epochs" in sentence
    assert f"petskin-tune init --study small2 --from small {study}" in sentence


def test_what_may_change_changes_and_the_newest_wins(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1)
    assert run("init", "--study", str(study), cwd=tmp_path, command="petskin-tune").returncode == 0
    write_study(tmp_path, target_trials=5, keep_weights=1)
    looked = run("show", "--study", str(study), cwd=tmp_path, command="petskin-tune")
    assert "target_trials: 1" in looked.stdout, "who only looks changes nothing"
    assert run("init", "--study", str(study), cwd=tmp_path, command="petskin-tune").returncode == 0
    shown = run("show", "--study", str(study), cwd=tmp_path, command="petskin-tune")
    assert "target_trials: 5" in shown.stdout
    assert "keep_weights: 1" in shown.stdout


def test_other_data_than_the_study_was_begun_with_is_refused(tmp_path: Path) -> None:
    demo.make(tmp_path / "here", train=8, val=4)
    demo.make(tmp_path / "there", train=9, val=4)
    study = write_study(tmp_path, data="here/data.yaml", target_trials=1)
    assert run("init", "--study", str(study), cwd=tmp_path, command="petskin-tune").returncode == 0
    sentence = refused_after(tmp_path, "--study", str(study), "--data", "there/data.yaml")
    assert "9" in sentence


def test_colab_without_a_home_is_refused_with_what_to_type(tmp_path: Path) -> None:
    sentence = refused(tmp_path, "--study", "petskin", COLAB_RELEASE_TAG="release-colab")
    assert sentence == (
        "error: This machine's disk is deleted when the session ends. "
        "Type: tune-worker --study petskin --home /content/drive/MyDrive/petskin"
    )


def test_a_point_outside_the_space_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path, target_trials=1)
    assert run("init", "--study", str(study), cwd=tmp_path, command="petskin-tune").returncode == 0
    result = run("try", "--study", "small", "lr0=7", cwd=tmp_path, command="petskin-tune")
    assert result.returncode == 2
    assert "lr0" in result.stdout


def test_devices_that_are_none_are_refused(tmp_path: Path) -> None:
    assert "fast" in refused(tmp_path, "--study", "demo", "--device", "fast")
    assert "once" in refused(tmp_path, "--study", "demo", "--device", "0,0")


def test_help_needs_neither_torch_nor_ultralytics() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom petskin_tune.cli import petskin_tune, tune_worker\n"
        "assert CliRunner().invoke(tune_worker, ['--help']).exit_code == 0\n"
        "assert CliRunner().invoke(petskin_tune, ['data', '--help']).exit_code == 0\n"
        "heavy = {'torch', 'ultralytics', 'optuna', 'sqlalchemy', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_worker_needs_no_torch_until_it_trains() -> None:
    code = (
        "import sys\nimport petskin_tune.commands.worker, petskin_tune.commands.results\n"
        "import petskin_tune.commands.study, petskin_tune.worker.worker, petskin_tune.views.status.collect\n"
        "import petskin_tune.search.samplers, petskin_tune.datasets.subset\n"
        "heavy = {'torch', 'ultralytics'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def refused_after(folder: Path, *arguments: str) -> str:
    """As :func:`refused`, where a study exists already and its files may be touched."""
    result = run(*arguments, cwd=folder)
    assert result.returncode == 2, result.stdout
    assert "Traceback" not in result.stdout
    return next(line for line in result.stdout.splitlines() if line.startswith("error: "))
