"""The model in training is known by its tensors: an architecture file alone does not say how wide its class branch is.

``BaseModel.load`` of Ultralytics replaces the class branch of the model that was built by one as wide as that of the
weights (80 channels in all n models trained on COCO; 64 in one built for two classes), or even of another structure
(YOLO11's depth-wise one in a YOLOv8). A model rebuilt from its architecture must be given that branch again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import torch
from torch import nn
from ultralytics.nn.modules import Conv, DWConv
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils.torch_utils import initialize_weights

CLASS_BRANCHES = ("cv3", "one2one_cv3")  # of a detection head: what ``BaseModel.load`` may replace
_DECIDING = ("stride", "padding", "dilation", "groups", "eps", "momentum")  # what a layer computes beside its tensors

Tensors = Mapping[str, torch.Tensor]


class ModelMismatch(Exception):
    """The model that was trained cannot be built here; the message says where they differ."""


def layers(model: BaseModel) -> list[str]:
    """Describe the layers of a model, one a line: name, type, and what decides its result and is no tensor."""
    described = []
    for name, module in model.model.named_modules(remove_duplicate=False):
        if next(module.children(), None) is None:
            values = [f"{key}={getattr(module, key)}" for key in _DECIDING if hasattr(module, key)]
            described.append(" ".join([name, type(module).__name__, *values]))
    return described


def rebuild(model: BaseModel, tensors: Tensors, recorded: Sequence[str] | None = None) -> None:
    """Give a model that was built from its architecture the layers of the one that was trained; values follow later.

    Args:
        model: Changed in place.
        tensors: The state dict of the model that was trained; only its names and shapes are used.
        recorded: What ``layers`` said of the model that was trained; None where nothing was recorded.

    Raises:
        ModelMismatch: This Ultralytics builds another model from the architecture, or the state is damaged.
    """
    index, head = len(model.model) - 1, model.model[-1]
    if isinstance(head, Detect):
        for name in CLASS_BRANCHES:
            wanted = _below(tensors, f"model.{index}.{name}.")
            if wanted and _shapes(wanted) != _shapes(head.get_submodule(name).state_dict()):
                setattr(head, name, _class_branches(wanted).train(head.training))
    _require_same(model, tensors, recorded)


def _class_branches(tensors: Tensors) -> nn.ModuleList:
    branches = nn.ModuleList(_layer(tensors) for tensors in _children(tensors))
    initialize_weights(branches)  # eps and momentum of batch norms, activations in place: as every model of Ultralytics
    return branches


def _layer(tensors: Tensors) -> nn.Module:
    """Build the layer whose state dict has these names and shapes, out of what class branches are made of."""
    if "conv.weight" in tensors:
        outputs, inputs, kernel, _ = tensors["conv.weight"].shape  # inputs per group: 1 where it is depth-wise
        return DWConv(outputs, outputs, kernel) if inputs == 1 else Conv(inputs, outputs, kernel)
    if "weight" in tensors:
        outputs, inputs, kernel, _ = tensors["weight"].shape
        return nn.Conv2d(inputs, outputs, kernel)
    return nn.Sequential(*(_layer(child) for child in _children(tensors)))


def _children(tensors: Tensors) -> list[Tensors]:
    """Part a state dict by the first, numeric part of its names."""
    children: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        number, _, rest = name.partition(".")
        children[int(number)][rest] = tensor
    return [children[number] for number in sorted(children)]


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _shapes(tensors: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _require_same(model: BaseModel, tensors: Tensors, recorded: Sequence[str] | None) -> None:
    built, wanted = _shapes(model.state_dict()), _shapes(tensors)
    different = [name for name in {**wanted, **built} if built.get(name) != wanted.get(name)]
    if different:
        name = different[0]
        raise ModelMismatch(
            f"the model cannot be built again: {len(different)} tensors differ, the first is {name} "
            f"(trained {wanted.get(name, 'absent')}, built {built.get(name, 'absent')})"
        )
    here = layers(model)
    for trained, now in zip_longest(here if recorded is None else recorded, here, fillvalue="absent"):
        if trained != now:
            raise ModelMismatch(f"the model cannot be built again: a layer was '{trained}' and is '{now}' here")
