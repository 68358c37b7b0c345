"""The tree as README draws it, and no circle of modules anywhere."""

from __future__ import annotations

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.places import PROJECT

PACKAGE = PROJECT / "petskin_tune"


def modules() -> dict[str, Path]:
    names = {".".join(path.relative_to(PROJECT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports anywhere, also for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known else node.module)
    return found & set(known)


def test_no_module_imports_what_imports_it() -> None:
    known = modules()
    graph = {name: imports(path, known) - {name} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")


def test_readme_draws_every_package() -> None:
    readme = (PROJECT / "README.md").read_text()
    tree = readme[readme.index("    petskin_tune/\n") :].partition("\n\n")[0]
    drawn = set(re.findall(r"^      (\w+)/", tree, re.MULTILINE))
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert drawn == packages
    for name in re.findall(r"\b(\w+)\.py\b", tree):
        assert list(PACKAGE.rglob(f"{name}.py")), f"README names {name}.py, which is not there"


def test_the_tests_that_the_readme_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (PROJECT / "README.md").read_text())
    assert named
    assert [path for path in named if not (PROJECT / path).exists()] == []


@pytest.mark.parametrize("folder", ["petskin_tune", "tests", "benchmarks", "docs"])
def test_what_scripts_import_of_ours_is_there(folder: str) -> None:
    """Also in programs that are texts, and in functions that hardly ever run."""
    known, missing = modules(), []
    for path in (PROJECT / folder).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for found in re.finditer(r"^\s*from (petskin_tune[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
            module, names = found[1], [name.split()[0] for name in found[2].split(",") if name.strip()]
            source = known[module].read_text(encoding="utf-8") if module in known else ""
            missing += [
                f"{path.name}: {module}.{name}"
                for name in names
                if f"{module}.{name}" not in known and not re.search(rf"\b{name}\b", source)
            ]
    assert missing == []


def test_no_text_is_read_or_written_in_whatever_encoding_the_locale_has() -> None:
    """A page that is read as EUC-KR is none."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            given = {word.arg for word in node.keywords}
            bare = len(node.args) == (1 if node.func.attr == "write_text" else 0)
            if node.func.attr in ("read_text", "write_text") and bare and "encoding" not in given:
                found.append(f"{path.name}:{node.lineno}")
    assert found == []
