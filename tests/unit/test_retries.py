from __future__ import annotations

import random
import threading

import pytest

from petskin_tune.retries import retrying

QUICK = (0.001, 0.002)


class Fails:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_what_passes_is_tried_again_and_each_attempt_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    work = Fails(OSError(5, "first"), OSError(5, "second"))
    assert retrying(None, OSError, pauses=QUICK)(work) == "done"
    assert [record.getMessage().partition(" failed")[0] for record in caplog.records] == ["attempt 1", "attempt 2"]
    assert "OSError(5, 'second')" in caplog.text


@pytest.mark.parametrize("on", [OSError, (OSError, KeyError), lambda error: isinstance(error, OSError)])
def test_what_does_not_pass_comes_out_at_once(on: object) -> None:
    work = Fails(ValueError("other"))
    with pytest.raises(ValueError, match="other"):
        retrying(None, on, pauses=QUICK)(work)  # type: ignore[arg-type]
    assert work.calls == 1


def test_the_last_error_comes_out_when_the_time_is_over() -> None:
    work = Fails(*[OSError(5, "away")] * 3)
    with pytest.raises(OSError, match="away"):
        retrying(0.0, OSError)(work)
    assert work.calls == 1


def test_no_attempt_follows_once_it_is_stopped() -> None:
    stopped = threading.Event()
    work = Fails(*[OSError(5, "away")] * 3)
    with pytest.raises(OSError, match="away"):
        retrying(None, OSError, stopped=stopped, pauses=QUICK, before_pause=lambda _: stopped.set())(work)
    assert work.calls <= 2


def test_pauses_leave_the_generator_of_a_training_as_it_is() -> None:
    before = random.getstate()
    assert retrying(None, OSError, pauses=QUICK)(Fails(OSError("away"), OSError("away"))) == "done"
    assert random.getstate() == before
