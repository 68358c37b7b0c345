"""What the trial's process takes from a person's environment."""

from __future__ import annotations

import pytest

from petskin_tune.training.process import environment


@pytest.mark.parametrize(
    ("text", "threads"),
    [("", None), ("4", 4), (" 04 ", 4), ("4,2", 4), ("0", None), ("-1", None), ("²", None), ("9" * 5000, None)],
)
def test_threads_are_those_of_a_person_or_nobodys(
    text: str, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_asked_threads", text)
    assert environment.threads_asked_for() == threads
