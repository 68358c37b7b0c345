from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution
from optuna.trial import create_trial

from petskin_tune.cli import petskin_tune
from petskin_tune.commands.lazy import FilteredCommand
from petskin_tune.printable import printable
from petskin_tune.protocol import Position
from petskin_tune.study.extent import Extent
from petskin_tune.views.live import LiveProgress
from petskin_tune.views.progress import Progress
from petskin_tune.views.status.text import watch
from petskin_tune.views.stream import FilteredStream, encodable
from tests.support.made_up import MadeUp

ANYTHING = st.text(alphabet=st.characters(exclude_categories=()))
EVIL = "\x1b]0;title\x07\x1b[2J\x9b1m\udcc7\r"
OF_OTHERS = "\x1b]0;title\x07\x1b[2J\x9b1m\u202egpj\r"  # which a database holds
SPELLED = r"\x1b]0;title\x07\x1b[2J\x9b1m\xc7\x0d"


def test_whatever_a_command_prints_is_filtered_its_refusals_too() -> None:
    @click.command(cls=FilteredCommand)
    @click.option("--number", type=int)
    def command(number: int) -> None:
        print(EVIL)
        print(EVIL, file=sys.stderr)

    assert CliRunner().invoke(command).output == f"{SPELLED}\n{SPELLED}\n"
    refused = CliRunner().invoke(command, ["--number", "\x1b[2Jx"])
    assert refused.exit_code == 2
    assert "\x1b" not in refused.output


@pytest.mark.parametrize("command", [["status", "--study", EVIL], ["diagnose", f"/{EVIL}"], [EVIL]])
def test_a_name_that_a_person_typed_is_refused_in_plain_letters(command: list[str]) -> None:
    refused = CliRunner().invoke(petskin_tune, command)
    assert refused.exit_code == 2
    assert "\x1b" not in refused.output
    assert "\x9b" not in refused.output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in which everything that others may name commands a terminal."""
    made = MadeUp(tmp_path_factory.mktemp("home"))
    named = {"worker": OF_OTHERS, "device_model": OF_OTHERS}
    made.add(best=0.2, notes=[OF_OTHERS], findings={"stuck": OF_OTHERS}, **named)
    failure = dict.fromkeys(("kind", "message", "detail", "log"), OF_OTHERS)
    made.add("FAIL", 0.1, 3, failure=failure, **named)
    made.add("RUNNING", 0.1, 3, lease="released", of_lease={"reason": OF_OTHERS}, given_back=failure, **named)
    made.add("RUNNING", 0.1, 3, lease="running", **named)
    made.add("WAITING", epochs=0, params={}, origin="person", fixed={"lr0": OF_OTHERS})
    made.study.optuna.enqueue_trial({OF_OTHERS: OF_OTHERS})
    one = CategoricalDistribution((OF_OTHERS,))
    made.study.optuna.add_trial(create_trial(value=0.1, params={OF_OTHERS: OF_OTHERS}, distributions={OF_OTHERS: one}))
    made.storage.engine.dispose()
    return made.home


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("status", True),
        ("status --json", False),
        ("trials", True),
        ("trials --trial 1", True),
        ("trials --trial 2", True),
        ("trials --trial 5", True),
        ("trials --csv", True),
        ("diagnose", True),
        ("diagnose --trial 1", True),
        ("best", False),
        ("studies", False),
    ],
)
def test_nothing_that_others_keep_with_a_study_commands_the_terminal_of_who_looks(
    words: str, shown: bool, home: Path
) -> None:
    ended = CliRunner().invoke(petskin_tune, [*words.split(), "--home", str(home)])
    assert ended.exit_code == 0, ended.output
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(ended.output)
    assert r"\x1b]0;title" in ended.output or not shown
    if "--json" in words:
        assert repr(OF_OTHERS)[1:-1] in repr(json.loads(ended.stdout))


def test_a_stream_that_says_cp949_gets_what_it_can_say() -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="cp949")
    click.echo("– 피부 \U0001f600", file=FilteredStream(stream))
    stream.flush()
    assert buffer.getvalue().decode("cp949") == "- 피부 \\U0001f600\n"


def test_bytes_are_filtered_as_text_is() -> None:
    said = io.StringIO()
    click.echo("피부\x1b[2J".encode() + b"\xff", file=FilteredStream(said))
    assert said.getvalue() == "피부\\x1b[2J\ufffd\n"


def test_an_unforeseen_error_ends_in_a_traceback_without_secrets_and_escapes() -> None:
    code = "import petskin_tune.views.stream as s\nwith s.filtered_output():\n    raise ValueError('\\x1b[2J postgresql://u:pw12@h/d')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert r"ValueError: \x1b[2J postgresql://u:***@h/d" in ended.stderr


def test_plain_and_live_progress_filter_what_they_are_told() -> None:
    for stream, progress in [(s := io.StringIO(), Progress(s)), (s := io.StringIO(), LiveProgress(s))]:
        progress.study(EVIL, Extent(0, 1), best=None, home=EVIL)
        progress.trial_started(0, Extent(0, 1), {"x\x1b[2J": EVIL}, 3, None, 0)
        progress.batch(Position(0, 1), 4, {"l\x1b]0;a\x07": 1.0}, 3.0)
        progress.epoch(0, 1, 3, 0.1, 0.1, None, f"safe to stop {EVIL}")
        progress.trial_ended(0, "failed", None, 1.0, EVIL)
        progress.close()
        said = stream.getvalue()
        assert r"\x1b]0;title\x07\x1b[2J\x9b1m\xc7" in said
        assert "\x1b]0;" not in said
        assert "\x1b[2J" not in said


def test_a_watched_status_clears_the_screen_itself_and_lets_nothing_else_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    screen = Terminal()
    monkeypatch.setattr("petskin_tune.views.status.text.render", lambda *_, **__: EVIL)
    status = SimpleNamespace(is_done=False)
    watch(lambda: status, FilteredStream(screen), sleep=stop)  # type: ignore[arg-type, return-value]
    assert screen.getvalue() == f"\x1b[H\x1b[2J\x1b[3J{SPELLED}"


def test_json_for_programs_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command(cls=FilteredCommand)
    def command() -> None:
        click.echo(json.dumps({"name": EVIL}))

    assert json.loads(CliRunner().invoke(command).output) == {"name": EVIL}


@given(ANYTHING, st.sampled_from(["cp949", "ascii", "utf-8", "latin-1", "shift_jis"]))
def test_every_encoding_can_say_what_is_left(text: str, encoding: str) -> None:
    encodable(printable(text), encoding).encode(encoding)


def test_signs_of_ours_are_said_by_their_nearest() -> None:
    assert encodable("0.1 – 0.2 → 피부", "cp949") == "0.1 - 0.2 → 피부"
    assert encodable("0.1 – 0.2 → é", "ascii") == r"0.1 - 0.2 > \xe9"


def test_json_stays_json_for_programs() -> None:
    value = {"name": "\x1b[2J \x9b \udcc7 피부 \U0001f600"}
    assert json.loads(encodable(printable(json.dumps(value)), "cp949")) == value


def test_a_process_that_was_started_without_an_output_ends_as_any_other() -> None:
    python = "from petskin_tune.cli import petskin_tune; petskin_tune()"
    script = f"{shlex.quote(sys.executable)} -c '{python}' status --study none --home nowhere >&- 2>&-"

    assert subprocess.run(["bash", "-c", script], check=False).returncode == 2
