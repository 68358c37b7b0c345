from __future__ import annotations

import threading

from petskin_tune.views.pulse import Pulse


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_takes_long_is_said_again_after_every_silence_with_its_time() -> None:
    clock = Clock()
    pulse = Pulse(lambda _: None, 25.0, clock)
    pulse.close()  # no thread: the test asks itself
    pulse.doing("unpacking the data set")
    said = []
    for second in range(61):
        clock.now = float(second)
        said += [text] if (text := pulse.due()) else []
    assert said == ["unpacking the data set (25 s so far)", "unpacking the data set (50 s so far)"]


def test_nothing_is_said_while_something_else_is_nor_after_its_end() -> None:
    clock = Clock()
    pulse = Pulse(lambda _: None, 25.0, clock)
    pulse.close()
    with pulse.during("measuring"):
        clock.now = 24.0
        pulse.spoken()
        clock.now = 30.0
        assert pulse.due() is None
    clock.now = 100.0
    assert pulse.due() is None
    pulse.doing("waiting", every=300.0)
    clock.now = 399.0
    assert pulse.due() is None
    clock.now = 400.0
    assert pulse.due() == "waiting (5 min so far)"


def test_a_thread_says_it_and_ends_with_the_view() -> None:
    said = threading.Event()
    pulse = Pulse(lambda _: said.set(), 0.01)
    pulse.doing("measuring")
    assert said.wait(240)
    pulse.close()
    assert pulse._thread is not None
    pulse._thread.join(240)
    assert not pulse._thread.is_alive()
