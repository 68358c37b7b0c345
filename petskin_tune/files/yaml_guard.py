"""YAML from anywhere: read in bounded time and memory, and every fault of it is one clause.

A dozen lines of anchors expand to gigabytes, brackets nested a thousand deep end the parser's recursion, and a number
of five thousand digits or a date without a month raise whatever Python raises. The text is counted before it is built.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from petskin_tune.error_text import shortened
from petskin_tune.errors import UsageError
from petskin_tune.files import regular

MOST_BYTES = 4 << 20  # of a file: a class list of a hundred thousand names
MOST_NODES = 200_000  # aliases counted as what they stand for
MOST_DEPTH = 40  # lists and maps within one another
LONGEST_FAULT = 160  # characters
_WORDS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "value"))

_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BadYaml(UsageError):
    """The text is no YAML that we read; the message is a clause such as ``line 3: found duplicate anchor``."""


_RESOLVERS = {  # what looks like a date is the text that it is written as
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Loader(_Fast):
    """Plain values only."""

    yaml_implicit_resolvers = _RESOLVERS


class _PatientLoader(yaml.SafeLoader):
    """The same, ten times slower, for half a surrogate pair: an escaped byte of a name that is no UTF-8."""

    yaml_implicit_resolvers = _RESOLVERS


def load_yaml(path: Path, *, as_written: Collection[str] = (), most: int = MOST_BYTES) -> Any:
    """The content of a YAML file of at most ``most`` bytes; ``as_written`` as for :func:`parse_yaml`.

    Raises:
        BadYaml: see :func:`parse_yaml`; or it is no UTF-8.
        OSError: it is not there, no regular file, too large, or cannot be read.
    """
    try:
        text = regular.read_text(path, most)
    except UnicodeDecodeError as error:
        raise BadYaml(f"byte {error.start} is no UTF-8: save it as UTF-8") from error
    return parse_yaml(text, as_written=as_written)


def parse_yaml(text: str, *, as_written: Collection[str] = ()) -> Any:
    """Dictionaries, lists, texts, numbers, truth values and None out of ``text``.

    Args:
        text: of one document.
        as_written: keys at its top below which ``yes``, ``010`` and ``1.10`` are words, not true, 8 and 1.1, and no key
            is given twice.

    Raises:
        BadYaml: it is no YAML, too large or too deep once its anchors are expanded, or holds an impossible value.
    """
    loader = _PatientLoader if "\\ud" in text.lower() else _Loader
    try:
        _count(yaml.parse(text, loader))
        return _built(loader(text), as_written)
    except yaml.YAMLError as error:
        raise BadYaml(_fault(error)) from error
    # What constructors raise on values that are none: !!int x, !!bool x, !!timestamp x, 5000 digits.
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError) as error:
        said = f" ({' '.join(str(error).split())})" if isinstance(error, ValueError) else ""  # others speak of Python
        raise BadYaml(shortened(f"a value cannot be read{said}", LONGEST_FAULT)) from error


def _built(loader: Any, as_written: Collection[str]) -> Any:
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(name, yaml.ScalarNode) and name.value in as_written:
                _refuse_twice(loader, value)
                _keep_words(value)
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_twice(loader: Any, node: yaml.Node) -> None:
    lines: dict[str, int] = {}
    keys = [key for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    for key in keys:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        name, line = repr(loader.construct_object(key)), key.start_mark.line + 1
        if name in lines:
            raise BadYaml(f"line {line}: {shortened(name, 40)} is given twice, first in line {lines[name]}")
        lines[name] = line


def _keep_words(node: yaml.Node) -> None:
    parts = [part for _, part in node.value] if isinstance(node, yaml.MappingNode) else node.value
    for part in parts if isinstance(parts, list) else ():
        if part.tag in _WORDS:
            part.tag = "tag:yaml.org,2002:str"


def _count(events: Any) -> None:
    """Refuse what would grow too large or too deep, before anything of it is built."""
    sizes: dict[str, int] = {}  # nodes of each anchor that is complete, expanded
    open_nodes: list[tuple[str | None, int]] = []  # anchor of each open list or map, and the count at its start
    count = 0
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name not in sizes and any(anchor == name for anchor, _ in open_nodes):
                raise BadYaml(f"line {line}: *{shortened(name, 40)} stands within itself")
            count += sizes.get(name, 1)
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - before
        if len(open_nodes) > MOST_DEPTH:
            raise BadYaml(f"line {line}: more than {MOST_DEPTH} lists or maps within one another")
        if count > MOST_NODES:
            raise BadYaml(f"line {line}: more than {MOST_NODES} values, anchors expanded")


def _fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or str(error)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return shortened(where + " ".join(str(said).split()), LONGEST_FAULT)
