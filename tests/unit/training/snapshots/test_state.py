"""What a snapshot holds: a record of fields, whose file keeps the keys that format 1 has always had."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics.utils.torch_utils import EarlyStopping

from petskin_tune.protocol import Position
from petskin_tune.training.snapshots import file as snapshot
from petskin_tune.training.snapshots.state import Counters, Decisions, Learner, Losses, Terms, TrainingState
from tests.support.training import differences


class Model(torch.nn.Module):
    """As much of Ultralytics' segmentation model as a state asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Sequential(torch.nn.Linear(2, 1))
        self.yaml = {"nc": 1, "head": [[-1, 1, "Linear", [1]]]}
        self.criterion = None
        self.epochs = 0

    def init_criterion(self) -> SimpleNamespace:
        def update() -> None:
            self.epochs += 1

        return SimpleNamespace(update=update)


def learner(momentum: float = 0.9) -> Learner:
    model = Model()
    average = SimpleNamespace(ema=Model(), updates=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    return Learner(model, average, optimizer, torch.amp.GradScaler("cpu", enabled=False), EarlyStopping(3))


def a_file_of_format_1() -> dict[str, object]:
    """A snapshot as it has been written since format 1 began, key by key; its values are those of no training."""
    weights = {"model.0.weight": torch.tensor([[1.0, 2.0]]), "model.0.bias": torch.tensor([3.0])}
    momenta = {0: {"momentum_buffer": torch.tensor([[0.5, 0.25]])}, 1: {"momentum_buffer": torch.tensor([0.125])}}
    groups = [{**learner().optimizer.state_dict()["param_groups"][0], "lr": 0.05}]
    return {
        "format": 1,
        "identity": {"study": "u", "trial": "0", "data": "d", "model": "m"},
        "requested": {"lr0": 0.1, "epochs": 4},
        "machine": {"versions": {"torch": "2.6.0"}, "threads": 2, "device": "cpu", "device_model": "x", "cuda": None},
        "decisions": {"precision": "fp32", "micro_batch": 4, "validation_batch": None},
        "position": [2, 5],
        "model_yaml": {"nc": 1, "head": [[-1, 1, "Linear", [1]]]},
        "layers": ["0 Linear"],
        "ema_updates": 7,
        "last_opt_step": 15,
        "accumulate": 3,
        "scaler": {},
        "stopper": {"best_fitness": 0.25, "best_epoch": 2, "possible_stop": False},
        "stop": False,
        "best_fitness": 0.25,
        "best_epoch": 2,
        "history": [{"fitness": 0.125}, {"fitness": 0.25}],
        "times": [1.0, 2.5],
        "elapsed": 3.0,
        "model": weights,
        "ema": {name: value + 1 for name, value in weights.items()},
        "optimizer": {"state": momenta, "param_groups": groups},
        "gradients": {"model.0.bias": torch.tensor([0.0625])},
        "running_losses": {"box": torch.tensor(1.5)},
        "loss": torch.tensor(6.0),
        "loss_items": {"box": torch.tensor(1.25)},
    }


def test_a_file_of_format_1_is_read_and_written_again_as_it_was() -> None:
    plain = a_file_of_format_1()
    assert differences(TrainingState.from_plain(plain).to_plain(), plain) == []


def test_a_learner_that_takes_a_state_over_has_it() -> None:
    state = TrainingState.from_plain(a_file_of_format_1())
    taken = learner(momentum=0.0)
    state.restore(taken)
    again = TrainingState.capture(taken, state.losses(taken.device), state.counters, state.terms).to_plain()
    assert differences({**again, "layers": None}, {**a_file_of_format_1(), "layers": None}) == []
    assert taken.model.epochs == 2, "end-to-end losses shift their weights once an epoch"


def test_the_next_step_of_a_learner_that_took_a_state_over_leaves_the_state_as_it_was() -> None:
    state, taken = TrainingState.from_plain(a_file_of_format_1()), learner()
    state.restore(taken)
    taken.optimizer.step()
    assert differences(state.to_plain(), a_file_of_format_1()) == []
    assert taken.model.model[0].bias.item() == pytest.approx(3.0 - 0.05 * (0.9 * 0.125 + 0.0625))


def test_a_captured_state_does_not_change_with_the_training() -> None:
    taken, counters = learner(), Counters(history=[{"fitness": 0.5}], times=[1.0])
    terms = Terms({}, {}, {}, Decisions())
    state = TrainingState.capture(taken, Losses({}, None, None), counters, terms)
    before = {name: value.clone() for name, value in state.model.items()}
    with torch.no_grad():
        taken.model.model[0].weight += 1
    counters.position = Position(1, 1)
    counters.history[0]["fitness"] = 0.75
    counters.times.append(2.0)
    assert all(torch.equal(state.model[name], value) for name, value in before.items())
    assert (state.counters.position, state.counters.history, state.counters.times) == (
        Position(0, 0),
        [{"fitness": 0.5}],
        [1.0],
    )


def test_a_file_from_before_layers_were_recorded_is_read() -> None:
    plain = a_file_of_format_1()
    del plain["layers"]
    assert TrainingState.from_plain(plain).layers is None


def test_a_file_without_one_of_its_parts_is_none() -> None:
    plain = a_file_of_format_1()
    del plain["gradients"]
    with pytest.raises(KeyError, match="gradients"):
        TrainingState.from_plain(plain)


def test_a_state_goes_to_disk_and_back(tmp_path: Path) -> None:
    state = TrainingState.from_plain(a_file_of_format_1())
    snapshot.write(state.to_plain(), tmp_path / "a.pt")
    read = TrainingState.from_plain(snapshot.read(tmp_path / "a.pt"))
    assert differences(read.to_plain(), a_file_of_format_1()) == []
