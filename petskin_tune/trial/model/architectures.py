"""Whether Ultralytics can build what an architecture file describes, told without building it.

Judged is what ``parse_model`` of Ultralytics needs of each row: a layer that it knows, outputs of earlier layers, as
many arguments as the layer takes. Whether the shapes of tensors fit is told by training: ``petskin-tune doctor``.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from petskin_tune.errors import UsageError
from petskin_tune.files.model_kinds import read_model
from petskin_tune.files.yaml_kinds import SUFFIXES
from petskin_tune.nearest import did_you_mean
from petskin_tune.printable import quoted
from petskin_tune.trial.model import layers

_LONGEST_TEXT = 200  # characters of a text among the arguments, which Ultralytics reads as Python's literal
_HEADS = ("Detect", "WorldDetect", "YOLOEDetect", "Pose", "Pose26", "OBB", "OBB26")
_SEGMENT = ("Segment", "Segment26", "YOLOESegment", "YOLOESegment26")
_READERS = ("SemanticSegment", "v10Detect", "ImagePoolingAttn", "RTDETRDecoder")
_OF_SEVERAL = frozenset((*_HEADS, *_SEGMENT, *_READERS, "Concat", "CBFuse", "Depth"))  # their `from` is a list
# Arguments that parse_model adds of itself (channels, repeats, `reg_max`), beside those of base and repeat modules.
_ADDED = {
    **dict.fromkeys((*_HEADS, *_SEGMENT), 3),
    **dict.fromkeys((*_READERS, "AIFI", "HGStem", "HGBlock", "CBLinear"), 1),
    **dict.fromkeys(("TorchVision", "Index"), -1),
}
_REPEATED = frozenset({"HGBlock"})
_READ = {  # of them, those that it reads itself
    **dict.fromkeys((*_SEGMENT, "C2fAttn"), 3),
    **dict.fromkeys(("HGStem", "HGBlock"), 2),
    **dict.fromkeys(("CBLinear", "TorchVision", "Index"), 1),
    "ResNetLayer": 4,
}
_NUMBERS = frozenset({"nc", "max_channels", "width", "depth"})  # variables of Ultralytics' parse_model
_UNCOUNTED = frozenset({"nn.BatchNorm2d", "Depth", "C3k2", "A2C2f"})  # what it adds depends on more than the layer


class _Fault(Exception):
    """What is wrong, as a clause."""


def require_buildable(path: Path) -> None:
    """Refuse an architecture that Ultralytics cannot build, and weights with a layer that it does not have.

    Raises:
        UsageError: says which layer, counted from 0 as Ultralytics does, and what is wrong with it.
    """
    described = read_model(path)
    if described is None or layers.names() is None:
        return
    try:
        if path.suffix.lower() in SUFFIXES:
            _judge(described.architecture, path.stem)
        else:
            _judge_names(described.architecture)
    except _Fault as fault:
        raise UsageError(f"The model {path} cannot be built: {fault}.".replace("`?.", "`?")) from None


def _judge_names(architecture: Mapping[str, Any]) -> None:
    for index, row in enumerate(_rows(architecture)):
        if isinstance(row, (list, tuple)) and len(row) == 4:
            _require_known(index, row[2])


def _judge(architecture: Mapping[str, Any], name: str) -> None:
    if "nc" not in architecture:
        raise _Fault("it has no `nc`, the number of classes (that of the data set takes its place)")
    _judge_scales(architecture.get("scales"), name)
    _judge_activation(architecture.get("activation"))
    for index, row in enumerate(_rows(architecture)):
        if not isinstance(row, list) or len(row) != 4:
            raise _Fault(f"layer {index} is not [from, repeats, module, args]")
        source, repeats, module, arguments = row
        where = f"layer {index} ({quoted(module)})"
        _require_known(index, module)
        if isinstance(repeats, bool) or not isinstance(repeats, int):
            raise _Fault(f"the repeats of {where} are {quoted(repr(repeats))}, not a whole number")
        _judge_source(where, index, module, source)
        _judge_arguments(where, module, arguments)


def _rows(architecture: Mapping[str, Any]) -> list[Any]:
    return [*architecture["backbone"], *architecture["head"]]


def _judge_scales(scales: Any, name: str) -> None:
    if not scales:
        return
    if not isinstance(scales, dict) or not all(_is_scale(value) for value in scales.values()):
        raise _Fault("each of its `scales` is to be [depth, width, max_channels], numbers, the last two above 0")
    asked = re.search(r"yolo(e-)?[v]?\d+([nslmx])", name)  # as Ultralytics' guess_model_scale
    if asked and asked[2] not in scales:
        raise _Fault(f"the file's name asks for the scale `{asked[2]}`, which its `scales` lack")


def _is_scale(value: Any) -> bool:
    """Whether it is [depth, width, max_channels]; a layer is repeated once at least, whatever the depth."""
    numbers = isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))
    return numbers and math.isfinite(value[0]) and min(value[1:]) > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _judge_activation(activation: Any) -> None:
    """What is executed nowhere: Ultralytics takes an activation of torch with literal arguments, and no more."""
    if activation and _class_called(activation) not in (layers.names() or ()):
        raise _Fault(f"its `activation` is {quoted(repr(activation))}, not one of torch such as `nn.SiLU()`")


def _class_called(text: Any) -> str | None:
    """``nn.SiLU`` of ``nn.SiLU(0.1)`` or ``torch.nn.SiLU(0.1)``; None: it is not one call with literal arguments."""
    if not isinstance(text, str) or len(text) > _LONGEST_TEXT:
        return None
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or any(word.arg is None for word in call.keywords):
            return None
        for value in (*call.args, *(word.value for word in call.keywords)):
            ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    name = ast.unparse(call.func)
    return name.removeprefix("torch.") if re.fullmatch(r"(torch\.)?nn\.\w+", name) else None


def _require_known(index: int, module: Any) -> None:
    known = layers.names() or frozenset()
    if not isinstance(module, str):
        raise _Fault(f"layer {index} names {quoted(repr(module))} as its module")
    if module not in known and not (index == 0 and module == "Silence"):  # what Ultralytics once called nn.Identity
        raise _Fault(
            f"layer {index} names `{quoted(module)}`, which this Ultralytics lacks{did_you_mean(module, known)}"
        )


def _judge_source(where: str, index: int, module: str, source: Any) -> None:
    several = module in _OF_SEVERAL
    if several != isinstance(source, list) or source == []:
        raise _Fault(f"`from` of {where} is {quoted(repr(source))}: it takes {'a list' if several else 'one number'}")
    for number in source if several else [source]:
        if isinstance(number, bool) or not isinstance(number, int):
            raise _Fault(f"`from` of {where} is {quoted(repr(source))}: a layer is named by its number")
        if not (number == -1 or -index <= number < index):
            raise _Fault(f"`from` of {where} is {quoted(repr(source))}: only layers before it have an output")


def _judge_arguments(where: str, module: str, arguments: Any) -> None:
    if not isinstance(arguments, list):
        raise _Fault(f"the arguments of {where} are no list")
    for argument in arguments:
        if isinstance(argument, str):
            _require_readable(where, argument)
    least, most = _counts(module)
    if len(arguments) < least or (most is not None and len(arguments) > most):
        raise _Fault(f"{where} takes {_between(least, most)} here, not {len(arguments)}")
    if _is_base(module) and not _is_channels(arguments[0]):
        raise _Fault(f"the first argument of {where}, its channels, is {quoted(repr(arguments[0]))}")
    channels = arguments[:1] if _is_base(module) else arguments[1:3] if module in _SEGMENT else ()
    few = next((number for number in channels if _is_number(number) and number < 1), None)
    if few is not None:
        raise _Fault(f"{where} is to have {few} channels, which are none")


def _is_channels(argument: Any) -> bool:
    """Whether it is a number, or a word that Ultralytics reads as one."""
    if not isinstance(argument, str) or argument in _NUMBERS:
        return isinstance(argument, (int, float, str))
    try:
        return _is_number(ast.literal_eval(argument))
    except ValueError:
        return False


def _is_base(module: str) -> bool:
    return module in layers.group("base_modules")


def _counts(module: str) -> tuple[int, int | None]:
    """The least and the most arguments of a row with this layer; None: not known."""
    read = max(_READ.get(module, 0), int(_is_base(module)))
    takes = None if module in _UNCOUNTED else layers.signature(module)
    if takes is None:
        return read, None
    added = _ADDED.get(module, int(_is_base(module))) + (module in layers.group("repeat_modules") | _REPEATED)
    return max(read, takes.least - added), None if takes.most is None else takes.most - added


def _between(least: int, most: int | None) -> str:
    if most is None:
        return f"{least} arguments or more"
    return f"{least} argument{'s' * (least != 1)}" if least == most else f"{least} to {most} arguments"


def _require_readable(where: str, text: str) -> None:
    try:
        if len(text) > _LONGEST_TEXT:
            raise SyntaxError
        ast.literal_eval(text)
    except ValueError:
        pass  # a word, which is taken as it is
    except (SyntaxError, MemoryError, RecursionError):
        raise _Fault(f"an argument of {where} is {quoted(repr(text))}, which is neither a word nor a value") from None
