"""Each way a training can fail, provoked for real: it is told by its name, and nothing good is lost to it."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ultralytics.nn.tasks import SegmentationModel

from petskin_tune import faults
from petskin_tune.datasets.last_batch import last_batch_fault
from petskin_tune.protocol import (
    Declined,
    EpochDone,
    Failed,
    Finished,
    Note,
    Position,
    SnapshotWritten,
    Started,
    Stop,
    Suspend,
    Suspended,
)
from petskin_tune.training import guards, micro_batches
from petskin_tune.training.attempts import run
from petskin_tune.training.snapshots import file as snapshot
from petskin_tune.training.snapshots import state, weights
from petskin_tune.training.snapshots.state import Decisions
from petskin_tune.training.trainer import ResumableTrainer
from petskin_tune.training.trial_trainer import TrialTrainer
from tests.support import training as helpers
from tests.support.provocations import memory_for, poisoned_at


@pytest.fixture
def job(root, request):
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return helpers.job(root, name, arguments={"epochs": 3})


def train(job, react=lambda event: None):
    recorder = helpers.Recorder(react)
    recorder.send(run(job, recorder))
    return recorder.events


def of_type(events, kind):
    return [event for event in events if isinstance(event, kind)]


def assert_told_once(events, epochs):
    assert [event.epoch for event in of_type(events, EpochDone)] == list(range(1, epochs + 1))


# ---- non-finite losses ----------------------------------------------------------------------------------------------


@pytest.fixture
def batches_begun(monkeypatch):
    """Record (epoch, batch, whether its loss is finite) of every batch."""
    begun = []
    original = ResumableTrainer._accumulate_gradients

    def spy(self, batch, index):
        original(self, batch, index)
        begun.append((self.epoch, index, bool(self.loss.isfinite())))

    monkeypatch.setattr(ResumableTrainer, "_accumulate_gradients", spy)
    return begun


def test_a_learning_rate_of_a_million_ends_the_trial_within_two_batches_of_the_first_bad_loss(
    job, batches_begun, monkeypatch
):
    def a_million(self, **_):
        for group in self.optimizer.param_groups:
            group["lr"] = 1e6

    monkeypatch.setattr(ResumableTrainer, "_set_learning_rate", a_million)
    diverging = {"optimizer": "SGD", "lr0": 1.0, "warmup_epochs": 0, "nbs": 8}
    job = replace(job, arguments={**job.arguments, **diverging}, snapshot_every=helpers.EVERY_BATCH)
    events = train(job)
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "diverged"
    assert "not finite in epoch 1" in events[-1].message
    assert not of_type(events, EpochDone)
    bad = [place for place, (_, _, finite) in enumerate(batches_begun) if not finite]
    assert bad, "the learning rate did no harm"
    assert len(batches_begun) - bad[0] <= 2


def test_a_snapshot_is_never_written_from_a_poisoned_state(job, monkeypatch):
    """The weights turn into NaN where no loss shows it: after the last batch before the snapshot."""
    original = ResumableTrainer._check_state

    def poison(self):
        next(self.model.parameters()).data[0] = math.nan
        original(self)

    monkeypatch.setattr(ResumableTrainer, "_check_state", poison)
    events = train(job)
    assert events[-1].kind == "diverged"
    assert not of_type(events, SnapshotWritten)


@pytest.fixture
def amp(monkeypatch):
    """A CPU that says it can train in mixed precision."""
    monkeypatch.setattr(TrialTrainer, "_mixed_precision_available", lambda self: True)


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_under_amp_a_nan_sends_the_training_back_to_its_last_good_state_and_on_in_fp32(job, amp, monkeypatch, every):
    job = replace(job, arguments={**job.arguments, "amp": True}, snapshot_every=every)
    poison = poisoned_at(monkeypatch, epoch=1, batch=2, precision="amp")
    events = train(job)
    assert poison.fired == 1
    assert isinstance(events[-1], Finished), events[-1]
    (note,) = [event for event in of_type(events, Note) if event.key == "precision"]
    assert "fp32 from now on" in note.message
    assert_told_once(events, 3)
    assert len(of_type(events, Started)) == 1
    last = snapshot.read(Path(of_type(events, SnapshotWritten)[-1].path))
    assert last["decisions"]["precision"] == "fp32"
    assert all(tensor.isfinite().all() for tensor in last["ema"].values())


def test_a_resumed_training_does_not_decide_again(job, amp, monkeypatch):
    job = replace(job, arguments={**job.arguments, "amp": True})
    poisoned_at(monkeypatch, epoch=0, batch=2, precision="amp")
    events = train(job, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)
    assert isinstance(events[-1], Suspended)
    events = train(replace(job, snapshot=events[-1].snapshot.path))
    assert any("fp32" in note for note in events[0].notes)
    assert isinstance(events[-1], Finished)
    assert not [event for event in of_type(events, Note) if event.key == "precision"]


def test_a_nan_in_fp32_ends_the_trial(job, monkeypatch):
    poison = poisoned_at(monkeypatch, epoch=1, batch=2, precision="fp32")
    events = train(job)
    assert poison.fired == 1
    assert events[-1].kind == "diverged"
    assert "epoch 2, batch 3" in events[-1].message
    assert_told_once(events, 1)


# ---- out of memory --------------------------------------------------------------------------------------------------


def test_out_of_memory_splits_the_batch_and_keeps_its_effective_size(job, monkeypatch):
    memory = memory_for(monkeypatch, images=3)
    events = train(job)
    assert memory.fired == 2, "8 and 4 images do not fit, 2 do"
    assert isinstance(events[-1], Finished), events[-1]
    assert helpers.notes(events) == [
        "micro-batches of 4 after out of memory",
        "micro-batches of 2 after out of memory",
    ]
    last = snapshot.read(Path(of_type(events, SnapshotWritten)[-1].path))
    assert last["decisions"]["micro_batch"] == 2
    assert of_type(events, Started)[0].batch == 8
    assert_told_once(events, 3)
    memory_for(monkeypatch, images=8)
    events = train(replace(job, run_folder=job.run_folder + "-whole"))
    whole = snapshot.read(Path(of_type(events, SnapshotWritten)[-1].path))
    assert (last["last_opt_step"], last["ema_updates"]) == (whole["last_opt_step"], whole["ema_updates"])


@pytest.mark.slow
def test_a_training_in_micro_batches_resumes_exactly(job, monkeypatch):
    memory_for(monkeypatch, images=3)
    left_alone = train(job)
    other = replace(job, run_folder=job.run_folder + "-suspended")
    first = train(other, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)
    second = train(replace(other, snapshot=first[-1].snapshot.path))
    assert isinstance(second[-1], Finished)
    assert helpers.differences(helpers.final_state(job.run_folder), helpers.final_state(other.run_folder)) == []
    assert of_type(left_alone, EpochDone)[-1].metrics == of_type(second, EpochDone)[-1].metrics


def test_out_of_memory_in_mid_training_repeats_no_epoch_that_was_told(job, monkeypatch):
    monkeypatch.setattr(ResumableTrainer, "_may_fall_back", lambda self: True)
    memory = memory_for(monkeypatch, images=8)

    def shrink(event):
        if isinstance(event, EpochDone) and event.epoch == 2:
            monkeypatch.setattr(SegmentationModel, "forward", SegmentationModel.forward)
            memory_for(monkeypatch, images=4)

    events = train(replace(job, snapshot_every=1e9), react=shrink)
    assert memory.fired == 0
    assert isinstance(events[-1], Finished), events[-1]
    assert len(helpers.notes(events)) == 1
    assert_told_once(events, 3)


def test_out_of_memory_in_validation_splits_its_batches_and_changes_no_metric(job, monkeypatch):
    expected = train(job)
    memory = memory_for(monkeypatch, images=15, training_only=False)
    events = train(replace(job, run_folder=job.run_folder + "-split"))
    assert memory.fired == 1
    assert helpers.notes(events) == ["validation in batches of 8 after out of memory"]
    for alone, split in zip(of_type(expected, EpochDone), of_type(events, EpochDone), strict=True):
        assert split.fitness == pytest.approx(alone.fitness, abs=1e-3)


def test_out_of_memory_ends_the_trial_where_the_study_wants_it(job, monkeypatch):
    memory_for(monkeypatch, images=3)
    events = train(replace(job, on_oom="prune"))
    assert events[-1] == Failed("out-of-memory", events[-1].message, events[-1].detail)
    assert "Tried to allocate 2.00 GiB" in events[-1].message


def test_out_of_memory_with_one_image_ends_the_trial(job, monkeypatch):
    memory_for(monkeypatch, images=0)
    assert train(job)[-1].kind == "out-of-memory"


@pytest.mark.parametrize("overlap_mask", [True, False])
def test_the_dry_step_leaves_no_trace(job, overlap_mask):
    arguments = {**job.arguments, "overlap_mask": overlap_mask, "multi_scale": 0.5}
    setup = TrialTrainer(replace(job, arguments=arguments), Decisions())
    setup._setup_train()
    before = state._to_cpu(setup.model.state_dict())
    setup.dry_step()
    assert helpers.differences(before, setup.model.state_dict()) == []
    assert all(parameter.grad is None for parameter in setup.model.parameters())
    assert setup.optimizer.state_dict()["state"] == {}


def test_out_of_memory_where_others_hold_the_memory_is_the_machines_once_nothing_is_left_to_split(job, monkeypatch):
    memory = memory_for(monkeypatch, images=0)
    monkeypatch.setattr(guards, "crowded_out", lambda device: "other processes hold about 12 GB of the GPU's 15 GB")
    last = train(job)[-1]
    assert memory.fired > 1
    assert last.kind == "machine"
    assert "other processes hold about 12 GB" in last.message


def test_what_fits_in_parts_is_trained_in_parts_whoever_holds_the_rest(job, monkeypatch):
    memory_for(monkeypatch, images=4)
    monkeypatch.setattr(guards, "crowded_out", lambda device: "other processes hold about 12 GB of the GPU's 15 GB")
    assert isinstance(train(job)[-1], Finished)


def test_a_device_on_which_not_even_the_set_up_fits_is_the_machines_fault(job, monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(guards, "check_device", refuse)
    assert train(job)[-1].kind == "machine"


def test_a_resumed_training_that_cannot_be_set_up_here_is_the_machines_fault(job, monkeypatch):
    first = train(job, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)

    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(state.TrainingState, "restore", refuse)
    last = train(replace(job, snapshot=first[-1].snapshot.path))[-1]
    assert (last.kind, "does not fit here" in last.message) == ("machine", True)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_dry_step_has_images_with_the_channels_of_the_data_set(job, channels):
    if channels == 1:
        data = Path(job.arguments["data"]) if "data" in job.arguments else Path(job.data)
        grey = data.with_name("grey.yaml")
        grey.write_text(data.read_text() + "channels: 1\n")
        job = replace(job, data=str(grey))
    setup = TrialTrainer(job, Decisions())
    setup._setup_train()
    assert setup.largest_batch()["img"].shape[1] == channels
    setup.dry_step()


def test_a_decision_for_bf16_holds_as_fp32_on_a_device_without_it_and_is_noted(job):
    setup = TrialTrainer(job, Decisions(precision="bf16"))
    setup._setup_train()
    assert (setup.precision, setup.amp, setup.decisions.precision) == ("fp32", False, "bf16")
    assert any(note.startswith("fp32 here: ") for note in setup.notes)


def test_what_is_trained_in_bf16_is_not_validated_in_fp16(job, monkeypatch):
    monkeypatch.setattr(TrialTrainer, "has_bfloat16", lambda self: True)
    setup = TrialTrainer(job, Decisions(precision="bf16"))
    setup._setup_train()
    assert (setup.precision, setup.amp) == ("bf16", False)


def test_the_dry_step_meets_the_largest_input(job, monkeypatch):
    setup = TrialTrainer(replace(job, arguments={**job.arguments, "multi_scale": 0.5}), Decisions())
    setup._setup_train()
    largest = setup.largest_batch()["img"].shape
    assert largest[0] == 8
    sides = {setup.preprocess_batch({"img": torch.zeros(1, 3, 64, 64)})["img"].shape[-1] for _ in range(200)}
    assert largest[-1] == max(sides)
    memory_for(monkeypatch, images=7)
    with pytest.raises(torch.OutOfMemoryError):
        setup.dry_step()
    assert all(parameter.grad is None for parameter in setup.model.parameters())


@pytest.mark.parametrize("overlap_mask", [True, False])
def test_the_parts_of_a_batch_hold_each_image_with_its_objects(job, overlap_mask):
    setup = TrialTrainer(replace(job, arguments={**job.arguments, "overlap_mask": overlap_mask}), Decisions())
    setup._setup_train()
    batch = next(iter(setup.train_loader))
    parts = list(micro_batches.split(batch, 3, overlap_mask=overlap_mask))
    assert [images for images, _ in parts] == [3, 3, 2]
    for key in ("img", "masks", "sem_masks", "cls", "bboxes"):
        assert torch.equal(torch.cat([part[key] for _, part in parts]), batch[key]), key
    restored = torch.cat([part["batch_idx"] + 3 * number for number, (_, part) in enumerate(parts)])
    assert torch.equal(restored, batch["batch_idx"])
    assert [file for _, part in parts for file in part["im_file"]] == list(batch["im_file"])


# ---- bad data -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_data(root, job):
    """The job on a data set of its own, which may be damaged."""
    folder = Path(job.run_folder).with_suffix(".data")
    shutil.copytree(helpers.data(root).parent, folder)
    yaml = folder / "data.yaml"
    yaml.write_text(yaml.read_text().replace(str(helpers.data(root).parent), str(folder)))
    return replace(job, data=str(yaml)), sorted(folder.glob("**/train/*.bmp"))


def test_an_unreadable_image_is_named_before_training_starts(own_data):
    job, images = own_data
    images[7].write_bytes(b"")
    events = train(job)
    assert events[-1].kind == "data"
    assert str(images[7]) in events[-1].message
    assert not of_type(events, Started)


@pytest.mark.parametrize("processes", [0, 1])
def test_an_image_that_vanishes_during_training_is_named(own_data, monkeypatch, processes):
    monkeypatch.setattr("petskin_tune.training.trial_trainer.image_cache_bytes", lambda: 0)
    job, images = own_data

    def vanish(event):
        if isinstance(event, EpochDone):
            images[7].unlink(missing_ok=True)

    events = train(replace(job, workers=processes), react=vanish)
    assert isinstance(events[-1], Failed), events[-1]
    assert events[-1].kind == "data"
    assert events[-1].message == f"{images[7]}: the image cannot be read"


def test_a_bad_label_is_named(own_data):
    job, images = own_data
    label = Path(str(images[3]).replace("/images/", "/labels/")).with_suffix(".txt")
    label.write_text("9 0.1 0.1 0.9 0.1 0.9 0.9\n")
    events = train(job)
    assert events[-1].kind == "data"
    assert f"{label}, line 1: class 9" in events[-1].message


@pytest.mark.parametrize(
    ("yaml", "named"),
    [
        ("train: images/train\nval: images/nowhere\nnames: {0: papule}\n", "images/nowhere"),
        ("train: images/nowhere\nval: images/val\nnames: {0: papule}\n", "images/nowhere"),
        ("train: images/train\nval: images/val\n", "names"),
        ("train: [unclosed\n", "data.yaml"),
        (None, "data.yaml"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_named(own_data, yaml, named):
    job, _ = own_data
    Path(job.data).unlink()
    if yaml is not None:
        Path(job.data).write_text(yaml)
    (event,) = train(job)
    assert (event.kind, "\n" in event.message) == ("data", False)
    assert named in event.message


def test_a_download_entry_of_a_data_set_is_never_executed(own_data, tmp_path):
    job, _ = own_data
    trap = tmp_path / "trap"
    lines = ["train: images/train", "val: images/nowhere", "names: {0: papule}", f"download: open({str(trap)!r}, 'w')"]
    Path(job.data).write_text("\n".join(lines))
    (event,) = train(job)
    assert event.kind == "data"
    assert not trap.exists()


# ---- what was asked -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("lr0", 1e6), ("lr", 0.01), ("mosaic", "often")])
def test_an_argument_that_ultralytics_does_not_take_is_refused_by_name(job, name, value):
    (event,) = train(replace(job, arguments={**job.arguments, name: value}))
    assert event.kind == "refused"
    assert name in event.message
    assert "\n" not in event.message


def test_a_last_batch_of_one_image_is_refused_where_batch_norm_has_one_value_of_it(job):
    (event,) = train(replace(job, arguments={**job.arguments, "imgsz": 32, "batch": 47}))
    assert event == Failed("refused", str(last_batch_fault(48, 47, 32)))
    assert "(`batch` 47, 48 to train on)" in event.message


def test_an_argument_changed_behind_our_back_is_refused(job, monkeypatch):
    original = TrialTrainer._build_train_pipeline

    def halve(self):
        self.args.batch = self.batch_size = self.batch_size // 2
        original(self)

    monkeypatch.setattr(TrialTrainer, "_build_train_pipeline", halve)
    events = train(job)
    assert events == [Failed("refused", "batch=8 was asked for, 4 would be run")]


def test_an_optimizer_changed_behind_our_back_is_refused(job, monkeypatch):
    original = TrialTrainer.build_optimizer
    monkeypatch.setattr(
        TrialTrainer, "build_optimizer", lambda self, *args, **options: original(self, *args, **{**options, "lr": 0.5})
    )
    events = train(job)
    assert events[-1].kind == "refused"
    assert "learning rate" in events[-1].message


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "MuSGD", "adamw"])
def test_no_optimizer_that_is_what_was_asked_is_refused(job, optimizer):
    TrialTrainer(replace(job, arguments={**job.arguments, "optimizer": optimizer}), Decisions())._setup_train()


def test_what_optimizer_auto_chooses_is_told(job):
    setup = TrialTrainer(replace(job, arguments={**job.arguments, "optimizer": "auto"}), Decisions())
    setup._setup_train()
    assert any("optimizer auto chose it" in note for note in setup.notes)


# ---- other machines and other snapshots -----------------------------------------------------------------------------


@pytest.fixture
def suspended(job):
    events = train(job, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)
    return replace(job, snapshot=events[-1].snapshot.path)


def test_a_damaged_snapshot_is_declined(suspended):
    path = Path(suspended.snapshot)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (event,) = train(suspended)
    assert isinstance(event, Declined)
    assert event.reason == "damaged-snapshot"
    assert path.name in event.message


def test_a_snapshot_of_another_trial_is_declined(suspended):
    (event,) = train(replace(suspended, identity={**suspended.identity, "trial": "1"}))
    assert (event.reason, event.message) == (
        "foreign-snapshot",
        "the snapshot is of trial '0', this trial's is '1'",
    )


def test_a_snapshot_of_other_arguments_is_declined(suspended):
    (event,) = train(replace(suspended, arguments={**suspended.arguments, "lr0": 0.5}))
    assert event.reason == "foreign-snapshot"
    assert "argument lr0" in event.message


def test_the_thread_count_of_the_first_run_is_taken_over(job):
    before = torch.get_num_threads()
    try:
        machine = {**TrialTrainer(job, Decisions()).machine, "threads": 2}
        assert machine["threads"] != TrialTrainer(job, Decisions()).machine["threads"]
        setup = TrialTrainer(replace(job, threads=None, recorded_machine=machine), Decisions())
        assert setup.machine["threads"] == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_a_training_from_weights_resumes_exactly_without_them(job):
    """Its architecture is in the snapshot, its weights are not read again."""
    first = train(job)
    weights = Path(job.run_folder, "weights/best.pt").rename(Path(job.run_folder).with_suffix(".pt"))
    assert isinstance(first[-1], Finished)
    tuned = replace(job, model=str(weights), run_folder=job.run_folder + "-tuned")
    train(tuned)
    again = replace(tuned, run_folder=job.run_folder + "-suspended")
    events = train(again, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)
    weights.unlink()
    events = train(replace(again, snapshot=events[-1].snapshot.path))
    assert isinstance(events[-1], Finished), events[-1]
    assert helpers.differences(helpers.final_state(tuned.run_folder), helpers.final_state(again.run_folder)) == []


# ---- orders and everything else -------------------------------------------------------------------------------------


def test_an_order_to_stop_ends_without_a_snapshot(job):
    job = replace(job, snapshot_every=1e9)
    events = train(job, react=lambda event: Stop() if isinstance(event, EpochDone) else None)
    assert events[-1] == Suspended(None)
    assert not of_type(events, SnapshotWritten)
    assert len(of_type(events, EpochDone)) == 1


@pytest.mark.slow
def test_a_resumed_training_stops_early_at_the_same_epoch(job, monkeypatch):
    fitness = (0.1, 0.3, 0.2, 0.25, 0.4, 0.5)  # two epochs without a better one end it after the fourth
    original = ResumableTrainer.validate
    monkeypatch.setattr(ResumableTrainer, "validate", lambda self: (original(self)[0], fitness[self.epoch]))
    job = replace(job, patience_epochs=2, arguments={**job.arguments, "epochs": 6})
    first = train(job, react=lambda event: Suspend() if isinstance(event, EpochDone) and event.epoch == 3 else None)
    assert of_type(first, EpochDone)[-1].epoch == 3
    second = train(replace(job, snapshot=first[-1].snapshot.path))
    assert second[-1] == Finished(epochs=4, best_epoch=2, early=True)
    last = of_type(second, SnapshotWritten)[-1]
    assert train(replace(job, snapshot=last.path))[-1] == second[-1]


def test_an_order_to_suspend_before_the_first_batch_needs_no_snapshot(job):
    events = train(job, react=lambda event: Suspend() if isinstance(event, Started) else None)
    assert events[1:] == [Suspended(None)]


def test_an_order_in_validation_is_followed_at_once_and_the_validation_repeated(job, monkeypatch):
    expected = train(replace(job, run_folder=job.run_folder + "-alone"))
    original = ResumableTrainer._obey_in_validation

    def order(self, validator):
        if self.epoch == 1:
            self.channel.order = Suspend()
        original(self, validator)

    monkeypatch.setattr(ResumableTrainer, "_obey_in_validation", order)
    first = train(replace(job, snapshot_every=1e9))
    assert first[-1].snapshot.position == Position(1, 6)
    monkeypatch.setattr(ResumableTrainer, "_obey_in_validation", original)
    second = train(replace(job, snapshot=first[-1].snapshot.path))
    assert of_type(first, EpochDone)[0].metrics == of_type(expected, EpochDone)[0].metrics
    assert [e.metrics for e in of_type(second, EpochDone)] == [e.metrics for e in of_type(expected, EpochDone)[1:]]


def test_a_finished_training_resumed_from_its_last_snapshot_says_so_at_once(job):
    events = train(job)
    again = train(replace(job, snapshot=of_type(events, SnapshotWritten)[-1].path))
    assert again[-1] == events[-1] == Finished(epochs=3, best_epoch=events[-1].best_epoch)
    assert again[0].history == tuple(event.metrics for event in of_type(events, EpochDone))
    assert not of_type(again, EpochDone)


@pytest.mark.slow
def test_a_disk_that_is_really_full_does_not_end_the_training(job):
    with helpers.full_disk(100_000):
        events = train(job)
    assert isinstance(events[-1], Finished), events[-1]
    notes = {event.key: event.message for event in of_type(events, Note)}
    assert "File too large" in notes["snapshot-failed"]
    assert "File too large" in notes["weights-failed"]
    assert not of_type(events, SnapshotWritten)
    assert not list(Path(job.run_folder, "snapshots").iterdir())
    assert_told_once(events, 3)


def test_an_order_to_suspend_finds_the_disk_full(job):
    with helpers.full_disk(100_000):
        events = train(job, react=lambda event: Suspend() if isinstance(event, EpochDone) else None)
    assert events[-1] == Suspended(None)


def test_a_full_disk_does_not_end_the_training(job, monkeypatch):
    monkeypatch.setattr(faults, "_faults", {"snapshot-temporary-written": ("raise:28", None)})
    events = train(job)
    assert isinstance(events[-1], Finished), events[-1]
    notes = {event.key: event.message for event in of_type(events, Note)}
    assert "No space left on device" in notes["snapshot-failed"]
    assert not of_type(events, SnapshotWritten)
    assert_told_once(events, 3)


def spin(seconds):
    """Use the processor for so long."""
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


def test_every_copy_that_training_waits_for_is_counted(job, monkeypatch):
    """That of the averaged model for the best weights, and that of the state which a fall-back would lead to."""
    monkeypatch.setattr(ResumableTrainer, "_may_fall_back", lambda self: True)
    for module, name in ((weights, "checkpoint"), (state.TrainingState, "capture")):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, original=original: spin(0.3) or original(*args))
    events = train(job)
    assert of_type(events, SnapshotWritten)[0].seconds >= 0.6


def test_what_nobody_foresaw_is_told_with_its_traceback(job, monkeypatch):
    def break_down(self):
        raise ZeroDivisionError("nobody foresaw this")

    monkeypatch.setattr(ResumableTrainer, "optimizer_step", break_down)
    last = train(job)[-1]
    assert (last.kind, last.message) == ("crashed", "ZeroDivisionError: nobody foresaw this")
    assert "break_down" in last.detail
