"""The epochs at which a segment ends and everything is decided again."""

from __future__ import annotations

import math

SEGMENTS = 9  # of a full run: every third of 27 epochs
_SETTLED = 2  # epochs after the warm-up before the first rung


def rungs(epochs: int, warmup: float = 1.0, *, sparse: bool = False) -> tuple[int, ...]:
    """Epochs (1-based, increasing) at which a segment ends; the last one is ``epochs``.

    They lie evenly, ``round(epochs / 9)`` epochs apart or as near to it as whole epochs allow. The first is not before
    two epochs after the warm-up, nor before the third: the first epoch ranks nothing.

    Args:
        epochs: of a full run, at least 1.
        warmup: epochs of warm-up, a whole number or not.
        sparse: halve from the end instead (27 epochs: 3, 6, 13, 27): a fifth fewer segments, less than half the
            restores.
    """
    first = ranked_from(warmup) + _SETTLED - 1
    every = max(1, round(epochs / SEGMENTS))
    if sparse:
        found = _halved(epochs, max(first, every))
    else:
        segments = max(1, round(epochs / every))
        found = {round(epochs * k / segments) for k in range(1, segments + 1)}
    return tuple(sorted({epoch for epoch in found if first <= epoch < epochs} | {epochs}))


def landmarks(named: tuple[int, ...], usual: tuple[int, ...]) -> tuple[int, ...]:
    """Those of ``named`` rungs at which curves are looked at, as many as the ``usual`` ones at most twice.

    A curve that is looked at after each of 300 epochs says hardly more than after every 33rd, and takes 700 times as
    long to learn from.
    """
    if len(named) <= 2 * len(usual):
        return named
    return tuple(sorted({min(named, key=lambda rung: abs(rung - wanted)) for wanted in usual} | {named[-1]}))


def ranked_from(warmup: float) -> int:
    """The first epoch whose fitness says something: never the first of all."""
    return max(1, math.ceil(warmup)) + 1


def next_rung(all_rungs: tuple[int, ...], trained: int) -> int | None:
    """The first rung after ``trained`` epochs; None for a trial that is complete."""
    return next((rung for rung in all_rungs if rung > trained), None)


def _halved(epochs: int, first: int) -> set[int]:
    found, rung = set(), epochs
    while rung >= first:
        found.add(rung)
        rung //= 2
    return found
