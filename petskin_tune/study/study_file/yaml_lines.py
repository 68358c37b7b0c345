"""YAML whose values remember their line, so that a refusal can point at it.

PyYAML's safe loader, with two differences: a key that is given twice is refused (the stock loader keeps the last one
silently), and ``1e-5`` is a number as in YAML 1.2 (YAML 1.1 reads a string).
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from petskin_tune.errors import UsageError
from petskin_tune.nearest import did_you_mean

MOST = 2**31 - 1  # of anything that is counted: what databases and seeds take
_DEEPEST = 20  # levels; a YAML alias can refer to itself
_MOST_VALUES = 5000  # of a file, those behind aliases counted each time: ten lines of aliases of aliases fill a memory
_LONGEST = 200_000  # characters of a file
# What PyYAML's constructors raise, besides its own errors, for a value that is not what its tag or shape says.
_NO_VALUE = (ValueError, OverflowError, AttributeError, TypeError, LookupError)


class _Loader(yaml.SafeLoader):
    """SafeLoader that knows YAML 1.2's floats, and ends where a file has more than any study needs."""

    values = 0
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.count()
        self.depth += 1
        if self.depth > 2 * _DEEPEST:  # a key and its value are a level each; exactly, `_entry` tells
            raise RecursionError
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def count(self) -> None:
        """One value more."""
        self.values += 1
        if self.values > _MOST_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MOST_VALUES} values", problem_mark=self.get_mark())


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class Entry:
    """One value of a YAML file: ``value`` is plain Python, ``keys`` or ``items`` are its parts as entries."""

    value: Any
    line: int | None  # 1-based; None: it was read from no file
    where: str  # the file, as a person knows it
    name: str = ""  # dotted path of keys: "search.lr0"
    keys: Mapping[str, Entry] | None = None
    items: tuple[Entry, ...] | None = None

    @property
    def place(self) -> str:
        """File and line."""
        return self.where if self.line is None else f"{self.where}, line {self.line}"

    def refused(self, reason: str) -> UsageError:
        """The refusal of this value, with file, line and name."""
        subject = f"`{self.name}` " if self.name else ""
        return UsageError(f"{self.place}: {subject}{reason}")

    @contextmanager
    def located(self) -> Iterator[None]:
        """Give file and line to a UsageError raised inside, whose sentence knows neither."""
        try:
            yield
        except UsageError as error:
            raise UsageError(f"{self.place}: {error}") from error

    def mapping(self, known: tuple[str, ...] | None = None) -> Mapping[str, Entry]:
        """Its keys; with ``known``, any other key is refused with the nearest right one."""
        if self.keys is None:
            raise self.refused(f"must be a mapping of names to values, not {_kind(self.value)}")
        for key, entry in self.keys.items():
            if known is not None and key not in known:
                inside = f" in `{self.name}`" if self.name else ""
                hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
                raise UsageError(f"{entry.place}: unknown key `{key}`{inside}{hint}")
        return self.keys

    def sequence(self) -> tuple[Entry, ...]:
        """Its items."""
        if self.items is None:
            raise self.refused(f"must be a list, not {_kind(self.value)}")
        return self.items

    def text(self) -> str:
        """Its value, a text that is not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.refused(f"must be text, not {_kind(self.value)}")
        return self.value.strip()

    def flag(self) -> bool:
        """Its value, true or false."""
        if not isinstance(self.value, bool):
            raise self.refused(f"must be true or false, not {_kind(self.value)}")
        return self.value

    def number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """Its value, a finite number from ``low`` to ``high``."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
            raise self.refused(f"must be a number, not {_kind(value)}")
        if not low <= value <= high:
            bounds = f"at least {low:g}" if value < low and high >= MOST else f"from {low:g} to {high:g}"
            raise self.refused(f"must be {bounds}, not {value:g}")
        return float(value)

    def whole(self, low: int = 0, high: int = MOST) -> int:
        """Its value, a whole number from ``low`` to ``high``."""
        number = self.number(low, high)
        if not number.is_integer():
            raise self.refused(f"must be a whole number, not {number:g}")
        return int(number)


def read(text: str, where: str) -> Entry:
    """The one document in ``text``.

    Raises:
        UsageError: broken YAML, more than one document, more than any file needs, a key given twice or a key that is no
            text.
    """
    if len(text) > _LONGEST:
        raise UsageError(f"{where} is no study file: it has {len(text)} characters, at most {_LONGEST} are read")
    loader = None
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        node = loader.get_single_node()
        if node is None:
            raise UsageError(f"{where} is empty")
        loader.values = 0
        return _entry(loader, node, where, "", 0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{where}, line {line}: this is no valid YAML ({error.problem or error.context})") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UsageError(f"{where}, line {line}: this is no valid YAML ({error.reason})") from error
    except RecursionError as error:
        raise UsageError(f"{where} is nested too deeply") from error
    finally:
        if loader is not None:
            loader.dispose()


def entry_of(value: Any, where: str, name: str = "") -> Entry:
    """A plain value that stands in no file, as an entry like those of :func:`read`."""
    if isinstance(value, Mapping):
        keys = {key: entry_of(part, where, f"{name}.{key}" if name else key) for key, part in value.items()}
        return Entry(value, None, where, name, keys=keys)
    if isinstance(value, (list, tuple)):
        items = tuple(entry_of(item, where, f"{name}[{index}]") for index, item in enumerate(value, 1))
        return Entry(list(value), None, where, name, items=items)
    return Entry(value, None, where, name)


def _entry(loader: _Loader, node: yaml.Node, where: str, name: str, depth: int) -> Entry:
    loader.count()
    line = node.start_mark.line + 1
    refused = Entry(None, line, where, name).refused
    if depth > _DEEPEST:
        raise refused("is nested too deeply")
    if isinstance(node, yaml.MappingNode):
        keys = _keys(loader, node, where, name, depth)
        return Entry({key: entry.value for key, entry in keys.items()}, line, where, name, keys=keys)
    if isinstance(node, yaml.SequenceNode):
        items = tuple(_entry(loader, item, where, f"{name}[{i}]", depth + 1) for i, item in enumerate(node.value, 1))
        return Entry([item.value for item in items], line, where, name, items=items)
    try:
        value = loader.construct_object(node)
    except _NO_VALUE as error:  # 2024-13-45 has the shape of a date
        why = f" ({error})" if isinstance(error, ValueError) else ""  # the others speak of Python
        raise refused(f"has a value that YAML cannot read{why}") from error
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        raise refused("is a number too large to reckon with")
    return Entry(value, line, where, name)


def _keys(loader: _Loader, node: yaml.MappingNode, where: str, name: str, depth: int) -> dict[str, Entry]:
    keys: dict[str, Entry] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str) or key_node.tag == "tag:yaml.org,2002:merge":
            raise UsageError(f"{where}, line {line}: a key must be a plain name")
        dotted = f"{name}.{key}" if name else key
        if key in keys:
            raise UsageError(f"{where}, line {line}: `{dotted}` is given twice, first in line {keys[key].line}")
        entry = _entry(loader, value_node, where, dotted, depth + 1)
        # A person looks for the key, which may stand above its value.
        keys[key] = Entry(entry.value, line, where, dotted, entry.keys, entry.items)
    return keys


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return repr(value) if isinstance(value, str) else f"{value}".lower() if isinstance(value, bool) else f"{value}"
