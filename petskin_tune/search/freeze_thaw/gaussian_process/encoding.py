"""Points of a search space as numbers: coordinates to move in, and features to measure distances in.

*Coordinates*: one number from 0 to 1 per parameter, in the space's order: a number's place in its range (in the
logarithm where it is searched so), a choice's place in the middle of its share. *Features*: the same for numbers; a
choice becomes one-hot divided by the square root of 2, so that two different choices lie 1 apart.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from petskin_tune.study.spec import Choices, Range, Scalar

Array = NDArray[np.float64]
_GRID_SLACK = 1e-9  # of a step


@dataclass(frozen=True)
class Encoding:
    """The encoding of one search space with d parameters and D features."""

    space: Mapping[str, Range | Choices]

    @cached_property
    def choices(self) -> NDArray[np.bool_]:
        """Shape (d,): which parameters are choices."""
        return np.array([isinstance(searched, Choices) for searched in self.space.values()], dtype=bool)

    @cached_property
    def owners(self) -> NDArray[np.intp]:
        """Shape (D,): the parameter that each feature belongs to."""
        widths = [len(s.choices) if isinstance(s, Choices) else 1 for s in self.space.values()]
        return np.repeat(np.arange(len(widths)), widths)

    def knows(self, point: Mapping[str, Scalar | None]) -> bool:
        """Whether ``point`` has a value, of the right kind, for every parameter."""
        return all(name in point and _fits(point[name], searched) for name, searched in self.space.items())

    def coordinates(self, points: Sequence[Mapping[str, Scalar | None]]) -> Array:
        """Shape (n, d). A number outside of its range lies outside of [0, 1]."""
        rows = [[_to_unit(point[name], searched) for name, searched in self.space.items()] for point in points]
        return np.array(rows, dtype=float).reshape(len(points), len(self.space))

    @cached_property
    def size(self) -> float:
        """How many points the space has; inf where a parameter is continuous."""
        return math.prod(_count(searched) for searched in self.space.values())

    def every(self) -> Array:
        """Snapped coordinates (size, d) of all points of a finite space."""
        columns = np.meshgrid(*map(_grid, self.space.values()), indexing="ij")
        return np.stack([column.ravel() for column in columns], axis=1) if columns else np.empty((1, 0))

    def point(self, coordinates: Array) -> dict[str, Scalar | None]:
        """The point of the space nearest to ``coordinates``, shape (d,): plain Python values."""
        return {
            name: _from_unit(float(place), searched)
            for place, (name, searched) in zip(coordinates, self.space.items(), strict=True)
        }

    def snapped(self, coordinates: Array) -> Array:
        """``coordinates``, shape (n, d), of the points that they stand for: whole numbers, steps, choices."""
        columns = [
            _snap(coordinates[:, k], searched) if _is_discrete(searched) else coordinates[:, k]
            for k, searched in enumerate(self.space.values())
        ]
        return np.stack(columns, axis=1) if columns else coordinates

    def features(self, coordinates: Array) -> Array:
        """Shape (n, D), of snapped ``coordinates``, shape (n, d)."""
        columns = []
        for k, searched in enumerate(self.space.values()):
            if isinstance(searched, Choices):
                chosen = _chosen(coordinates[:, k], len(searched.choices))
                columns.append(np.eye(len(searched.choices))[chosen] / math.sqrt(2))
            else:
                columns.append(coordinates[:, k : k + 1])
        return np.concatenate(columns, axis=1) if columns else coordinates


def _fits(value: Scalar | None, searched: Range | Choices) -> bool:
    if isinstance(searched, Choices):
        return value in searched.choices
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= sys.float_info.max:
        return False  # what a person enqueued may be anything until the sampler has looked at it
    return value > 0 or not searched.log


def _is_discrete(searched: Range | Choices) -> bool:
    return isinstance(searched, Choices) or searched.integer or searched.step is not None


def _to_unit(value: Scalar | None, searched: Range | Choices) -> float:
    if isinstance(searched, Choices):
        return (searched.choices.index(value) + 0.5) / len(searched.choices)
    low, high = _bounds(searched)
    number = float(value)  # type: ignore[arg-type]  # `knows` has looked
    return ((math.log(number) if searched.log else number) - low) / (high - low)


def _from_unit(place: float, searched: Range | Choices) -> Scalar | None:
    if isinstance(searched, Choices):
        return searched.choices[int(_chosen(np.array(place), len(searched.choices)))]
    number = float(_numbers(np.array(place), searched))
    return round(number) if searched.integer else number


def _count(searched: Range | Choices) -> float:
    if isinstance(searched, Choices):
        return len(searched.choices)
    return _last_step(searched) + 1 if _is_discrete(searched) else math.inf


def _grid(searched: Range | Choices) -> Array:
    """Snapped coordinates of all values of a parameter that is not continuous."""
    count = int(_count(searched))
    if isinstance(searched, Choices):
        return (np.arange(count) + 0.5) / count
    low, high = _bounds(searched)
    numbers: Array = searched.low + np.arange(count, dtype=float) * _step(searched)
    return ((np.log(numbers) if searched.log else numbers) - low) / (high - low)


def _snap(places: Array, searched: Range | Choices) -> Array:
    if isinstance(searched, Choices):
        count = len(searched.choices)
        return (_chosen(places, count) + 0.5) / count
    numbers = _numbers(places, searched)
    low, high = _bounds(searched)
    return ((np.log(numbers) if searched.log else numbers) - low) / (high - low)


def _chosen(places: Array, count: int) -> NDArray[np.intp]:
    return np.clip(np.floor(places * count), 0, count - 1).astype(np.intp)


def _numbers(places: Array, searched: Range) -> Array:
    """The values nearest to ``places``, on the range's grid and inside of it."""
    low, high = _bounds(searched)
    numbers = low + places * (high - low)
    if searched.log:
        numbers = np.exp(numbers)
    if _is_discrete(searched):
        steps = np.round((numbers - searched.low) / _step(searched))
        numbers = searched.low + np.clip(steps, 0, _last_step(searched)) * _step(searched)
    return np.clip(numbers, searched.low, searched.high)


def _step(searched: Range) -> float:
    return searched.step or 1.0


def _last_step(searched: Range) -> int:
    return math.floor((searched.high - searched.low) / _step(searched) + _GRID_SLACK)


def _bounds(searched: Range) -> tuple[float, float]:
    if searched.log:
        return math.log(searched.low), math.log(searched.high)
    return searched.low, searched.high
