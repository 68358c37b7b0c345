"""What must not go on is recognised: NaN, out of memory, arguments other than those asked for."""

from __future__ import annotations

import math

import pytest
import torch

from petskin_tune.owned_arguments import OWNED
from petskin_tune.protocol import Position
from petskin_tune.training import guards

HERE = Position(2, 5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_seen_at_once_on_a_cpu(value):
    watch = guards.LossWatch(torch.device("cpu"))
    with pytest.raises(guards.NonFinite, match="epoch 3, batch 5"):
        watch.put(HERE, torch.tensor(value), {"box": torch.tensor(1.0)})


def test_the_running_losses_are_known_after_each_batch():
    watch = guards.LossWatch(torch.device("cpu"))
    watch.put(HERE, torch.tensor(3.0), {"box": torch.tensor(1.0), "seg": torch.tensor(2.0)})
    assert watch.latest == {"box": 1.0, "seg": 2.0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_bad_element_among_many_is_found(value):
    tensors = [torch.randn(10, 10), torch.tensor(3), torch.empty(0), torch.full((4,), 3e38)]
    assert guards.all_finite(tensors)
    tensors[0][3, 3] = value
    assert not guards.all_finite(tensors)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_out_of_memory_is_recognised_as_torch_raises_it(error):
    assert guards.is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_are_not_out_of_memory(error):
    assert not guards.is_out_of_memory(error)


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid 4711) is killed by signal: Killed. ",
        "DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's workers are",
        "DataLoader worker (pid(s) 4711, 4712) exited unexpectedly",
        "Pin memory thread exited unexpectedly",
        "Caught ConnectionResetError in pin memory thread for device 0.",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
def test_a_fault_of_the_machine_is_recognised(message):
    assert guards.is_machine_fault(RuntimeError(message))
    if accelerator := getattr(torch, "AcceleratorError", None):
        assert guards.is_machine_fault(accelerator(message, 700))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last)"),
        RuntimeError("CUDA error: out of memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        ValueError("CUDA error"),
    ],
)
def test_what_says_something_about_the_trial_is_no_fault_of_the_machine(error):
    assert not guards.is_machine_fault(error)


def with_gradient(value):
    model = torch.nn.Linear(1, 1)
    model.weight.grad = torch.full((1, 1), value)
    return model


def test_a_gradient_that_is_not_finite_is_found():
    with pytest.raises(guards.NonFinite):
        guards.check_finite(with_gradient(math.inf), torch.nn.Linear(1, 1), HERE)


def test_a_scaled_gradient_may_overflow_and_a_weight_may_not():
    model = with_gradient(math.inf)
    guards.check_finite(model, torch.nn.Linear(1, 1), HERE, scaled_gradients=True)
    model.bias.data.fill_(math.nan)
    with pytest.raises(guards.NonFinite):
        guards.check_finite(model, torch.nn.Linear(1, 1), HERE, scaled_gradients=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"fraction": 0.5},
        {"resume": True},
        {"time": 1.0},
        {"val": False},
        {"compile": True},
        {"rect": True},
        {"batch": -1},
        {"batch": 0.7},
        {"task": "detect"},
        {"single_cls": True},
        {"pretrained": "http://127.0.0.1:1/evil.pt"},
        {"augmentations": ["blur"]},
        {"deterministic": False},
    ],
)
def test_arguments_that_cannot_be_honoured_are_refused_by_name(arguments):
    with pytest.raises(guards.Refused, match=next(iter(arguments))):
        guards.check_request(arguments)


def test_ultralytics_defaults_are_not_refused():
    from ultralytics.utils import DEFAULT_CFG_DICT

    guards.check_request({**DEFAULT_CFG_DICT, "task": "segment"})


@pytest.mark.parametrize("name", sorted(OWNED))
def test_whatever_no_study_may_set_no_trial_may_set_but_its_own_job(name):
    if name in guards.LOCAL_ARGUMENTS | {"epochs", "seed"}:
        return
    with pytest.raises(guards.Refused, match=f"^{name}=.* is refused: "):
        guards.check_request({name: "another"})


def layers(count):
    model = torch.nn.Module()
    model.model = torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(count)))
    return model


@pytest.mark.parametrize("freeze", [3, 30, [0, 1, 2], ["0", "1", "2"]])
def test_a_freeze_that_leaves_nothing_to_train_is_refused(freeze):
    with pytest.raises(guards.Refused, match="leaves none of the model's 3 layers"):
        guards.check_freeze(layers(3), freeze)


@pytest.mark.parametrize("freeze", [None, 0, 2, [0, 2], ["0"]])
def test_a_freeze_that_leaves_something_to_train_passes(freeze):
    guards.check_freeze(layers(3), freeze)


@pytest.mark.parametrize("model", ["http://127.0.0.1:1/yolov8n-seg.pt", "ul://me/best.pt"])
def test_a_model_from_somewhere_else_is_refused(model):
    with pytest.raises(guards.Refused, match="give the path of a file"):
        guards.check_model(model)


def test_mps_is_refused_where_there_is_none():
    with pytest.raises(guards.Refused, match="there is none here"):
        guards.check_device("mps", torch.device("cpu"))
    for asked in ("", "cpu"):
        guards.check_device(asked, torch.device("cpu"))


@pytest.mark.parametrize(
    ("name", "asked", "got"),
    [
        ("lr0", 0.005, 0.001667),
        ("batch", 16, 8),
        ("imgsz", 100, 128),
        ("optimizer", "SGD", "AdamW"),
        ("cos_lr", True, False),
    ],
)
def test_an_argument_changed_behind_our_back_is_refused(name, asked, got):
    with pytest.raises(guards.Refused, match=name):
        guards.compare_arguments({name: asked}, {name: got})


def test_what_optimizer_auto_chose_is_recorded():
    requested = {"optimizer": "auto", "lr0": 0.005, "momentum": 0.9}
    notes = guards.compare_arguments(requested, {"optimizer": "AdamW", "lr0": 0.001667, "momentum": 0.9})
    assert len(notes) == 2
    assert "lr0 is 0.001667" in notes[0]


def test_paths_and_conveniences_may_differ():
    assert guards.compare_arguments({"data": "a", "workers": 8, "plots": True}, {"data": "b", "workers": 0}) == []


def optimizer(**group):
    return torch.optim.SGD([{"params": [torch.zeros(1)], "initial_lr": 0.01, **group}], lr=0.01, momentum=0.9)


def test_an_optimizer_with_the_arguments_values_passes():
    asked = {"optimizer": "SGD", "lr0": 0.01, "momentum": 0.9}
    guards.compare_optimizer(optimizer(weight_decay=0.0005), asked, weight_decay=0.0005, automatic=False)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"initial_lr": 0.02}, "learning rate"),
        ({"momentum": 0.8}, "momentum"),
        ({"weight_decay": 0.1}, "weight decay"),
    ],
)
def test_an_optimizer_with_another_value_is_refused(changed, complaint):
    asked = {"optimizer": "SGD", "lr0": 0.01, "momentum": 0.9}
    with pytest.raises(guards.Refused, match=complaint):
        guards.compare_optimizer(optimizer(**changed), asked, weight_decay=0.0005, automatic=False)


def test_another_optimizer_is_refused():
    asked = {"optimizer": "AdamW", "lr0": 0.01, "momentum": 0.9}
    with pytest.raises(guards.Refused, match="AdamW"):
        guards.compare_optimizer(optimizer(), asked, weight_decay=0.0, automatic=False)


def test_gpus_known_to_fail_under_amp_are_recognised():
    assert guards.breaks_mixed_precision("NVIDIA GeForce GTX 1660 Ti")
    assert not guards.breaks_mixed_precision("Tesla T4")


# ---- memory that others hold ----


def a_gpu(monkeypatch, free, total, reserved):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * GIB, total * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved * GIB)
    return torch.device("cuda", 0)


GIB = 2**30


@pytest.mark.parametrize(
    ("free", "reserved", "said"),
    [
        (0.1, 14, None),
        (0.1, 3, "other processes hold about"),
        (0.1, 8, None),  # a desktop holds a few GB, and the trial is too large for the rest
        (12, 1, None),
        (0, 0, "other processes hold about"),
    ],
)
def test_out_of_memory_is_no_ones_fault_where_other_processes_hold_the_memory(monkeypatch, free, reserved, said):
    found = guards.crowded_out(a_gpu(monkeypatch, free, 15, reserved))
    assert (found is None) is (said is None)
    assert found is None or found.startswith(said)


def test_a_device_that_does_not_say_what_is_free_is_not_crowded(monkeypatch):
    def refuse(device):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", refuse)
    assert guards.crowded_out(torch.device("cuda", 0)) is None
    assert guards.crowded_out(torch.device("cpu")) is None
