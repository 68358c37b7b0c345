import itertools

import pytest

from petskin_tune.study.rungs import next_rung, ranked_from, rungs


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (1, (1,)),
        (2, (2,)),
        (3, (3,)),
        (5, (3, 4, 5)),
        (9, (3, 4, 5, 6, 7, 8, 9)),
        (27, (3, 6, 9, 12, 15, 18, 21, 24, 27)),
        (100, (11, 22, 33, 44, 56, 67, 78, 89, 100)),
        (300, (33, 67, 100, 133, 167, 200, 233, 267, 300)),
    ],
)
def test_a_run_has_about_nine_segments_and_none_before_two_epochs_after_the_warm_up(epochs, expected) -> None:
    assert rungs(epochs) == expected


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("warmup", [0, 0.5, 1, 3, 10, 1000])
def test_rungs_increase_to_the_last_epoch_and_are_evenly_spread(warmup, sparse) -> None:
    for epochs in range(1, 400):
        found = rungs(epochs, warmup, sparse=sparse)
        assert list(found) == sorted(set(found))
        assert found[-1] == epochs
        assert all(rung > ranked_from(warmup) for rung in found[:-1])
        if not sparse:
            gaps = [later - earlier for earlier, later in itertools.pairwise(found)]
            assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_a_later_warm_up_moves_the_first_rung() -> None:
    assert rungs(27, 3) == (6, 9, 12, 15, 18, 21, 24, 27)
    assert rungs(27, 40) == (27,)


def test_sparse_rungs_are_halves_of_the_run() -> None:
    assert rungs(27, sparse=True) == (3, 6, 13, 27)
    assert rungs(100, sparse=True) == (12, 25, 50, 100)
    assert rungs(2, sparse=True) == (2,)


def test_the_next_rung_lies_after_what_is_trained() -> None:
    assert [next_rung((3, 6, 27), trained) for trained in (0, 2, 3, 6, 27, 30)] == [3, 3, 6, 27, None, None]
