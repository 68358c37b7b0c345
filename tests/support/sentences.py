"""The sentences of the package that are translated, as they stand in its sources."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

from petskin_tune.diagnosis.finding import Kind
from petskin_tune.study.space.arguments import arguments
from tests.support.places import PROJECT

PACKAGE = PROJECT / "petskin_tune"

# What Korean takes over from English as it is: keys, names of packages and of tests, units, and terms in parentheses.
NAMES = {*get_args(Kind), *arguments(), "mAP", "GPU", "AdamW", "True", "False", "nan", "petskin", "colab-1", "crashed"}
NAMES |= {"local", "minimum", "pruning", "train", "val", "high", "hsv", "data", "machine", "RuntimeError", "Trace"}
NAMES |= {"ultralytics", "torch", "optuna", "sqlalchemy", "kB", "MB", "GB", "TB", "tune-worker", "freeze-thaw"}


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls of ``_`` in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            yield node


def sentences() -> dict[str, list[str]]:
    """Where each sentence stands that is translated; a call whose argument is no literal fails."""
    found: dict[str, list[str]] = {}
    for path, tree in modules_that_translate().items():
        for call in calls(tree):
            (argument,) = call.args
            place = f"{path.relative_to(PROJECT)}:{call.lineno}"
            assert isinstance(argument, ast.Constant), f"{place}: the sentence of _() must be written out there"
            assert isinstance(argument.value, str), place
            found.setdefault(argument.value, []).append(place)
    return found


def placeholders(sentence: str) -> set[tuple[str, str]]:
    """Name and format of each value that a sentence is given."""
    return {(name, form or "") for _, name, form, _ in string.Formatter().parse(sentence) if name is not None}


@cache
def modules_that_translate() -> dict[Path, ast.Module]:
    """The modules that import ``_``, parsed."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    importing = re.compile(r"^from petskin_tune\.language import .*\b_\b", re.MULTILINE)
    return {path: ast.parse(text) for path, text in texts.items() if importing.search(text)}


def english(text: str) -> list[str]:
    """The English words of a text that are neither names nor keys nor part of what is typed or of a path."""
    typed_paths_and_numbers = r"petskin-tune (data )?[a-z]+|--[a-z-]+|[!-~]*[/=][!-~]*|(?<![\w-])\d[\d.]*(e[+-]?\d+)?"
    rest = re.sub(typed_paths_and_numbers, " ", " ".join(text.split()))
    return [word for word in re.findall(r"[A-Za-z][A-Za-z0-9_-]*", rest) if word not in NAMES]
