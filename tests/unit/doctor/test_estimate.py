"""What a session will see: the arithmetic of the study file's comments."""

from __future__ import annotations

import pytest

from petskin_tune.doctor.estimate import Measured, estimate, expected_epochs, of_the_study, suggestions
from petskin_tune.study.extent import Extent
from petskin_tune.study.spec import PrunerSpec, SamplerSpec
from tests.support.studies import a_spec

ASHA = PrunerSpec(name="asha", rungs=(3, 9), reduction_factor=3)
# YOLOv8l-seg on a T4 at 480 px: 30 ms an image, a third of it to validate.
T4 = Measured(1 / 0.030, 1 / 0.010, set_up_seconds=40.0, snapshot_seconds=2.0, snapshot_bytes=735 * 10**6)


@pytest.mark.parametrize(
    ("pruner", "epochs", "expected"),
    [
        (ASHA, 27, 3 + 6 / 3 + 18 / 9),
        (PrunerSpec(name="none"), 27, 27),
        (PrunerSpec(name="median", min_epochs=4), 25, 5 + 20 / 2),
        (PrunerSpec(name="asha", rungs=(1,), reduction_factor=2), 3, 1 + 2 / 2),
    ],
)
def test_one_trial_in_reduction_factor_passes_each_rung(pruner: PrunerSpec, epochs: int, expected: float) -> None:
    assert expected_epochs(a_spec(pruner=pruner, epochs=epochs)) == pytest.approx(expected)


def test_hyperband_lies_between_its_hardest_bracket_and_none() -> None:
    hyperband = PrunerSpec(name="hyperband", min_epochs=3, reduction_factor=3)
    hardest = expected_epochs(a_spec(pruner=ASHA, epochs=27))
    assert hardest < expected_epochs(a_spec(pruner=hyperband, epochs=27)) < 27


def test_the_shipped_study_sees_as_many_trials_in_a_session_as_its_comments_say() -> None:
    spec = a_spec(pruner=ASHA, epochs=27, snapshot_every=600.0)
    figures = estimate(spec, T4, 4000, 800)
    assert figures.epoch == pytest.approx(128.0)
    assert figures.full_trial == pytest.approx(3600, rel=0.05)
    assert 85 <= figures.trials <= 95
    assert suggestions(spec, figures, 4000, 800) == []


def test_each_suggestion_makes_room_for_twenty_trials_by_itself() -> None:
    spec = a_spec(pruner=ASHA, epochs=27, train={"imgsz": 640})
    slow = Measured(1 / 0.054, 3 / 0.054, set_up_seconds=60.0)
    figures = estimate(spec, slow, 17_000, 3_000)
    assert figures.trials < 20
    assert suggestions(spec, figures, 17_000, 3_000) == [
        "subset: {train: 10000, val: 1800}",
        "imgsz: 480 (now 640)",
        "epochs: 16 with rungs in proportion (now 27)",
    ]
    assert estimate(spec, slow, 10_000, 1_800).trials >= 20
    scale = (640 / 480) ** 2
    smaller = Measured(slow.images_per_second * scale, scale * 3 / 0.054, set_up_seconds=60.0)
    assert estimate(spec, smaller, 17_000, 3_000).trials >= 20


def test_what_cannot_be_shrunk_any_further_is_not_suggested() -> None:
    spec = a_spec(pruner=PrunerSpec(name="none"), epochs=2, train={"imgsz": 320})
    figures = estimate(spec, Measured(0.01), 100, 10)
    assert suggestions(spec, figures, 100, 10) == ["subset: {train: 20, val: 2}"]


def test_a_snapshot_costs_its_share_and_the_store_holds_two_and_the_next_beside_the_best_weights() -> None:
    measured = Measured(10.0, 30.0, snapshot_seconds=6.0, snapshot_bytes=500, weights_bytes=100)
    spec = a_spec(pruner=PrunerSpec(name="none"), epochs=10, snapshot_every=60.0, keep_weights=3)
    figures = estimate(spec, measured, 1000, 0)
    assert figures.full_trial == pytest.approx(10 * 100 * 1.1)
    assert (figures.disk, figures.store) == (3 * 500 + 2 * 100, 3 * 500 + 5 * 100)
    assert figures.written == 24 * 60 * 500


def test_frozen_trials_hold_a_snapshot_and_weights_each_and_every_segment_writes_one() -> None:
    measured = Measured(10.0, 30.0, set_up_seconds=20.0, snapshot_bytes=500, weights_bytes=100)
    sampler = SamplerSpec(name="freeze-thaw", rungs=(3, 9, 27))
    spec = a_spec(sampler=sampler, pruner=PrunerSpec(name="none"), epochs=27, snapshot_every=600.0, keep_frozen=8)
    figures = estimate(spec, measured, 1000, 0)
    assert figures.epochs_of_a_trial == pytest.approx(3 + 6 / 3 + 18 / 9)
    segments = 1 + 1 / 3 + 1 / 9
    assert figures.a_trial == pytest.approx(7 * 100 + segments * 20)
    assert figures.store == 3 * 500 + 5 * 100 + 8 * 600
    assert figures.written == pytest.approx((24 * 6 + figures.trials * segments) * 500, rel=0.001)


def test_a_study_is_told_how_long_it_takes_and_how_many_sessions_see_it() -> None:
    small = estimate(
        a_spec(pruner=PrunerSpec(name="none"), epochs=4), Measured(16.0, 64.0, set_up_seconds=5.0), 100, 40
    )
    said = of_the_study(Extent(2, 6), small)
    assert said == "this study: 4 of 6 trials left, about 2 min here; one 24-hour session sees all of it"
    large = estimate(a_spec(pruner=ASHA), T4, 4000, 800)
    assert "sessions of 24 hours" in of_the_study(Extent(0, 600), large)
    assert of_the_study(Extent(6, 6), small) == "this study: all of its 6 trials are done"
