"""Choose whole groups of images so that the classes keep their proportions, the same way for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

from petskin_tune.printable import raw

BACKGROUND = -1  # the stratum of images without an object


def strata(classes: Mapping[str, frozenset[int]]) -> dict[str, int]:
    """One stratum per image: the rarest of its classes (counted in images), or BACKGROUND.

    Rare classes are what a careless draw loses, so an image that shows one counts for it.
    """
    images_with = Counter(number for numbers in classes.values() for number in numbers)
    return {
        image: min(numbers, key=lambda number: (images_with[number], number)) if numbers else BACKGROUND
        for image, numbers in classes.items()
    }


def choose(groups: Mapping[str, Counter[int]], wanted: int, seed: int) -> set[str]:
    """Choose groups with ``wanted`` images in all, each stratum in proportion.

    Groups stay whole, so the number of images may fall short of ``wanted``, but only where every group left is larger
    than what lacks; it never exceeds it, and with groups of one image it is met exactly. The choice depends on names,
    contents and seed, not on their order.

    Args:
        groups: per group name, how many images of each stratum it holds.
        wanted: images to choose; at most as many as there are.
        seed: another seed, another choice.
    """
    counts: Counter[int] = sum(groups.values(), Counter())
    quota = _quotas(counts, wanted)
    order = sorted(groups, key=lambda name: seeded(seed, name))
    waiting = {stratum: iter([name for name in order if groups[name][stratum]]) for stratum in quota}
    have: Counter[int] = Counter()
    chosen: set[str] = set()
    while waiting:
        stratum = max(waiting, key=lambda number: ((quota[number] - have[number]) / max(quota[number], 1), number))
        name = next(waiting[stratum], None)
        if name is None or have[stratum] >= quota[stratum]:
            del waiting[stratum]
        elif name not in chosen and _fits(groups[name], have, quota, wanted):
            chosen.add(name)
            have += groups[name]
    _fill(chosen, have, groups, order, quota, wanted)
    return chosen


def _fill(
    chosen: set[str],
    have: Counter[int],
    groups: Mapping[str, Counter[int]],
    order: Iterable[str],
    quota: Mapping[int, int],
    wanted: int,
) -> None:
    """Add groups while one fits, the one first that takes the strata least far from their quotas."""
    rest = [name for name in order if name not in chosen]
    while True:
        room = wanted - have.total()
        rest = [name for name in rest if name not in chosen and groups[name].total() <= room]
        if not rest:
            return
        name = min(rest, key=lambda name: _worse(groups[name], have, quota))  # the first in order among equals
        chosen.add(name)
        have += groups[name]


def _fits(group: Counter[int], have: Counter[int], quota: Mapping[int, int], wanted: int) -> bool:
    """Whether a group still has room and brings the strata nearer to their quotas than they are."""
    if have.total() + group.total() > wanted:
        return False
    return _worse(group, have, quota) < 0


def _worse(group: Counter[int], have: Counter[int], quota: Mapping[int, int]) -> int:
    """How much farther from their quotas a group takes the strata; below 0 it brings them nearer."""
    return sum(
        abs(quota[stratum] - have[stratum] - group[stratum]) - abs(quota[stratum] - have[stratum]) for stratum in group
    )


def _quotas(counts: Counter[int], wanted: int) -> dict[int, int]:
    """Shares of ``wanted`` by largest remainder; every stratum gets at least one image where there are enough."""
    total = counts.total()
    exact = {stratum: wanted * count / total for stratum, count in counts.items()}
    least = 1 if wanted >= len(counts) else 0
    quota = {stratum: max(int(share), least) for stratum, share in exact.items()}
    by_remainder = sorted(exact, key=lambda stratum: (quota[stratum] - exact[stratum], stratum))
    while sum(quota.values()) < wanted:
        for stratum in by_remainder:
            if sum(quota.values()) < wanted and quota[stratum] < counts[stratum]:
                quota[stratum] += 1
    while sum(quota.values()) > wanted:  # the ones given to rare strata come from the commonest
        quota[max(quota, key=lambda stratum: (quota[stratum], stratum))] -= 1
    return quota


def seeded(seed: int, name: str) -> bytes:
    """Random bytes that belong to a name: the same on every machine, whatever else there is."""
    return hashlib.sha256(raw(f"{seed}|{name}")).digest()
