"""What may pass is tried again: one way to do it, each new attempt in the log."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Any

import tenacity

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between two attempts: random, up to twice as much each time

log = logging.getLogger(__name__)
_chance = random.SystemRandom()  # not the generator that a training in this process draws from

Passing = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]


class Jitter(tenacity.wait_exponential):
    """A random pause up to one that doubles with every attempt; it leaves Python's own generator as it is."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """Seconds."""
        return _chance.uniform(self.min, super().__call__(retry_state))


def retrying(
    seconds: float | None,
    on: Passing,
    *,
    stopped: threading.Event | None = None,
    pauses: tuple[float, float] = (FIRST_PAUSE, LONGEST_PAUSE),
    sleep: Callable[[float], None] | None = None,
    before_pause: Callable[[tenacity.RetryCallState], None] = lambda _: None,
) -> tenacity.Retrying:
    """Calls a function until it succeeds; in the end its own last error comes out.

    Args:
        seconds: give up before so much has gone by; None: never.
        on: the errors that may pass, by type or by what a function says of one.
        stopped: set it, and a pause ends and no attempt follows.
        pauses: the first and the longest pause in seconds.
        sleep: how a pause is made, where ``stopped`` is not all that ends one.
        before_pause: told of every attempt that has failed.
    """

    def told(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        after = state.seconds_since_start or 0.0
        log.warning("attempt %d failed after %.1f s, the next follows: %r", state.attempt_number, after, error)
        before_pause(state)

    by_type = isinstance(on, (type, tuple))
    more: dict[str, Any] = {}
    if sleep is not None:
        more["sleep"] = sleep
    elif stopped is not None:
        more["sleep"] = tenacity.sleep_using_event(stopped)
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(on) if by_type else tenacity.retry_if_exception(on),  # type: ignore[arg-type]
        wait=Jitter(multiplier=pauses[0], max=pauses[1]),
        stop=tenacity.stop_any(*_ends(seconds, stopped)),
        before_sleep=told,
        reraise=True,
        **more,
    )


def _ends(seconds: float | None, stopped: threading.Event | None) -> list[Any]:
    ends: list[Any] = []
    if seconds is not None:
        ends.append(tenacity.stop_before_delay(seconds))
    if stopped is not None:
        ends.append(tenacity.stop_when_event_set(stopped))
    return ends
