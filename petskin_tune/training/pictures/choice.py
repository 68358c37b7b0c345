"""Which validation images are shown: the same ones in every trial of a study, on every machine, so that they compare.

They are chosen by their labels alone, never by what a model makes of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from petskin_tune.datasets.stratify import seeded

SHOWN = 12


@dataclass(frozen=True)
class Labelled:
    """What of an image's labels decides.

    Attributes:
        classes: numbers of its objects' classes.
        objects: how many.
        smallest: share of the image that the box of its smallest object takes; 1 where there is none.
    """

    classes: frozenset[int]
    objects: int
    smallest: float = 1.0


def choose(images: Mapping[str, Labelled], seed: int, count: int = SHOWN) -> list[str]:
    """Names of ``count`` images, or of all where there are fewer: each class first, then hard ones, then any.

    Args:
        images: by names that are the same on every machine.
        seed: of the study.
        count: at most so many.

    Returns:
        The names: first as many as it takes to see every class (of more classes than fit, those that show most), then
        hard ones for half of the room that is left (the smallest objects and the most objects in turn), one without an
        object, and any.
    """
    order = sorted(images, key=lambda name: seeded(seed, name))
    chosen = _each_class(images, order, count)
    hard = (count - len(chosen)) // 2
    for names, room in ((_hard(images, order), hard), (_background(images, order), 1), (iter(order), count)):
        most = min(count, len(chosen) + room)
        for name in names:
            if len(chosen) >= most:
                break
            if name not in chosen:
                chosen.append(name)
    return chosen


def _each_class(images: Mapping[str, Labelled], order: list[str], count: int) -> list[str]:
    """One image for the rarest class that is not shown yet, the one with most such classes, until all are shown."""
    images_with = Counter(number for labelled in images.values() for number in labelled.classes)
    missing = set(images_with)
    chosen: list[str] = []
    while missing and len(chosen) < count:
        rarest = min(missing, key=lambda number: (images_with[number], number))
        found = (name for name in order if rarest in images[name].classes)
        name = max(found, key=lambda name: len(images[name].classes & missing))  # the first in order among equals
        chosen.append(name)
        missing -= images[name].classes
    return chosen


def _hard(images: Mapping[str, Labelled], order: list[str]) -> Iterator[str]:
    """Images with objects: that with the smallest object, that with most objects, and so on in turn."""
    shown = [name for name in order if images[name].objects]
    small = sorted(shown, key=lambda name: images[name].smallest)
    crowded = sorted(shown, key=lambda name: -images[name].objects)
    for pair in zip(small, crowded, strict=True):
        yield from pair


def _background(images: Mapping[str, Labelled], order: list[str]) -> Iterator[str]:
    return (name for name in order if not images[name].objects)
