from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from petskin_tune import text as words
from petskin_tune.columns import width
from petskin_tune.protocol import Position
from petskin_tune.study import attributes
from petskin_tune.study.spec import Choices, PrunerSpec, SamplerSpec
from petskin_tune.views.status.collect import collect
from petskin_tune.views.status.text import render, watch
from tests.support.made_up import ELSEWHERE, GONE
from tests.support.studies import NOW, a_lease, a_spec, a_study, add


def test_status_counts_trials_by_state_against_the_target_and_names_the_best() -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.10)
    add(study, "COMPLETE", 0.13, lr0=9.8e-5)
    add(study, "PRUNED", curve={3: 0.02})
    add(study, "FAIL", failure={"kind": "data", "message": "broken"})
    status = collect(study, [], NOW)
    assert status.states == {"complete": 2, "pruned": 1, "failed": 1, "running": 0, "frozen": 0, "waiting": 0}
    assert (status.done, status.target) == (4, 6)
    assert status.best is not None
    assert (status.best.number, status.best.value) == (1, 0.13)
    text = render(status)
    assert "4 of 6 trials done (2 complete, 1 pruned, 1 failed)" in text
    assert "best: mask mAP 0.130 in trial 1: lr0=9.8e-05 optimizer=AdamW" in text


def test_a_value_that_is_not_finite_is_never_the_best() -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", float("inf"))
    add(study, "COMPLETE", 0.1)
    status = collect(study, [], NOW)
    assert status.best is not None
    assert status.best.number == 1


def test_a_running_trial_shows_worker_last_sign_epoch_durable_epoch_resumes_and_time_lost() -> None:
    study = a_study(a_spec(lease=90.0))
    trial = add(study, "RUNNING", curve={epoch: 0.01 * epoch for epoch in range(1, 13)}, seconds=7200.0, epochs=12)
    lease = a_lease(trial, Position(11, 40), expires_in=78.0, resumes=2, seconds_lost=340.0)
    (running,) = collect(study, [lease], NOW).running
    assert (running.hold, running.worker, running.last_sign) == ("training", "colab-1", 12.0)
    assert (running.epoch, running.epochs, running.value) == (12, 27, 0.12)
    assert running.durable == Position(11, 40)
    assert (running.resumes, running.seconds_lost, running.seconds_per_epoch) == (2, 340.0, 600.0)
    assert running.held_seconds == 100.0
    row = render(collect(study, [lease], NOW)).splitlines()
    table = next(line for line in row if "colab-1" in line)
    assert table.split() == ["0", "training", "12/27", "0.120", "2", "min", "2", "min", "colab-1"]


@pytest.mark.parametrize(
    ("changes", "hold"),
    [
        ({}, "training"),
        ({"identity": GONE}, "dead"),
        ({"identity": ELSEWHERE}, "training"),
        ({"expires_in": -5.0}, "silent"),
        ({"state": "released", "expires_in": -5.0}, "released"),
        ({"state": "frozen", "expires_in": -5.0}, "frozen"),
    ],
)
def test_a_lease_whose_owner_lives_died_is_silent_or_gave_it_back_is_told_apart(changes: dict, hold: str) -> None:
    study = a_study(a_spec())
    trial = add(study, "RUNNING")
    assert collect(study, [a_lease(trial, **changes)], NOW).running[0].hold == hold


def test_a_running_trial_of_ours_without_a_lease_is_unowned_and_one_of_others_is_shown_as_such() -> None:
    study = a_study(a_spec())
    add(study, "RUNNING")
    add(study, "RUNNING", ours=False)
    status = collect(study, [], NOW)
    assert [(trial.number, trial.hold) for trial in status.running] == [(0, "unowned")]
    assert status.foreign == (1,)
    assert "running, not ours and never touched: trial 1" in render(status)


@pytest.mark.parametrize(
    ("durable", "age", "held", "cost"),
    [
        (Position(12, 3), 200.0, 9000.0, 200.0),  # what was done since the snapshot became durable
        (Position(12, 3), 200.0, 50.0, 50.0),  # taken over since then
        (Position(9, 0), 200.0, 9000.0, 1800.0),  # the store has lagged behind for three epochs of 600 s
        (None, None, 9000.0, 9000.0),  # nothing is durable yet
    ],
)
def test_what_a_disconnect_would_cost_is_the_work_since_the_last_durable_snapshot(
    durable: Position | None, age: float | None, held: float, cost: float
) -> None:
    study = a_study(a_spec())
    trial = add(study, "RUNNING", curve={12: 0.1}, seconds=7200.0, epochs=12)
    status = collect(study, [a_lease(trial, durable, snapshot_age=age, held_for=held)], NOW)
    assert status.running[0].disconnect_seconds == cost
    assert f"a disconnect now costs at most about {words.duration(cost)} of training" in render(status)


def test_a_suspended_trial_costs_nothing_more_and_the_way_on_is_the_worker() -> None:
    study = a_study(a_spec())
    trial = add(study, "RUNNING", curve={12: 0.1})
    status = collect(study, [a_lease(trial, Position(12, 0), state="released", reason="suspended")], NOW)
    assert status.running[0].disconnect_seconds is None
    assert "a disconnect now costs" not in render(status)
    assert status.next_command == "tune-worker --study petskin"


def test_failures_are_counted_by_kind_also_those_told_as_pruned() -> None:
    study = a_study(a_spec())
    add(study, "PRUNED", failure={"kind": "out-of-memory", "message": "", "detail": ""})
    add(study, "PRUNED")
    add(study, "FAIL")
    status = collect(study, [], NOW)
    assert status.failures == {"out-of-memory": 1, "unknown": 1}
    assert "failures: 1 out-of-memory, 1 unknown" in render(status)


def test_what_waits_is_shown_with_its_parameters() -> None:
    study = a_study(a_spec())
    study.enqueue_trial({"lr0": 1e-4}, user_attrs={attributes.ORIGIN: "person"})
    study._storage.set_trial_system_attr(study.trials[0]._trial_id, attributes.ENQUEUED, "n")
    status = collect(study, [], NOW)
    assert status.waiting[0].params == {"lr0": 1e-4}
    assert "trial 0 (person): lr0=0.0001" in render(status)


def test_the_last_line_says_what_to_type_next() -> None:
    study = a_study(a_spec(target_trials=1))
    assert render(collect(study, [], NOW)).splitlines()[-1].endswith("type: tune-worker --study petskin")
    trial = add(study, "RUNNING")
    at_work = render(collect(study, [a_lease(trial)], NOW)).splitlines()[-1]
    assert at_work == "1 worker at work; type: petskin-tune status --study petskin --watch"
    study = a_study(a_spec(target_trials=1))
    add(study, "COMPLETE", 0.1)
    last = render(collect(study, [], NOW)).splitlines()[-1]
    assert last == "the study is done; type: petskin-tune best --study petskin --yaml best.yaml"


def test_what_to_type_next_names_the_home_that_was_typed() -> None:
    status = collect(a_study(a_spec()), [], NOW, options="--home /content/drive/MyDrive/p")
    assert status.next_command == "tune-worker --study petskin --home /content/drive/MyDrive/p"


def test_a_raised_target_makes_a_finished_study_unfinished() -> None:
    study = a_study(a_spec(target_trials=1))
    add(study, "COMPLETE", 0.1)
    study.set_user_attr(attributes.SPEC, a_spec(target_trials=2).model_dump(mode="json"))
    assert collect(study, [], NOW).next_command == "tune-worker --study petskin"


def test_the_newest_note_of_a_running_trial_is_shown() -> None:
    study = a_study(a_spec())
    trial = add(study, "RUNNING", notes=["old", "snapshots every 15 min: writing one takes 18 s"])
    text = render(collect(study, [a_lease(trial)], NOW))
    assert "trial 0: snapshots every 15 min: writing one takes 18 s" in text


def test_status_as_json_holds_everything_and_nothing_that_json_cannot_say() -> None:
    study = a_study(a_spec())
    trial = add(study, "RUNNING", curve={1: float("nan"), 2: 0.1})
    add(study, "COMPLETE", 0.2)
    status = collect(study, [a_lease(trial, Position(1, 0), expires_in=float("inf"))], NOW)
    document = json.loads(json.dumps(status.to_json(), allow_nan=False))
    assert document["best"]["value"] == 0.2
    assert document["running"][0]["durable"] == {"epoch": 1, "batch": 0}


def test_a_study_that_petskin_tune_did_not_make_is_still_read() -> None:
    study = a_study()
    add(study, "COMPLETE", 0.1, ours=False)
    status = collect(study, [], NOW)
    assert status.target is None
    assert "1 complete" in render(status)


def test_reading_a_status_writes_nothing() -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1)
    before = repr((study.trials, study.user_attrs, study._storage.get_study_system_attrs(study._study_id)))
    render(collect(study, [], NOW))
    assert repr((study.trials, study.user_attrs, study._storage.get_study_system_attrs(study._study_id))) == before


def test_watch_shows_the_status_again_and_again_until_ctrl_c() -> None:
    study = a_study(a_spec())
    stream, slept = io.StringIO(), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        add(study, "COMPLETE", 0.1)
        if len(slept) == 3:
            raise KeyboardInterrupt

    watch(lambda: collect(study, [], NOW), stream, sleep=sleep)
    assert slept == [5.0, 5.0, 5.0]
    assert [f"{count} of 6" in stream.getvalue() for count in (0, 1, 2)] == [True, True, True]


def test_a_study_that_reached_stop_at_is_done_and_the_command_names_its_home() -> None:
    study = a_study(a_spec(stop_at=0.12))
    add(study, "COMPLETE", 0.13)
    status = collect(study, [], NOW, options="--home /drive")
    assert status.next_reason == "the study is done"
    assert status.next_command == f"petskin-tune best --study {study.study_name} --home /drive --yaml best.yaml"
    undone = collect(a_study(a_spec(stop_at=0.14)), [], NOW, options="--home /drive")
    assert undone.next_command.startswith("tune-worker --study ")
    assert undone.next_command.endswith(" --home /drive")


MISMATCH = "size mismatch for model.22.cv3.0.0.conv.weight: torch.Size([80, 64, 3, 3]) and torch.Size([64, 64, 3, 3])"
BETWEEN = "  in between\n" * 500
TRACEBACK = f"Traceback (most recent call last):\n{BETWEEN}RuntimeError: Error(s) in loading:\n\t{MISMATCH}\n"
FAILURE = {
    "kind": "crashed",
    "message": f"RuntimeError: Error(s) in loading state_dict for SegmentationModel: {MISMATCH}",
    "detail": TRACEBACK,
    "log": "/home/me/runs/work/trials/1738c171db37-000001/train.log",
}


def test_a_failure_is_shown_with_the_end_of_what_was_recorded_and_where_all_of_it_is() -> None:
    study = a_study(a_spec())
    add(study, "COMPLETE", 0.1)
    add(study, "FAIL", failure=FAILURE)
    text = render(collect(study, [], NOW, options="--home there"))
    said = " ".join(text.split())
    assert f"trial 1 failed: crashed, {FAILURE['message']}" in said
    assert "| size mismatch for model.22" in said
    assert "all of it: petskin-tune diagnose --study petskin --home there --trial 1" in said
    assert text.count("in between") == 0


def test_a_trial_that_was_given_back_for_a_failure_is_shown_with_it_until_it_trains_again() -> None:
    study = a_study(a_spec())
    trial = add(study, "RUNNING", given_back=FAILURE)
    lease = a_lease(trial, Position(3, 0), state="released", reason=f"crashed: {FAILURE['message']}")
    status = collect(study, [lease], NOW)
    assert [(trouble.number, trouble.state) for trouble in status.troubles] == [(0, "given back")]
    assert f"trial 0 was given back: crashed, {FAILURE['message']}" in " ".join(render(status).split())
    again = a_study(a_spec())
    trial = add(again, "RUNNING", given_back=None)
    assert collect(again, [a_lease(trial)], NOW).troubles == ()


def test_however_long_a_reason_is_the_status_stays_narrow_and_what_it_keeps_for_programs_bounded() -> None:
    study = a_study(a_spec())
    for _ in range(6):
        add(study, "FAIL", failure=FAILURE)
    trial = add(study, "RUNNING", curve={3: 0.1})
    lease = a_lease(trial, Position(3, 1), state="released", reason="x y " * 100)
    status = collect(study, [lease], NOW)
    text = render(status)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "was given back: x y x y" in text
    assert text.count(" failed: crashed") == 3
    assert len(json.dumps(status.to_json())) < 20_000


FREEZE_THAW: dict[str, Any] = {
    "sampler": SamplerSpec(name="freeze-thaw", rungs=(9, 18, 27)),
    "pruner": PrunerSpec(name="none"),
    "budget": 54,
    "target_trials": 6,
}


def test_a_study_with_a_budget_says_how_much_of_it_is_trained_and_which_trials_are_frozen() -> None:
    study = a_study(a_spec(**FREEZE_THAW))
    add(study, "COMPLETE", 0.2, curve=dict.fromkeys(range(1, 28), 0.2))
    frozen = add(study, "RUNNING", curve=dict.fromkeys(range(1, 10), 0.1))
    lease = a_lease(frozen, Position(9, 0), state="frozen", expires_in=-5.0)
    status = collect(study, [lease], NOW)
    assert (status.extent.done, status.extent.of, status.extent.unit) == (36, 54, "epoch")
    text = render(status)
    assert "36 of 54 epochs trained (1 complete, 1 frozen)" in text
    assert re.search(r"^ +1 +frozen +", text, re.MULTILINE)
    assert "frozen: kept for later while the search trains others" in text
    assert status.next_command.startswith("tune-worker")


def test_a_study_whose_budget_is_used_up_is_done() -> None:
    study = a_study(a_spec(**FREEZE_THAW))
    for _ in range(2):
        add(study, "COMPLETE", 0.2, curve=dict.fromkeys(range(1, 28), 0.2))
    assert collect(study, [], NOW).next_command.startswith("petskin-tune best")


def test_a_study_that_has_tried_every_point_is_done_unless_one_can_go_on_or_a_person_wants_more() -> None:
    two = {"optimizer": Choices(choices=("SGD", "AdamW"))}
    study = a_study(a_spec(**FREEZE_THAW | {"budget": 1000}, search=two))
    leases = [a_lease(add(study, "COMPLETE", 0.2, optimizer="SGD"), state="done")]
    assert collect(study, leases, NOW).next_command.startswith("tune-worker")
    leases.append(a_lease(add(study, "PRUNED", 0.2, optimizer="AdamW"), state="done"))
    assert collect(study, leases, NOW).next_reason == "the study is done"
    study.enqueue_trial({"optimizer": "SGD"})
    assert collect(study, leases, NOW).next_command.startswith("tune-worker")


def test_a_study_whose_worker_died_is_not_at_work_and_says_what_to_type() -> None:
    study = a_study(a_spec())
    trial = add(study, "RUNNING", curve={12: 0.1})
    status = collect(study, [a_lease(trial, identity=GONE)], NOW)
    assert (status.workers, status.running[0].disconnect_seconds) == (0, None)
    text = render(status)
    assert "(1 worker died)" in text
    assert text.splitlines()[-1] == "nobody is at work and work is left; type: tune-worker --study petskin"


def test_the_best_is_held_against_the_defaults() -> None:
    study = a_study(a_spec(start=("defaults",)))
    add(study, "COMPLETE", 0.119, origin="start point")
    assert "these are the defaults" in render(collect(study, [], NOW))
    add(study, "COMPLETE", 0.131)
    status = collect(study, [], NOW)
    assert status.defaults is not None
    assert status.defaults.gain == pytest.approx(0.012)
    assert "0.012 above the defaults (trial 0: 0.119)" in render(status)


def test_what_was_trained_spared_and_lost_is_summed_up_and_the_end_is_foretold() -> None:
    study = a_study(a_spec(target_trials=6))
    add(study, "COMPLETE", 0.1, curve=dict.fromkeys(range(1, 28), 0.1), seconds=2700.0)
    pruned = add(study, "PRUNED", 0.02, curve=dict.fromkeys(range(1, 10), 0.02), seconds=900.0)
    trial = add(study, "RUNNING", curve=dict.fromkeys(range(1, 10), 0.1), seconds=900.0)
    leases = [a_lease(pruned, state="done", seconds_lost=340.0), a_lease(trial)]
    status = collect(study, leases, NOW)
    assert (status.spent.trained, status.spent.saved, status.spent.lost) == (4500.0, 1800.0, 340.0)
    assert status.seconds_left == 4 * 1800.0 - 900.0
    text = render(status)
    assert "trained: 75 min" not in text
    assert "trained: 1 h 15 min; saved by pruning: 30 min; lost to disconnects: 6 min" in text
    assert "left: about 1 h 45 min at this pace, until " in text
    nobody = collect(study, leases[:1], NOW)
    assert nobody.seconds_left == status.seconds_left
    assert "for one worker at the pace so far" in render(nobody)
    two = collect(study, [*leases, a_lease(add(study, "RUNNING"))], NOW)
    assert two.seconds_left == status.seconds_left / 2


def test_a_studys_budget_of_epochs_ends_at_the_pace_of_its_epochs() -> None:
    study = a_study(a_spec(**FREEZE_THAW))
    frozen = add(study, "RUNNING", curve=dict.fromkeys(range(1, 10), 0.1), seconds=900.0)
    status = collect(study, [a_lease(frozen, state="frozen", expires_in=-5.0)], NOW)
    assert status.seconds_left == (54 - 9) * 100.0
    assert status.spent.saved == 18 * 100.0
    assert "saved by pruning and freezing: 30 min" in render(status)


def test_a_studys_last_run_has_its_time_too_and_is_told_of() -> None:
    study = a_study(a_spec(**FREEZE_THAW))
    add(study, "PRUNED", 0.1, curve=dict.fromkeys(range(1, 46), 0.1), seconds=4500.0)
    last = add(study, "RUNNING", curve=dict.fromkeys(range(1, 13), 0.1), seconds=1200.0)
    status = collect(study, [a_lease(last)], NOW)
    assert status.seconds_left == (27 - 12) * 100.0
    text = render(status)
    assert "study petskin: all 54 epochs and 3 more trained (1 pruned, 1 running)" in text
    assert f"the budget is used up; trial {last.number} is trained to the end" in text
    frozen = collect(study, [a_lease(last, state="frozen", expires_in=-5.0)], NOW)
    assert "the budget is used up" not in render(frozen)


def test_whatever_names_and_numbers_a_study_has_its_status_takes_80_columns() -> None:
    long = "반려견-피부-질환-" * 6
    study = a_study(a_spec())
    study.set_user_attr(attributes.SPEC, a_spec(study="petskin").model_dump(mode="json"))
    for state in ("RUNNING", "RUNNING", "RUNNING", "RUNNING", "COMPLETE"):
        add(study, state, 0.2 if state == "COMPLETE" else None, curve={27: 0.1}, seconds=1e8, notes=["노트 " * 80])
    trials = study.get_trials(deepcopy=False)
    leases = [
        a_lease(trials[0], worker=long, seconds_lost=1e8, resumes=10**6, held_for=1e9),
        a_lease(trials[1], worker="host-of-a-cluster" * 10, identity=GONE),
        a_lease(trials[2], state="released", reason="이유 " * 100),
        a_lease(trials[3], state="frozen", worker="\x1b[2J"),
    ]
    text = render(
        collect(study, leases, NOW, options="--home '/content/drive/MyDrive/my home' --checkpoints s3://b/" + "c" * 40)
    )
    wide = [line for line in text.splitlines() if width(line) > 80]
    assert wide == []
    assert "--home '/content/drive/MyDrive/my home'" in text
    assert " \\\n" in text


def test_of_many_frozen_and_waiting_trials_only_some_are_listed() -> None:
    study = a_study(a_spec(**FREEZE_THAW))
    frozen = [add(study, "RUNNING", curve={9: 0.01 * number}) for number in range(30)]
    for _ in range(30):
        study.enqueue_trial({"lr0": 1e-4})
    leases = [a_lease(trial, state="frozen", expires_in=-5.0) for trial in frozen]
    text = render(collect(study, leases, NOW))
    assert len(text.splitlines()) < 24
    assert "26 more: petskin-tune trials --study petskin --state frozen" in text
    assert "26 more: petskin-tune trials --study petskin --state waiting" in text
    assert re.search(r"^ +29 +frozen +", text, re.MULTILINE), "the best of them are shown"


def test_watch_ends_when_the_study_does_and_tells_nobody_to_watch() -> None:
    study = a_study(a_spec(target_trials=2))
    trial = add(study, "RUNNING")
    shown = io.StringIO()

    def sleep(_: float) -> None:
        study.tell(0, 0.1)
        add(study, "COMPLETE", 0.2)

    watch(lambda: collect(study, [a_lease(trial)], NOW), shown, sleep=sleep)
    assert "--watch" not in shown.getvalue()
    assert shown.getvalue().splitlines()[-1].startswith("the study is done; type: petskin-tune best")


def test_json_can_be_watched_too() -> None:
    study = a_study(a_spec(target_trials=1))
    add(study, "COMPLETE", 0.1)
    shown = io.StringIO()
    watch(lambda: collect(study, [], NOW), shown, show=lambda status: json.dumps(status.to_json()) + "\n")
    assert json.loads(shown.getvalue())["is_done"] is True


def test_a_study_that_stop_when_has_ended_is_done() -> None:
    freezing = {"sampler": SamplerSpec(name="freeze-thaw", rungs=(3, 9)), "pruner": PrunerSpec(name="none")}
    study = a_study(a_spec(**freezing, budget=100, stop_when=0.05))
    add(study, "COMPLETE", 0.3, curve={1: 0.3})
    add(study, "PRUNED", 0.1, curve={1: 0.1})
    assert not collect(study, [], NOW).is_done
    study.set_user_attr(attributes.RECOMMENDED, {"trial": 0, "ended": 2, "reason": "the largest expected fitness"})
    shown = collect(study, [], NOW)
    assert shown.is_done
    assert shown.seconds_left is None
    assert shown.next_command.startswith("petskin-tune best")
    study.set_user_attr(attributes.SPEC, a_spec(**freezing, budget=100).model_dump(mode="json"))
    assert not collect(study, [], NOW).is_done, "a person has taken stop_when back"


def test_a_study_whose_trials_all_failed_does_not_name_its_best() -> None:
    study = a_study(a_spec(target_trials=1))
    add(study, "FAIL")
    shown = collect(study, [], NOW)
    assert shown.is_done
    assert shown.next_command == "petskin-tune diagnose --study petskin"


def test_an_end_beyond_all_calendars_is_unknown() -> None:
    assert words.clock(1e15, NOW) == "unknown"
