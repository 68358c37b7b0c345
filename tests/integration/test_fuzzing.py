"""Whatever a person types: no traceback, no endless sentence, no hang, and nothing written where it was not asked for.

The commands and their options are read from click's own tree (``tests.support.typed``) and typed in one process without
rights (``tests.support.fuzzed``), in a small tree of files. No command gets as far as a training: where one would start
a process, the case ends, and is a good one. ``PETSKIN_TUNE_FUZZING=10000`` tries more, see ``tests.support.fuzzing``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given

from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, EXIT_UNFORESEEN, EXIT_USAGE
from petskin_tune.printable import LONGEST_SENTENCE, printable
from tests.support.fuzzed import Fuzzed
from tests.support.fuzzing import cases
from tests.support.typed import commands

AROUND = 400  # characters around the one sentence: click's usage, a warning, progress
FOUND_IN_DATA = ["petskin-tune", "data", "check"]  # the command whose exit code 1 means what it found

pytestmark = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root's rights are given up with setpriv"
)


@pytest.fixture(scope="module")
def shell() -> Iterator[Fuzzed]:
    fuzzed = Fuzzed()
    yield fuzzed
    fuzzed.close()


def faults(words: list[str], found: dict[str, Any]) -> Iterator[str]:
    """What is wrong with the end of a command."""
    yield from (f"changed {what}" for what in found.get("changed", ()))
    if found.get("ends"):
        return
    if found["code"] is None:
        yield found.get("error") or f"the process died: {found}"
        return
    said = found["stdout"] + found["stderr"]
    allowed = {EXIT_DONE, EXIT_USAGE, EXIT_SUSPENDED} | ({EXIT_UNFORESEEN} if words[:3] == FOUND_IN_DATA else set())
    if found["code"] not in allowed:
        yield f"exit code {found['code']}"
    if re.search(r"^Traceback|^\s+File \".*\", line \d+, in ", said, re.MULTILINE):
        yield "a traceback"
    if printable(said) != said:
        yield "a character that commands the terminal"
    if found["code"] == EXIT_USAGE and len(found["stderr"]) > LONGEST_SENTENCE + AROUND:
        yield f"a refusal of {len(found['stderr'])} characters"
    if found["code"] == EXIT_USAGE and not said.strip():
        yield "a refusal without a word"


@cases(150, derandomize=True, database=None)
@given(words=commands())
def test_whatever_is_typed_is_answered_and_nothing_else_is_touched(shell: Fuzzed, words: list[str]) -> None:
    found = shell.type(words)
    wrong = list(faults(words, found))
    assert not wrong, "\n".join([repr(words), *wrong, found.get("stdout", ""), found.get("stderr", "")])


def test_the_fuzzer_reaches_what_lies_behind_the_refusals_and_hears_of_writing_elsewhere(shell: Fuzzed) -> None:
    study = ["--study", "petskin", "--home", "home"]
    assert "petskin" in shell.type(["petskin-tune", "status", *study])["stdout"]
    assert shell.type(["petskin-tune", "status", *study, "--watch"])["code"] == EXIT_DONE
    assert "dashboard of study" in shell.type(["petskin-tune", "dashboard", *study, "--port", "0"])["stdout"]
    assert "is ready" in shell.type(["petskin-tune", "init", "--study", "new", "study.yaml"])["stdout"]
    assert shell.type(["tune-worker", *study])["ends"] == "process"
    assert shell.type(["tune-worker", *study, "--device", "0,1"])["ends"] == "process"
    assert shell.type(["tune-worker", "--study", "done", "--home", "home"])["code"] == EXIT_DONE
    assert shell.type(["petskin-tune", "data", "check", "data"])["code"] in (EXIT_DONE, EXIT_UNFORESEEN)
    written = shell.type(["petskin-tune", "report", *study, "-o", "../mine/notes.txt"])
    assert [fault for fault in faults(["petskin-tune"], written) if "notes.txt" in fault]
