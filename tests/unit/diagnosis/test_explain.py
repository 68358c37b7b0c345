from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from petskin_tune.diagnosis.curves import from_history, noise
from petskin_tune.errors import UsageError
from tests.support import curves as made
from tests.support.curves import BOX, MASK, arguments, diagnose_curves


def kinds(history: made.History, known: dict | None = None) -> list[str]:
    return [finding.kind for finding in diagnose_curves(history, known)]


def test_the_seed_projects_question_is_answered_a_learning_rate_not_a_local_minimum() -> None:
    (finding,) = diagnose_curves(made.seed_project(), {"optimizer": "AdamW", "lr0": 7.3e-5, "epochs": 47, "mosaic": 0})
    assert finding.kind == "stuck"
    assert finding.epoch is not None
    assert 5 <= finding.epoch <= 9
    assert finding.numbers["loss"] == pytest.approx(1.8, abs=0.02)
    assert finding.numbers["learning_rate"] == pytest.approx(7.3e-5)
    for said in (
        f"Stuck since epoch {finding.epoch}",
        "training loss stayed at 1.8",
        "learning rate of 7.3e-05",
        "It did learn before",
        "14 times below the usual 0.001",
        "a learning rate that is too low, not a local minimum",
    ):
        assert said in finding.message
    assert "Try lr0=0.00036. Three epochs are enough" in finding.advice


def test_the_same_plateau_at_a_usual_learning_rate_is_the_floor_and_more_epochs_do_not_help() -> None:
    history = made.seed_project() | {"lr/pg0": np.full(47, 1e-3)}
    (finding,) = diagnose_curves(history, {"optimizer": "AdamW", "epochs": 47, "mosaic": 0})
    assert finding.kind == "stuck"
    assert "the floor of this model on these images" in finding.message
    assert "More epochs will not help" in finding.advice


def test_the_same_plateau_at_a_huge_learning_rate_bounces() -> None:
    history = made.seed_project() | {"lr/pg0": np.full(47, 2e-2)}
    (finding,) = diagnose_curves(history, {"optimizer": "AdamW", "epochs": 47, "mosaic": 0})
    assert "20 times above the usual 0.001: it bounces" in finding.message
    assert finding.advice.startswith("Try lr0=0.004.")


def test_the_same_plateau_without_a_recorded_learning_rate_says_so_and_names_the_run_that_decides() -> None:
    history = {name: values for name, values in made.seed_project().items() if not name.startswith("lr/")}
    (finding,) = diagnose_curves(history)
    assert finding.kind == "stuck"
    assert "cannot be told" in finding.message
    assert "optimizer=AdamW with lr0=0.005 and with lr0=0.0002" in finding.advice
    (finding,) = diagnose_curves(history, {"optimizer": "SGD"})
    assert "lr0 five times higher and five times lower" in finding.advice


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 80.0])
def test_a_loss_that_is_no_number_or_grows_many_fold_has_diverged_at_that_epoch(value: float) -> None:
    (finding,) = diagnose_curves(made.diverging(at=20, value=value), arguments())
    assert (finding.kind, finding.epoch) == ("diverged", 21)
    assert "Try lr0=0.002" in finding.advice


def test_a_loss_that_explodes_and_comes_down_again_has_diverged_when_nothing_is_found_any_more() -> None:
    history = made.diverging(at=20, value=2.0)
    history["train/seg_loss"][20:24] = 177.0  # type: ignore[index]
    (finding,) = diagnose_curves(history)
    assert (finding.kind, finding.epoch) == ("diverged", 21)
    assert "nothing was found any more" in finding.message


def test_a_score_that_collapses_while_the_loss_stays_finite_has_diverged() -> None:
    history = made.healthy(0)
    history[MASK][60:] = 0.0  # type: ignore[index]
    (finding,) = diagnose_curves(history)
    assert (finding.kind, finding.epoch) == ("diverged", 61)


def test_a_single_spike_of_the_loss_that_heals_is_no_divergence() -> None:
    history = made.healthy(0)
    history["train/seg_loss"][20] = 80.0  # type: ignore[index]
    assert "diverged" not in kinds(history)


def test_one_cell_that_is_no_number_is_no_divergence() -> None:
    for name in ("train/seg_loss", MASK):
        for epoch in (20, 99):
            history = made.healthy(0)
            history[name][epoch] = np.nan  # type: ignore[index]
            assert kinds(history, arguments()) == []


def test_a_loss_that_was_no_number_once_and_is_none_in_the_end_diverged_in_the_end() -> None:
    history = made.diverging(at=60)
    history["train/seg_loss"][20] = np.nan  # type: ignore[index]
    (finding,) = diagnose_curves(history, arguments())
    assert (finding.kind, finding.epoch) == ("diverged", 61)


def collapsing_in_the_warm_up(back_at: int) -> made.History:
    history = made.healthy(0, best=0.8)
    history[MASK][0] = 0.795  # type: ignore[index]
    history[MASK][1:back_at] = 0.005  # type: ignore[index]
    return history


def test_a_score_that_collapses_in_the_warm_up_has_ten_epochs_to_come_back() -> None:
    """As a public run did: 0.795, then 0.002, and 0.842 at epoch 19."""
    history = collapsing_in_the_warm_up(back_at=50)
    assert "diverged" not in kinds(so_far(history, 10), arguments())
    assert "diverged" not in kinds(so_far(history, 10))
    assert kinds(so_far(history, 11), arguments()) == ["diverged"]
    assert kinds(so_far(history, 6), arguments(6)) == ["diverged"]


@pytest.mark.parametrize("optimizer", ["auto", "AUTO", None, ""])
def test_lr0_is_advised_together_with_an_optimizer_where_auto_would_ignore_it(optimizer: str | None) -> None:
    known = arguments(47, optimizer=optimizer, lr0=0.01, mosaic=0)
    (finding,) = diagnose_curves(made.seed_project(), known)
    assert "Try optimizer=AdamW lr0=0.00036." in finding.advice
    (finding,) = diagnose_curves(made.diverging(), arguments(optimizer=optimizer))
    assert "Try optimizer=AdamW lr0=0.001," in finding.advice
    (finding,) = diagnose_curves(made.never_learning(), arguments(20, optimizer=optimizer))
    assert "raise lr0 (try optimizer=AdamW lr0=0.001)" in finding.advice


def test_a_run_that_stands_still_near_the_top_is_not_stuck_unless_its_validation_loss_rises() -> None:
    history = made.seed_project()
    history[MASK] = np.asarray(history[MASK]) * 8
    known = {"optimizer": "AdamW", "epochs": 47, "mosaic": 0}
    assert np.mean(history[MASK][10:]) > 0.9
    assert kinds(history, known) == []
    history["val/seg_loss"] = np.asarray(history["val/seg_loss"]) * np.linspace(1, 1.2, 47)
    assert "stuck" in kinds(history, known)


ODD = (None, "abc", "auto", "", [], float("nan"), float("inf"), -3)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["epochs", "close_mosaic", "mosaic", "lr0", "optimizer"])
def test_an_argument_that_is_no_number_counts_as_unknown(name: str, odd: object) -> None:
    assert kinds(made.healthy(0), arguments(**{"epochs": 100, name: odd})) == []
    assert kinds(made.diverging(), arguments(**{"epochs": 100, name: odd})) == ["diverged"]


def test_infinite_validation_losses_of_old_validators_are_no_divergence() -> None:
    history = made.healthy(0) | {"val/box_loss": np.zeros(100), "val/seg_loss": np.full(100, np.inf)}
    assert kinds(history) == []


@pytest.mark.parametrize("score_falls", [True, False])
def test_losses_that_part_are_overfitting_since_the_epoch_at_which_they_part(score_falls: bool) -> None:
    (finding,) = diagnose_curves(made.overfitted(since=30, score_falls=score_falls), arguments())
    assert finding.kind == "overfitting"
    assert finding.epoch is not None
    assert 24 <= finding.epoch <= 40
    assert "the validation loss rose" in finding.message
    assert "Use the weights of epoch" in finding.advice


def test_a_validation_loss_that_rises_while_the_score_still_does_is_no_verdict() -> None:
    history = made.overfitted(since=30, score_falls=False)
    history[MASK] = np.asarray(history[MASK]) + 0.001 * np.arange(100)
    assert "overfitting" not in kinds(history, arguments())


def test_without_validation_losses_a_score_that_falls_far_from_its_peak_is_overfitting() -> None:
    history = {name: v for name, v in made.overfitted(since=30).items() if not name.startswith("val/")}
    assert kinds(history, arguments()) == ["overfitting"]


@pytest.mark.parametrize("level", [0.0, 0.0005])
def test_a_model_whose_loss_falls_and_that_finds_nothing_is_told_to_compare_train_and_val(level: float) -> None:
    nothing = np.abs(np.random.default_rng(0).normal(level, level, 100))
    (finding,) = diagnose_curves(made.healthy(0) | {MASK: nothing, BOX: nothing}, arguments())
    assert finding.kind == "nothing-found"
    assert "the training loss fell by" in finding.message
    assert "Compare the labels and the classes of train and val" in finding.advice


def test_a_model_from_scratch_may_find_nothing_in_its_first_epochs_and_one_that_finds_boxes_finds_something() -> None:
    nothing = np.zeros(100)
    history = made.healthy(0) | {MASK: nothing, BOX: nothing}
    assert kinds(so_far(history, 19), arguments()) == []
    assert kinds(made.healthy(0) | {MASK: nothing}, arguments()) == ["mask-worse-than-box"]


@pytest.mark.parametrize(
    ("lr", "advice"),
    [(1e-7, "10000 times below the usual 0.001: raise lr0"), (0.05, "50 times above the usual 0.001: lower lr0")],
)
def test_a_model_that_never_learnt_is_told_from_one_in_a_local_minimum(lr: float, advice: str) -> None:
    (finding,) = diagnose_curves(made.never_learning(lr=lr), {"optimizer": "AdamW"})
    assert (finding.kind, finding.epoch) == ("not-learning", 1)
    assert "does not learn, not one in a local minimum" in finding.message
    assert advice in finding.advice


def test_a_model_that_never_learnt_at_a_usual_rate_points_to_the_labels() -> None:
    (finding,) = diagnose_curves(made.never_learning(lr=1e-3), {"optimizer": "AdamW"})
    assert "petskin-tune data check" in finding.advice


def test_a_learning_rate_that_rises_to_the_end_never_warmed_up() -> None:
    (finding,) = diagnose_curves(made.never_warmed_up(), arguments(20, warmup_epochs=20))
    assert finding.kind == "never-warmed-up"
    assert "(warmup_epochs=20)" in finding.message


def test_biases_that_warm_up_from_above_do_not_hide_a_learning_rate_that_never_warmed_up() -> None:
    history = made.never_warmed_up() | {"lr/pg2": np.linspace(0.1, 9e-3, 20)}
    assert kinds(history, arguments(20)) == ["never-warmed-up"]
    assert kinds(made.healthy(0) | {"lr/pg2": np.linspace(0.1, 1e-4, 100)}, arguments()) == []


def so_far(history: made.History, epochs: int) -> made.History:
    return {name: values[:epochs] for name, values in history.items()}


@pytest.mark.parametrize("epochs", [5, 9, 20])
@pytest.mark.parametrize("make", [made.climbing, made.never_warmed_up, made.healthy])
@pytest.mark.parametrize("lr0", [9.8e-5, 0.01])
def test_a_run_that_has_not_done_all_its_epochs_is_not_judged_as_if_it_had_ended(
    make: Callable[[int], made.History], epochs: int, lr0: float
) -> None:
    history = so_far(make(0), epochs)
    history["lr/pg0"] = np.asarray(history["lr/pg0"]) * lr0 / 0.01
    assert kinds(history, arguments(100, optimizer="AdamW", lr0=lr0)) == []
    assert kinds(history, arguments(epochs, optimizer="AdamW", lr0=lr0)) != []


def test_the_end_over_which_a_score_rose_is_named_by_its_epochs() -> None:
    (finding,) = diagnose_curves(so_far(made.climbing(), 12), arguments(12))
    assert "in the last 6 of 12 epochs" in finding.message
    (finding,) = diagnose_curves(made.climbing(), arguments(40))
    assert "in the last 10 of 40 epochs" in finding.message


def test_masks_that_do_not_fit_their_boxes_are_named_with_both_scores() -> None:
    (finding,) = diagnose_curves(made.masks_off(), arguments())
    assert finding.kind == "mask-worse-than-box"
    assert "40% of it" in finding.message


def test_a_class_that_is_never_found_is_named_where_classes_are_recorded() -> None:
    history = made.healthy(0)
    history |= {f"{MASK}/papule": np.asarray(history[MASK]), f"{MASK}/ulcer": np.zeros(100)}
    (finding,) = diagnose_curves(history, arguments())
    assert finding.kind == "class-never-found"
    assert "Never found: ulcer." in finding.message


def test_a_class_of_which_nothing_is_known_is_not_called_never_found() -> None:
    history = made.healthy(0)
    history |= {f"{MASK}/papule": np.asarray(history[MASK]), f"{MASK}/ulcer": np.full(100, np.nan)}
    assert kinds(history, arguments()) == []


def test_a_run_that_still_climbs_is_told_to_go_on_and_one_that_climbs_too_slowly_to_raise_its_rate() -> None:
    assert kinds(made.climbing(), arguments(40)) == ["still-improving"]
    (finding,) = diagnose_curves(made.climbing(lr0=1e-4), arguments(40, lr0=1e-4))
    assert finding.kind == "learning-rate-too-low"
    assert "105 times below the usual 0.01" in finding.message
    assert finding.advice == "Try lr0=0.00048."


def test_a_fine_tuning_rate_that_works_is_not_called_too_low() -> None:
    """The seed project's best run used AdamW at 9.8e-5."""
    assert kinds(made.healthy(0, lr0=9.8e-5), arguments(optimizer="AdamW", lr0=9.8e-5)) == []


@pytest.mark.parametrize("length", [1, 4, 5, 7])
def test_a_run_of_a_few_epochs_gets_no_verdict_unless_it_diverged(length: int) -> None:
    history = {name: values[:length] for name, values in made.never_learning().items()}
    assert kinds(history) == []
    history["train/seg_loss"][-1] = np.nan  # type: ignore[index]
    assert kinds(history) == ["diverged"]


HEALTHY_RUNS = 400


def test_healthy_runs_as_real_ones_are_get_no_verdict() -> None:
    """Noise 0.001 to 0.023, 27 to 300 epochs, 90 % of the best at 20 to 70 % of the run, up to 5 % lost in the end."""
    rng = np.random.default_rng(0)
    wrong: list[str] = []
    for seed in range(HEALTHY_RUNS):
        epochs = int(rng.choice([27, 50, 100, 300]))
        history = made.healthy(
            seed,
            epochs=epochs,
            best=rng.uniform(0.05, 0.7),
            noise=float(np.exp(rng.uniform(np.log(0.001), np.log(0.023)))),
            reach=rng.uniform(0.2, 0.7),
            decline=rng.uniform(0.0, 0.05),
        )
        wrong += kinds(history, arguments(epochs) if seed % 2 else None)
    assert len(wrong) <= 0.02 * HEALTHY_RUNS, wrong


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (made.seed_project, "stuck"),
        (made.diverging, "diverged"),
        (made.overfitted, "overfitting"),
        (made.never_learning, "not-learning"),
        (made.never_warmed_up, "never-warmed-up"),
        (made.masks_off, "mask-worse-than-box"),
        (made.climbing, "still-improving"),
    ],
)
def test_each_illness_is_recognised_whatever_the_noise_of_the_day(make: object, kind: str) -> None:
    found = sum(kinds(make(seed)) == [kind] for seed in range(100))  # type: ignore[operator]
    assert found >= 95


def test_the_estimate_of_a_curves_noise_does_not_mind_its_trend() -> None:
    rng = np.random.default_rng(0)
    trend = 0.4 * (1 - np.exp(-np.arange(200) / 40))
    assert noise(trend + rng.normal(0, 0.007, 200)) == pytest.approx(0.007, rel=0.25)
    assert noise(trend) < 0.0005


def test_a_history_without_scores_or_epochs_is_refused() -> None:
    with pytest.raises(UsageError, match="no column"):
        from_history({"train/seg_loss": [1.0]})
    with pytest.raises(UsageError, match="at least one epoch"):
        from_history({MASK: []})


def test_a_column_that_misses_epochs_is_left_out_and_the_others_still_count() -> None:
    history = made.healthy(0)
    curves = from_history(history | {"train/cls_loss": [1.0, 2.0]})
    assert len(curves) == 100
    assert curves.train_loss is not None
    assert np.isfinite(curves.train_loss).all()


def test_a_run_without_masks_is_judged_by_its_boxes() -> None:
    history = {name: values for name, values in made.healthy(0).items() if name != MASK}
    curves = from_history(history)
    assert curves.fitness_name == "box mAP"
    assert curves.fitness[curves.best] == max(history[BOX])


@pytest.mark.parametrize("make", [made.never_learning, made.climbing, made.healthy])
@pytest.mark.parametrize("finds", [True, False])
def test_loss_columns_that_nobody_has_filled_are_no_evidence(make: Callable[[int], made.History], finds: bool) -> None:
    history = {name: np.zeros(len(v)) if "loss" in name else np.asarray(v) for name, v in make(0).items()}
    history["lr/pg0"] = np.full(len(history[MASK]), 1e-7)
    if not finds:
        history |= {MASK: np.zeros(len(history[MASK])), BOX: np.zeros(len(history[MASK]))}
    unlikely = {"not-learning", "nothing-found", "learning-rate-too-low"}
    assert not unlikely & set(kinds(history, arguments(len(history[MASK]))))  # type: ignore[arg-type]
