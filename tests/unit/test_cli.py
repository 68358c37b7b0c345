"""The commands: what they say of themselves, what they import, and what they refuse before they do anything."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from petskin_tune.cli import petskin_tune, tune_worker
from petskin_tune.database.storage import open_storage
from petskin_tune.files.durable import Unavailable
from petskin_tune.opening.places import Places, warn_of_visible_password
from petskin_tune.opening.refusals import SCREEN, as_refusal
from petskin_tune.search.gaussian import in_helper_process
from petskin_tune.trial.process.environment import without_arguments
from tests.support.click_tree import COMMANDS
from tests.support.made_up import a_varied_study
from tests.support.places import PROJECT

PAGE = 4096  # bytes of SQLite's
TRAIN = ["train", "--epochs", "3"]
LONG = "x" * 90_000


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_every_option_has_a_help_text(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]}"


def test_the_table_in_the_readme_names_every_command() -> None:
    rows = [line for line in (PROJECT / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for name, command in COMMANDS.items():
        if isinstance(command, click.Group):
            continue
        program, _, below = name.partition(" data ")
        typed = f"| `{program} data " if below else f"| `{name} "
        assert any(row.startswith(typed) and below in row for row in rows), name


def test_a_command_that_is_none_is_refused_with_the_nearest_name() -> None:
    refused = CliRunner().invoke(petskin_tune, ["statsu", "--study", "demo"])
    assert refused.exit_code == 2
    assert "No such command 'statsu'. Did you mean 'status'?" in refused.output


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
@pytest.mark.parametrize(
    "study", ["x" * 300, "x" * 300 + ".yaml", "/x" * 300 + ".yaml", "~nobody/x.yaml", "", "\udcff"]
)
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


def test_weights_take_no_devices_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(petskin_tune, ["best", "--study", "demo", "--weights", "/dev/null"])
    assert refused.exit_code == 2, refused.output
    assert refused.stderr == "error: /dev/null cannot be written: it is a device, not a file.\n"
    assert list(tmp_path.iterdir()) == []


def test_the_home_of_an_unknown_user_is_a_name_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(petskin_tune, ["status", "--study", "demo", "--home", "~nobody-here/x"])
    assert refused.exit_code == 2, refused.output
    assert refused.stderr.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_nobody_foresaw_is_told_as_damage_where_the_database_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise KeyError("what no release has ever written")

    monkeypatch.setattr("petskin_tune.opening.study.open_existing", stumble)
    look = ["status", "--study", "demo", "--home", str(tmp_path)]
    assert isinstance(CliRunner().invoke(petskin_tune, look).exception, KeyError)
    file = tmp_path / "tune.db"
    open_storage(f"sqlite:///{file}").engine.dispose()
    with open(file, "r+b") as pages:
        pages.seek(4096)
        pages.write(b"\xaa" * 20_000)
    refused = CliRunner().invoke(petskin_tune, look)
    assert refused.exit_code == 2
    assert "is damaged" in refused.output
    assert ".recover" in refused.output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a study with every kind of trial."""
    home = tmp_path_factory.mktemp("whole")
    a_varied_study(home, "mine").storage.engine.dispose()
    return home / "tune.db"


def written_over(whole: Path, what: str) -> bytes:
    """``whole`` with junk in the middle of the file, or where a table begins: what only reads others still works."""
    content = whole.read_bytes()
    count = len(content) // PAGE
    first, last = count // 4, count * 3 // 4
    if what != "the middle":
        with contextlib.closing(sqlite3.connect(whole)) as connection:
            [[first]] = connection.execute("SELECT rootpage - 1 FROM sqlite_master WHERE name = ?", [what])
        last = first + 1
    return content[: PAGE * first] + b"\xaa" * PAGE * (last - first) + content[PAGE * last :]


@pytest.mark.parametrize("what", ["the middle", "study_user_attributes", "trial_params"])
@pytest.mark.parametrize("name", ["status", "trials", "best", "report", "doctor", "tune-worker"])
def test_a_database_whose_pages_were_written_over_is_one_sentence(
    name: str, what: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tune-home").mkdir()
    (tmp_path / "tune-home" / "tune.db").write_bytes(written_over(whole, what))
    command, words = (tune_worker, []) if name == "tune-worker" else (petskin_tune, [name])
    refused = CliRunner().invoke(command, [*words, "--study", "mine"])
    assert refused.exit_code == 2, refused.exception or refused.output
    (said,) = re.findall(r"^(?:error|problem +database): (.*)$", refused.output, re.MULTILINE)
    assert "is damaged" in said or "database disk image is malformed" in said
    assert "sqlite3 tune.db '.recover'" in said
    assert "Traceback" not in refused.output
    assert not (tmp_path / "report.html").exists()


def test_what_a_disk_or_a_store_refuses_is_one_sentence_no_longer_than_a_screen() -> None:
    said = as_refusal(OSError(errno.ENOSPC, "No space left on device", "/home/x"))
    assert str(said) == "This machine's disk refuses: /home/x: No space left on device."
    assert "cannot be used: the bucket is not there" in str(as_refusal(Unavailable("the bucket is not there")))
    assert as_refusal(OSError(errno.EBADF, "Bad file descriptor")) is None
    long = CliRunner().invoke(petskin_tune, ["status", "--study", "x" * 100_000, "--home", "nowhere"])
    assert long.exit_code == 2
    assert len(long.output) < SCREEN + 100


@pytest.mark.parametrize(
    "words",
    [
        ["dashboard", "--study", "x", "--port", LONG],
        ["data", "check", "data", LONG],
        ["data", "aihub", "a", "b", "--species", LONG],
        ["status", f"--{LONG}"],
        [LONG],
        [f"--{LONG}"],
    ],
    ids=lambda words: " ".join(word[:9] for word in words),
)
def test_a_word_that_click_refuses_fills_no_more_than_a_screen(words: list[str]) -> None:
    refused = CliRunner().invoke(petskin_tune, words)
    assert refused.exit_code == 2
    assert "Usage: petskin-tune" in refused.stderr
    assert "xxx … xxx" in refused.stderr
    assert len(refused.stderr) < SCREEN + 200


@pytest.mark.parametrize(
    ("storage", "warned"),
    [
        ("postgresql://u:SECRET@h/x", True),
        ("postgresql://h/x?user=u&password=SECRET", True),
        ("postgresql://u@h/x", False),
        ("sqlite:///tune.db", False),
        (None, False),  # of TUNE_STORAGE
    ],
)
def test_a_password_that_ps_shows_is_warned_of_in_one_line(
    storage: str | None, warned: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_STORAGE", "postgresql://u:SECRET@h/x")
    warn_of_visible_password(Places("demo", storage=storage))
    said = capsys.readouterr()
    assert not said.out
    assert said.err == (
        "warning: other users can see the password in --storage (by `ps`); TUNE_STORAGE hides it\n" * warned
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@Secret@h/db",
        "postgresql://u:p@ss/Secret@h/db",
        "postgresql://u:p@h/db?passwd=Secret",
        "postgresql://u:p@h/db?pass=Secret",
        "postgresql://u:p@h/db?PASSWORD=Secret",
        "postgresql://u:Secret@h:port/db",
        "postgresql://u:Secret@h/db\n",
        "sqlite:///tune.db?key=Secret",
        "mysql://u:Secret@h/db",
        "host=h password=Secret",
    ],
)
@pytest.mark.parametrize("name", ["status", "studies", "doctor", "tune-worker"])
def test_a_url_in_the_environment_is_refused_as_one_that_was_typed_and_nothing_secret_of_it_is_said(
    name: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, words = (tune_worker, []) if name == "tune-worker" else (petskin_tune, [name])
    words += [] if name == "studies" else ["--study", "demo"]
    typed = CliRunner().invoke(command, [*words, "--storage", url])
    monkeypatch.setenv("TUNE_STORAGE", url)
    refused = CliRunner().invoke(command, words)
    assert refused.exit_code == typed.exit_code == 2, refused.exception
    assert refused.output == typed.output
    assert re.fullmatch(r"error: (The storage|The URL|The parameters).*\n", refused.output), refused.output
    assert "secret" not in refused.output.lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 256, "x" * 201, "피" * 256, "a\nb", "\x1b[2J", "\udcc7"])
def test_a_workers_name_that_no_database_holds_is_wrong_usage(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(tune_worker, ["--study", "demo", "--name", name])
    assert refused.exit_code == 2, refused.exception
    *_usage, said = refused.stderr.splitlines()
    assert said == (
        "Error: Invalid value for '--name': a worker's name has at most 200 characters, all of them printable."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["show", "--study", "{}"],
        ["status", "--study", "demo", "--home", "{}"],
        ["status", "--study", "demo", "--storage", "{}"],
        ["status", "--study", "demo", "--checkpoints", "{}"],
        ["status", "--study", "demo", "{}"],
        ["{}"],
        ["init", "--study", "demo", "--data", "{}"],
        ["try", "--study", "demo", "{}"],
        ["try", "--study", "demo", "{}=1"],
        ["try", "--study", "demo", "lr0={}"],
        ["diagnose", "{}"],
        ["data", "check", "{}"],
        ["best", "--study", "demo", "--yaml", "{}/x/y"],
        ["report", "--study", "demo", "-o", "{}/x/y"],
    ],
    ids=" ".join,
)
def test_whatever_is_typed_a_refusal_is_one_line_and_repeats_no_secret(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for typed in ("a\nb\x1b[2J", "https://u:SECRET@h/x"):
        refused = CliRunner().invoke(petskin_tune, [word.format(typed) for word in words])
        assert refused.exit_code == 2
        said = refused.output.lower().partition("error: ")[2]
        assert said
        assert said.count("\n") == 1
        assert "\x1b" not in said
        assert "secret" not in said


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (petskin_tune, ["status", "--study", "demo", "--home", "a\0b"]),
        (petskin_tune, ["best", "--study", "demo", "--weights", "a\0b"]),
        (petskin_tune, ["data", "check", "a\0b"]),
        (petskin_tune, ["\0"]),
        (tune_worker, ["--study", "demo", "--home", "\0"]),
        (petskin_tune, ["best", "--study", "\ud800"]),
        (petskin_tune, ["data", "demo", "\ud800"]),
    ],
    ids=["home", "weights", "data", "command", "worker", "surrogate in a name", "surrogate in a path"],
)
def test_a_word_that_no_shell_can_type_is_refused_wherever_it_stands(command: click.Command, words: list[str]) -> None:
    refused = CliRunner().invoke(command, words)
    assert refused.exit_code == 2
    assert "An argument holds a NUL character or half of a surrogate pair" in refused.stderr


def test_the_doctor_says_that_the_database_of_an_unknown_study_is_not_to_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(petskin_tune, ["doctor", "--study", "no-such-study", "--home", "d/" * 3000])
    assert refused.exit_code == 2, refused.exception
    assert refused.stdout.endswith("1 problem: the study cannot run here yet\n")
    assert "File name too long" in refused.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_database_is_not_looked_for_under_a_name_that_no_file_can_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_: object, **__: object) -> None:
        raise KeyError("nobody foresaw this")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("petskin_tune.opening.study.open_existing", stumble)
    ended = CliRunner().invoke(petskin_tune, ["status", "--study", "demo", "--home", "d/" * 3000])
    assert isinstance(ended.exception, KeyError)


@pytest.mark.parametrize(
    "words",
    [
        ["init", "--study", "demo", "--home", "loop"],
        ["init", "--study", "demo", "--checkpoints", "loop"],
        ["best", "--study", "no-such-study", "--home", "loop"],
        ["data", "demo", "loop"],
        ["data", "check", "loop"],
        ["data", "aihub", "loop", "new"],
        ["data", "aihub", ".", "loop"],
    ],
    ids=" ".join,
)
def test_a_link_that_leads_to_itself_is_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "loop").symlink_to("loop")
    refused = CliRunner().invoke(petskin_tune, words)
    assert refused.exit_code == 2, refused.exception
    assert "error: " in refused.stderr
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("words", [["best"], ["stop"], ["doctor"], ["train", "--epochs", "3"], ["init"]], ids=" ".join)
def test_a_name_that_is_not_utf_8_is_that_of_no_study(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_storage(f"sqlite:///{tmp_path}/runs.db").engine.dispose()
    refused = CliRunner().invoke(petskin_tune, [*words, "--study", "\udcff", "--storage", "sqlite:///runs.db"])
    assert refused.exit_code == 2, refused.exception
    assert "there is no study `\\xff`" in refused.stderr


@pytest.fixture
def deleted_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()


@pytest.mark.usefixtures("deleted_folder")
@pytest.mark.parametrize(
    "words", [["status"], ["status", "--study", "demo"], ["show", "--study", "demo"], ["data", "check", "demo"]]
)
def test_from_a_folder_that_was_deleted_one_sentence_says_so(words: list[str]) -> None:
    refused = CliRunner().invoke(petskin_tune, words)
    assert refused.exit_code == 2
    assert "The current folder is not there any more: go to another (cd)" in refused.output


@pytest.mark.usefixtures("deleted_folder")
def test_a_worker_whose_folder_was_deleted_starts_processes_all_the_same() -> None:
    assert in_helper_process(abs, -3) == 3
    with without_arguments():
        assert os.getcwd() == "/"


def test_a_dashboard_for_others_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    refused = CliRunner().invoke(
        petskin_tune, ["dashboard", "--study", "x", "--home", str(tmp_path), "--host", "0.0.0.0"]
    )
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: The dashboard has no login, and on 0.0.0.0 everybody")
    assert len(refused.stderr.splitlines()) == 1
