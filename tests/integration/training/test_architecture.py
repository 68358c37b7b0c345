"""A model is rebuilt from its architecture and the names and shapes of its tensors, as it was trained."""

from __future__ import annotations

import pytest
import torch
from ultralytics.nn.tasks import SegmentationModel

from petskin_tune.training import architecture
from petskin_tune.training.architecture import ModelMismatch
from tests.support import training as helpers


def build(path, classes):
    return SegmentationModel(str(path), nc=classes, verbose=False)


def fine_tuned(path, classes, source):
    """What Ultralytics trains when the weights of ``source`` are loaded for a data set of ``classes``."""
    model = build(path, classes)
    model.load(source, verbose=False)
    return model


def rebuilt(trained, path, classes):
    model = build(path, classes)
    architecture.rebuild(model, trained.state_dict(), architecture.layers(trained))
    return model


WIDTHS = {"v8": 0.0625, "11": 0.125, "26": 0.125}


@pytest.mark.parametrize(("source_classes", "classes"), [(80, 2), (200, 7), (2, 80)])
@pytest.mark.parametrize("family", WIDTHS)
def test_a_fine_tuned_model_is_rebuilt_without_its_weights(root, family, source_classes, classes):
    path = helpers.model(root, WIDTHS[family], family)
    trained = fine_tuned(path, classes, build(path, source_classes))
    assert shapes(trained) != shapes(build(path, classes)), "the weights did not change the class branch"
    again = rebuilt(trained, path, classes)
    again.load_state_dict(trained.state_dict())
    assert architecture.layers(again) == architecture.layers(trained)
    image = torch.rand(1, 3, 64, 64)
    assert helpers.differences(output(trained, image), output(again, image)) == []


def shapes(model):
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def output(model, image):
    with torch.no_grad():
        return model.eval()(image)


def test_a_class_branch_of_another_family_is_rebuilt(root):
    v8, v11 = helpers.model(root, 0.125), helpers.model(root, 0.125, "11")
    trained = fine_tuned(v8, 2, build(v11, 80))
    assert any(".cv3.0.0.0.conv" in line for line in architecture.layers(trained)), "it kept its own class branch"
    again = rebuilt(trained, v8, 2)
    again.load_state_dict(trained.state_dict())
    assert architecture.layers(again) == architecture.layers(trained)


def test_the_parameters_of_a_rebuilt_model_keep_their_order_and_are_trained(root):
    path = helpers.model(root)
    trained = fine_tuned(path, 2, build(path, 80))
    again = rebuilt(trained, path, 2)
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in trained.named_parameters()]
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in trained.parameters()]
    assert all(module.training for module in again.modules())


def test_tensors_that_no_class_branch_explains_are_refused_by_name(root):
    narrow, wide = helpers.model(root), helpers.model(root, 0.125)
    with pytest.raises(ModelMismatch, match=r"cannot be built again: \d+ tensors differ.*model\.1\.conv\.weight"):
        architecture.rebuild(build(narrow, 2), build(wide, 2).state_dict())


def test_a_layer_that_computes_something_else_is_refused_by_name(root):
    path = helpers.model(root)
    trained = build(path, 2)
    trained.model[0].bn.eps = 0.5
    with pytest.raises(
        ModelMismatch, match=r"a layer was '0\.bn BatchNorm2d eps=0\.5.*' and is '0\.bn BatchNorm2d eps="
    ):
        rebuilt(trained, path, 2)
