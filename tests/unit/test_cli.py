"""The commands: what they say of themselves, what they import, and what they refuse before they do anything."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from petskin_tune.cli import petskin_tune, tune_worker
from petskin_tune.database.storage import open_storage
from petskin_tune.files.durable import Unavailable
from petskin_tune.opening.places import Places, warn_of_visible_password
from petskin_tune.opening.refusals import SCREEN, as_refusal
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from tests.support.click_tree import COMMANDS
from tests.support.places import PROJECT
from tests.support.studies import a_spec

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


def test_the_package_runs_as_a_module_under_the_commands_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "petskin_tune", "status", "--nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: petskin-tune status [OPTIONS]\n")


def test_a_command_that_is_none_is_refused_with_the_nearest_name() -> None:
    refused = CliRunner().invoke(petskin_tune, ["statsu", "--study", "demo"])
    assert refused.exit_code == 2
    assert "No such command 'statsu'. Did you mean 'status'?" in refused.output


HEAVY = {"PIL", "cv2", "matplotlib", "pandas", "plotly", "scipy", "shapely", "sklearn", "torch", "ultralytics"}
HEAVY_HELP = HEAVY | {"numpy", "optuna", "pydantic", "rich", "sqlalchemy", "yaml"}


def imported(*arguments: str) -> set[str]:
    """The packages that `petskin-tune` with these arguments imports."""
    code = (
        "import sys; from click.testing import CliRunner; from petskin_tune.cli import petskin_tune\n"
        "ended = CliRunner().invoke(petskin_tune, sys.argv[1:]); assert ended.exit_code == 0, ended.output\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("arguments", [["--help"], ["stop", "--help"], ["train", "--help"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert not imported(*arguments) & HEAVY_HELP


@pytest.mark.parametrize("command", ["status", "stop", "show"])
def test_looking_and_steering_import_nothing_heavy_but_what_optuna_itself_needs(command: str, tmp_path: Path) -> None:
    """Optuna imports numpy with its study."""
    create_study(
        open_storage(f"sqlite:///{tmp_path / 'tune.db'}"),
        a_spec(),
        points=(),
        attributes_of_study={attributes.BASE: "", attributes.STORE: "home:checkpoints"},
    )
    assert not imported(command, "--study", "petskin", "--home", str(tmp_path)) & HEAVY


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
