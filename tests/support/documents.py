"""What the documents say to type, and to whom they link."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from petskin_tune.cli import petskin_tune, tune_worker
from tests.support.places import PROJECT

DOCS = PROJECT / "docs"
PROGRAMS = {"tune-worker": tune_worker, "petskin-tune": petskin_tune}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SYNOPSIS = re.compile(r"[\[…]|\\\||[A-Z]…")  # `[--from OTHER]`, `lr0=1e-4 …`: a form, not a command
_SEPARATORS = {"&&", "||", ";", "|", ">", ">>", "&"}


def documents() -> list[Path]:
    """Every Markdown file that people read."""
    folders = (PROJECT, DOCS, DOCS / "ko", PROJECT / "deploy", PROJECT / "docker")
    return sorted(path for folder in folders for path in folder.glob("*.md"))


def blocks(text: str) -> list[str]:
    """The fenced blocks of what is to be typed: those without a language, or of a shell."""
    return [body for language, body in _FENCE.findall(text) if language in ("", "sh", "bash")]


def lines_to_type(text: str) -> list[str]:
    """The lines of the blocks, without prompts and comments."""
    lines = [line for body in blocks(text) for line in body.replace("\\\n", " ").splitlines()]
    return [found for line in lines if (found := line.removeprefix("$ ").partition(" #")[0].strip())]


def commands_in(text: str) -> list[list[str]]:
    """Our own commands as words: of the blocks, and of what stands between backticks in a sentence."""
    prose = _FENCE.sub("", text)
    inline = [code for code in re.findall(r"`([^`\n]+)`", prose) if not _SYNOPSIS.search(code)]
    spoken = [code for code in inline if "--study" in code]  # the bare name of a command is no call of it
    return [words for line in [*lines_to_type(text), *spoken] for words in _calls(line)]


def commands_of_notebook(path: Path) -> list[list[str]]:
    """Our own commands in the cells that call a shell."""
    cells = json.loads(path.read_text())["cells"]
    code = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    text = [commands_in("".join(cell["source"])) for cell in cells if cell["cell_type"] == "markdown"]
    given = {"OPTIONS": "--study demo", "DATA_OPTION": "", "LANG_OPTION": "--lang ko"}  # the rest are single words
    lines = [re.sub(r"[$](\w+)", lambda name: given.get(name[1], name[1]), line) for line in code]
    shell = [words for line in lines if line.startswith("!") for words in _calls(line[1:])]
    return [*shell, *(words for found in text for words in found)]


def _calls(line: str) -> Iterator[list[str]]:
    """Our own calls among those of a shell's line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:
        return  # no shell's line
    call: list[str] = []
    for word in [*words, ";"]:
        if word not in _SEPARATORS:
            call.append(word)
            continue
        while call and re.match(r"\w+=", call[0]):
            call.pop(0)
        if call[:3] in (["python", "-m", "petskin_tune"], ["python3", "-m", "petskin_tune"]):
            call[:3] = ["petskin-tune"]
        if call and call[0] in PROGRAMS:
            yield call
        call = []


def parse(words: list[str]) -> None:
    """Let click read a command without running it.

    Raises:
        click.ClickException: it is none.
    """
    command: click.Command = PROGRAMS[words[0]]
    context = command.make_context(words[0], words[1:])
    while isinstance(command, click.Group):
        arguments = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, arguments)
        assert found is not None
        assert name is not None
        command = found
        context = command.make_context(name, rest, parent=context)
