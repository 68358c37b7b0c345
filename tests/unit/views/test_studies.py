from __future__ import annotations

import pytest

from petskin_tune.views.studies import StudyRow, render


@pytest.mark.parametrize(
    ("done", "of", "said"), [(8, 16, "8/16 epochs"), (28, 16, "16/16 epochs and 12 more"), (3, None, "3 epochs")]
)
def test_how_far_a_study_is(done: int, of: int | None, said: str) -> None:
    row = StudyRow("demo", 6, done, of, "epoch", 0.471, 60.0, 0, "2026-01-02T03:04:05+00:00", "", "")
    assert f" {said} " in render([row], "here")
