import numpy as np

from petskin_tune.search.freeze_thaw.candidates import NEAR, RANDOM, propose, propose_by_turns, random_point
from petskin_tune.search.freeze_thaw.gaussian_process.encoding import Encoding
from petskin_tune.study.spec import Choices, Range
from tests.support.searches import SPACE

SMALL = Encoding({"a": Choices(choices=(1, 2)), "b": Range(low=0, high=1, integer=True)})


def test_candidates_lie_inside_of_the_space_and_many_near_the_best() -> None:
    encoding = Encoding(SPACE)
    best = np.array([[0.0, 1.0, 0.5, 0.5], [1.7, 0.5, 0.5, 0.5]])  # a corner; outside of the range
    found = propose(encoding, np.empty((0, 4)), best, np.random.default_rng(0))
    assert len(found) > RANDOM + 1.5 * NEAR
    assert found.min() >= 0
    assert found.max() <= 1
    assert encoding.snapped(found).tolist() == found.tolist()
    near = np.abs(np.delete(found - best[0], 2, axis=1)).max(axis=1) < 0.3  # all but the optimizer, a choice
    assert near.sum() > NEAR / 2


def test_the_ends_of_a_range_are_tried_where_the_best_lies_near_them() -> None:
    best = np.array([[0.02, 0.98, 0.5, 0.5]])
    found = propose(Encoding(SPACE), np.empty((0, 4)), best, np.random.default_rng(0))[RANDOM:]
    assert (found[:, :2] == [0, 1]).all(axis=1).any()
    point = Encoding(SPACE).point(found[(found[:, :2] == [0, 1]).all(axis=1)][0])
    assert (point["lr0"], point["momentum"]) == (1e-5, 0.98)


def test_every_second_turn_or_so_only_random_points_compete() -> None:
    encoding, best = Encoding(SPACE), np.full((3, 4), 0.5)
    found = [len(propose_by_turns(encoding, best, best, np.random.default_rng(seed))) for seed in range(40)]
    assert 10 < sum(count <= RANDOM for count in found) < 30
    assert max(found) > RANDOM + 2 * NEAR


def test_nothing_is_proposed_twice_or_again() -> None:
    tried = SMALL.coordinates([{"a": 1, "b": 0}])
    found = propose(SMALL, tried, tried, np.random.default_rng(0))
    points = [tuple(SMALL.point(row).values()) for row in found]
    assert sorted(points) == [(1, 1), (2, 0), (2, 1)]


def test_a_space_that_was_tried_up_has_no_candidates_but_a_random_point() -> None:
    everything = SMALL.coordinates([{"a": a, "b": b} for a in (1, 2) for b in (0, 1)])
    assert propose(SMALL, everything, everything[:1], np.random.default_rng(0)).shape == (0, 2)
    assert random_point(SMALL, everything, np.random.default_rng(0)).shape == (2,)
    for _ in range(10):
        assert SMALL.point(random_point(SMALL, everything[:3], np.random.default_rng())) == {"a": 2, "b": 1}
