"""The layers that an architecture file may name, read from the source of the installed Ultralytics and torch.

Neither is imported (seconds, and torch), nothing is executed. A release that is laid out otherwise is not known here,
and nothing is said of its layers.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from petskin_tune.study.space.arguments import ultralytics_folder

TORCH = "nn."
_VISION = "torchvision.ops."
_MOST_BASES = 10  # classes above one another


@dataclass(frozen=True)
class Signature:
    """How many arguments a layer's class takes, itself aside; ``most`` None: any number."""

    least: int
    most: int | None


@lru_cache(maxsize=1)
def names() -> frozenset[str] | None:
    """The names that ``parse_model`` of Ultralytics resolves to a layer; None: this release's are not known here."""
    own, torch, vision = _of_ultralytics(), _exports(_torch_modules()), _exports(_package("torchvision", "ops"))
    if not own or not torch:
        return None
    return frozenset({*own, *(TORCH + name for name in torch), *(_VISION + name for name in vision)})


def signature(name: str) -> Signature | None:
    """What the class of a layer takes; None: not known here."""
    if name.startswith(_VISION):
        return None
    folder = _torch_modules() if name.startswith(TORCH) else _modules()
    name = name.removeprefix(TORCH)
    return _signature(folder, _exports(folder).get(name, ""), name)


@lru_cache(maxsize=4)
def group(name: str) -> frozenset[str]:
    """The layers in one of the sets that ``parse_model`` itself names: ``base_modules``, ``repeat_modules``."""
    found = re.search(rf"^    {name} = frozenset\((.*?)^    \)", _tasks(), re.MULTILINE | re.DOTALL)
    listed = re.findall(r"[\w.]+(?=,)", re.sub("#.*", "", found[1])) if found else ()
    return frozenset(re.sub(r"^torch\.nn\.", TORCH, layer) for layer in listed)


# ---- source ----------------------------------------------------------------------------------------------------------


def _modules() -> Path:
    return ultralytics_folder() / "nn" / "modules"


def _torch_modules() -> Path:
    return _package("torch", "nn") / "modules"


def _package(name: str, part: str) -> Path:
    """The folder of a part of a package that need not be installed."""
    found = importlib.util.find_spec(name)
    return Path(found.origin if found and found.origin else "absent").parent / part


@lru_cache(maxsize=64)
def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _tasks() -> str:
    return _read(ultralytics_folder() / "nn" / "tasks.py")


def _of_ultralytics() -> frozenset[str]:
    """What ``nn/tasks.py`` imports of the layers that ``nn/modules`` exports."""
    head = _tasks().partition("\nclass ")[0]
    return frozenset(_imports(head, "ultralytics.nn.modules")) & frozenset(_exports(_modules()))


@lru_cache(maxsize=4)
def _exports(folder: Path) -> Mapping[str, str]:
    """The classes that a package imports from its own modules, and the name of the module of each."""
    tree = _parsed(_read(folder / "__init__.py"))
    froms = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    return {
        alias.asname or alias.name: str(node.module)
        for node in froms
        if node.level == 1
        for alias in node.names
        if re.match("[A-Za-z]+", alias.name) and not alias.name.islower()  # functions are no layers
    }


def _imports(text: str, module: str) -> list[str]:
    nodes = [node for node in _parsed(text).body if isinstance(node, ast.ImportFrom) and node.module == module]
    return [alias.asname or alias.name for node in nodes for alias in node.names]


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


@lru_cache(maxsize=256)
def _signature(folder: Path, module: str, name: str, depth: int = 0) -> Signature | None:
    """Of the ``__init__`` of a class, or of that of its first base in the same package."""
    text = _read(folder / f"{module}.py")
    found = re.search(rf"^class {re.escape(name)}\b.*?(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    body = _parsed(found[0]).body if found else []
    if not body or not isinstance(body[0], ast.ClassDef) or depth > _MOST_BASES:
        return None
    for node in body[0].body:
        if isinstance(node, ast.FunctionDef) and node.name in ("__init__", "__new__"):
            return _counted(node.args)
    bases = [base.id for base in body[0].bases if isinstance(base, ast.Name)]
    if not bases:
        return None
    elsewhere = re.search(rf"^from \.(\w+) import [^\n]*\b{re.escape(bases[0])}\b", text, re.MULTILINE)
    return _signature(folder, elsewhere[1] if elsewhere else module, bases[0], depth + 1)


def _counted(arguments: ast.arguments) -> Signature:
    positional = len(arguments.posonlyargs) + len(arguments.args) - 1
    return Signature(positional - len(arguments.defaults), None if arguments.vararg else positional)
