"""YAML that somebody else wrote: read without running anything, growing without end, or a traceback.

An alias (``*a``) costs a few bytes and stands for all that its anchor holds: nine lines of nine aliases each are a
billion values once they are written out ("billion laughs").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

MOST_VALUES = 1_000_000  # of a document, every alias written out
# What PyYAML raises for a value that is not what its tag or shape says, and for one that nests without end.
_NO_VALUE = (ValueError, OverflowError, AttributeError, TypeError, LookupError, RecursionError)


def load(text: str, *, as_written: Iterable[str] = ()) -> Any:
    """The one document in ``text`` as plain values.

    Args:
        text: of the file.
        as_written: keys at its top below which ``yes``, ``no``, ``on`` and ``off`` are words, not true and false.

    Raises:
        yaml.YAMLError: it is no YAML, says more than MOST_VALUES, or has a value that cannot be read. A
            ``yaml.MarkedYAMLError`` where the line is known.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        require_bounded(node)
        for key in as_written:
            _keep_words(node, key)
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
    except _NO_VALUE as error:  # 2024-13-45 has the shape of a date
        said = f": {error}" if isinstance(error, ValueError) else ""  # the others speak of Python
        raise yaml.YAMLError(f"it has a value that YAML cannot read{said}") from error
    finally:
        loader.dispose()


def require_bounded(node: yaml.Node) -> None:
    """Refuse a document that says too much once its aliases are written out, or that contains itself.

    Raises:
        yaml.MarkedYAMLError: it does.
        RecursionError: it is nested deeper than Python counts.
    """
    _values(node, {})


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a node stands for; 0 marks one that is being counted, and so contains itself."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    known = counted.get(id(node))
    if known == 0:
        raise _refused(node, "an alias stands for what contains it")
    if known is None:
        counted[id(node)] = 0
        inside = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        known = counted[id(node)] = 1 + sum(_values(part, counted) for part in inside)
    if known > MOST_VALUES:
        raise _refused(node, f"it says more than {MOST_VALUES:,} values once its aliases are written out")
    return known


def _refused(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _keep_words(top: yaml.Node, key: str) -> None:
    for name, value in top.value if isinstance(top, yaml.MappingNode) else ():
        if isinstance(name, yaml.ScalarNode) and name.value == key:
            parts = [part for _, part in value.value] if isinstance(value, yaml.MappingNode) else value.value
            for part in parts if isinstance(parts, list) else ():
                if part.tag == "tag:yaml.org,2002:bool":
                    part.tag = "tag:yaml.org,2002:str"
