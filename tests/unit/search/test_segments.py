"""From a study to a choice."""

from __future__ import annotations

import pytest

from petskin_tune.leases.segments import Choice, Continue
from petskin_tune.search.segments import _last_run
from tests.support.searches import rising, state


@pytest.mark.parametrize(
    ("rungs", "beyond", "trains"),
    [
        ((), 2, True),  # the usual ones, every three epochs
        ((), 3, False),
        ((3, 6, 13, 27), 6, True),  # of the segment from 6 to 13, begun with the last epoch of the budget
        ((3, 6, 13, 27), 14, False),
    ],
)
def test_the_best_trial_is_trained_to_its_end_unless_more_than_a_segment_was_spent_beyond_the_budget(
    rungs: tuple[int, ...], beyond: int, trains: bool
) -> None:
    choice = _last_run(state(*(rising(number, 13) for number in range(12)), pauses=rungs), -beyond)
    assert isinstance(choice, Choice)
    assert (choice.segment is not None) == trains
    if isinstance(choice.segment, Continue):
        assert choice.segment.until == 27
