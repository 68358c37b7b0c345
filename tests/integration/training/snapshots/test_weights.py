"""The best weights of a trial as a file of Ultralytics' own kind."""

from __future__ import annotations

import torch
from torch import nn
from ultralytics.nn.tasks import SegmentationModel

from petskin_tune.training.snapshots import weights
from tests.support.training import SMALL


def test_the_copy_is_made_without_a_second_model_on_the_device(monkeypatch):
    """At the edge of a GPU's memory a second model there would end the training that it is a copy of."""
    model = SegmentationModel(str(SMALL), nc=2, verbose=False).eval()

    def copied_on_its_device(self, memo):
        raise AssertionError("a parameter was copied where it lies")

    monkeypatch.setattr(nn.Parameter, "__deepcopy__", copied_on_its_device)
    kept = weights.checkpoint(model, {"task": "segment"}, {"fitness": 0.5}, 3)["model"]
    expected, found = model.state_dict(), kept.state_dict()
    assert list(found) == list(expected)
    assert all(
        torch.equal(found[name], expected[name].float()) for name in expected if expected[name].is_floating_point()
    )
    assert not any(parameter.requires_grad for parameter in kept.parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())
    theirs = {parameter.data_ptr() for parameter in model.parameters()}
    assert theirs.isdisjoint(parameter.data_ptr() for parameter in kept.parameters())
