"""The search space: ranges and choices checked against Ultralytics' arguments, points checked against the space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from petskin_tune.errors import UsageError
from petskin_tune.nearest import did_you_mean
from petskin_tune.study.space.arguments import TUNER_BOUNDS, WORDS, arguments, check_name, check_value
from petskin_tune.study.spec import Choices, Range, Scalar
from petskin_tune.study.study_file.yaml_lines import read

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_GRID_SLACK = 1e-8  # of a step: decimal steps such as 0.1 are no exact binary numbers (Optuna's own tolerance)
_MOST_STEPS = 1_000_000  # of a range; a finer grid is none


def make_range(name: str, low: Any, high: Any, *, log: bool = False, step: Any = None) -> Range:
    """The searched range of ``name``, ``low`` and ``high`` included.

    Raises:
        UsageError: ``name`` cannot be searched or is no number, or the range is empty, reversed, outside of what the
            argument allows, logarithmic from 0 or below, or no whole number of steps.
    """
    argument = check_name(name, searched=True)
    if name in WORDS or argument.kind == "bool":
        raise UsageError(f"`{name}` has no range, write {{choices: [{_examples(name)}]}}")
    low, high = _plain_value(name, low), _plain_value(name, high)
    if low > high:
        raise UsageError(f"the range of `{name}` is reversed: low {low:g} is above high {high:g}")
    if low == high:
        raise UsageError(
            f"the range of `{name}` is empty: low and high are both {low:g}; a fixed value belongs under `train`"
        )
    if log and low <= 0:
        raise UsageError(f"`{name}` is searched on a log scale, its low must be above 0, not {low:g}")
    if step is not None:
        step = _step(name, low, high, step, log=log, whole=argument.kind == "int")
    return Range(low=low, high=high, log=log, step=step, integer=argument.kind == "int")


def make_choices(name: str, values: Sequence[Any]) -> Choices:
    """The searched choice of ``name`` between ``values``.

    Raises:
        UsageError: ``name`` cannot be searched, there are fewer than two values, or one is wrong or given twice.
    """
    check_name(name, searched=True)
    checked = tuple(check_value(name, value) for value in values)
    if any(isinstance(value, list) for value in checked):
        raise UsageError(f"a choice of `{name}` must be one plain value, not a list")
    if len(checked) < 2:
        raise UsageError(f"`{name}` has no choice: give at least two values, or fix it under `train`")
    for index, value in enumerate(checked):
        if value in checked[:index]:
            raise UsageError(f"`{name}` has the choice {value!r} twice")
    return Choices(choices=checked)


def check_point(point: Mapping[str, Any], search: Mapping[str, Range | Choices]) -> dict[str, Scalar | None]:
    """``point`` (parts of the space may be missing) with its values as the space spells them.

    Raises:
        UsageError: a name that is not searched, or a value outside of its range.
    """
    for name in point:
        if name not in search:
            raise UsageError(f"`{name}` is not searched in this study{did_you_mean(name, search)}")
    return {name: _place(name, value, search[name]) for name, value in point.items()}


def check_settings(point: Mapping[str, Any], search: Mapping[str, Range | Choices]) -> dict[str, Any]:
    """A person's settings of one trial: values of searched names, and arguments that this trial alone trains with.

    Raises:
        UsageError: a name that could not be searched, or a value that its range or the argument does not allow.
    """
    settings: dict[str, Any] = check_point({name: point[name] for name in point if name in search}, search)
    for name in point:
        if name not in search:
            if name not in arguments() and (hint := did_you_mean(name, search)):
                raise UsageError(f"`{name}` is not searched in this study{hint}")
            check_name(name, searched=True)
            settings[name] = _plain_value(name, point[name])
    if settings.get("optimizer") == "auto" and "optimizer" not in search:
        raise UsageError("`optimizer: auto` overrides `lr0` and `momentum`: name an optimizer (SGD, AdamW, …)")
    return {name: settings[name] for name in point}


def fit_point(
    point: Mapping[str, Any], search: Mapping[str, Range | Choices]
) -> tuple[dict[str, Scalar | None], list[str]]:
    """``point`` as far as it fits into the space, and a sentence for each value that was moved or left out.

    A number goes to the nearest end of its range; what has no nearest value is left to the sampler.
    """
    fitting: dict[str, Scalar | None] = {}
    said: list[str] = []
    for name, value in point.items():
        try:
            fitting |= check_point({name: value}, search)
        except UsageError as reason:
            nearest = _nearest(value, search[name]) if name in search else None
            if nearest is not None:
                fitting |= check_point({name: nearest}, search)
                said.append(f"{reason}, {nearest:g} is tried instead")
            else:
                said.append(f"{reason}, it is {'drawn' if name in search else 'left out'}")
    return fitting, said


def parse_point(words: Sequence[str], search: Mapping[str, Range | Choices]) -> dict[str, Any]:
    """The settings that a person types as ``lr0=1e-4 optimizer=AdamW``, checked as by :func:`check_settings`."""
    point: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"write NAME=VALUE, for example lr0=1e-4, not {word!r}")
        if name.strip() in point:
            raise UsageError(f"`{name.strip()}` is given twice")
        point[name.strip()] = read(text, word).value
    return check_settings(point, search)


def distributions(search: Mapping[str, Range | Choices]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the space, in alphabetical order (the order that Optuna's own samplers draw in)."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, searched in sorted(search.items()):
        if isinstance(searched, Choices):
            found[name] = CategoricalDistribution(searched.choices)
        elif searched.integer:
            found[name] = IntDistribution(int(searched.low), int(searched.high), searched.log, int(searched.step or 1))
        else:
            found[name] = FloatDistribution(searched.low, searched.high, searched.log, searched.step)
    return found


def example(name: str) -> str:
    """How a person may write the search of ``name``: model.tune()'s own bounds where it has some."""
    if name in TUNER_BOUNDS:
        low, high = TUNER_BOUNDS[name]
        return f"{name}: [{low:g}, {high:g}]"
    if name in WORDS or arguments()[name].kind == "bool":
        return f"{name}: {{choices: [{_examples(name)}]}}"
    return f"{name}: {{low: …, high: …}}"


def _examples(name: str) -> str:
    words = [str(word).lower() if isinstance(word, bool) else word for word in WORDS.get(name, (True, False))]
    return ", ".join(words[:3])


def _plain_value(name: str, value: Any) -> Any:
    if isinstance(value, list):  # which `freeze` may be under `train`
        raise UsageError(f"`{name}` must be one plain value, not {value!r}")
    return check_value(name, value)


def _step(name: str, low: float, high: float, step: Any, *, log: bool, whole: bool) -> float:
    if isinstance(step, bool) or not isinstance(step, (int, float)) or not 0 < step <= high - low:
        raise UsageError(f"the step of `{name}` must be a number above 0 and at most {high - low:g}, not {step!r}")
    if log:
        raise UsageError(f"`{name}` has both `log` and `step`, Optuna takes one of them")
    if whole and not float(step).is_integer():
        raise UsageError(f"the step of `{name}` must be a whole number, not {step!r}")
    steps = (high - low) / step
    if steps > _MOST_STEPS:
        raise UsageError(
            f"the step of `{name}` must be {(high - low) / _MOST_STEPS:g} or more, or be left out, not {step!r}"
        )
    if abs(steps - round(steps)) > _GRID_SLACK:
        reached = low + math.floor(steps) * step
        raise UsageError(f"the range of `{name}` is no whole number of steps of {step:g}: let high be {reached:g}")
    return float(step)


def _place(name: str, value: Any, searched: Range | Choices) -> Scalar | None:
    if isinstance(searched, Choices):
        checked = check_value(name, value)
        if checked not in searched.choices:
            known = ", ".join(str(choice) for choice in searched.choices)
            raise UsageError(f"`{name}` {value!r} is none of its choices ({known})")
        return searched.choices[searched.choices.index(checked)]
    number = _plain_value(name, value)
    if not searched.low <= number <= searched.high:
        raise UsageError(f"`{name}` {number:g} is outside of its range [{searched.low:g}, {searched.high:g}]")
    if searched.step is not None:
        steps = (number - searched.low) / searched.step
        if abs(steps - round(steps)) > _GRID_SLACK:
            raise UsageError(
                f"`{name}` {number:g} is not on its grid of {searched.low:g} plus steps of {searched.step:g}"
            )
    return number


def _nearest(value: Any, searched: Range | Choices) -> float | None:
    """The nearest number in the space; None for words and for what has no number."""
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float)) or value != value:
        return None
    if isinstance(searched, Choices):
        numbers = [choice for choice in searched.choices if isinstance(choice, (int, float))]
        if not numbers:
            return None
        within = min(max(value, min(numbers)), max(numbers))
        return min(numbers, key=lambda number: abs(number - within))
    clipped = float(min(max(value, searched.low), searched.high))  # a whole number may be larger than any float
    if searched.step is not None:
        clipped = searched.low + round((clipped - searched.low) / searched.step) * searched.step
    # A step may lead a little beyond the end, because decimal steps are no exact binary numbers.
    return min(round(clipped) if searched.integer else clipped, searched.high)
