"""An architecture file is refused for what Ultralytics cannot build, and for nothing else; nothing is executed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics.nn import tasks
from ultralytics.nn.tasks import SegmentationModel

from petskin_tune.errors import UsageError
from petskin_tune.trial.model import layers
from petskin_tune.trial.model.architectures import require_buildable
from petskin_tune.trial.model.files import find_model
from tests.support.training import SMALL

SOUND = yaml.safe_load(SMALL.read_text())
OWN = sorted((Path(tasks.__file__).parent.parent / "cfg" / "models").rglob("*.yaml"))


def changed(**rows: Any) -> dict[str, Any]:
    """The small model; ``b2=[…]`` is another row 2 of its backbone, any other name an entry at its top."""
    architecture = copy.deepcopy(SOUND)
    for name, row in rows.items():
        part = {"b": "backbone", "h": "head"}.get(name[0]) if name[1:].isdigit() else None
        if part:
            architecture[part][int(name[1:])] = row
        else:
            architecture[name] = row
    return architecture


def written(architecture: dict[str, Any], folder: Path, name: str = "mine.yaml") -> Path:
    (folder / name).write_text(yaml.safe_dump(architecture))
    return folder / name


UNBUILDABLE: list[tuple[dict[str, Any], str]] = [
    (changed(b2=[-1, 1, "os.system", ["touch pwned"]]), r"layer 2 names `os\.system`, which this Ultralytics lacks"),
    (changed(b2=[-1, 1, "C2ff", [16, True]]), r"layer 2 names `C2ff`.*did you mean `C2f`\?$"),
    (changed(b2=[-1, 1, "nn.SiLu", []]), r"layer 2 names `nn\.SiLu`.*did you mean `nn\.SiLU`\?$"),
    (changed(b2=[-1, 1, "nn.functional.relu", []]), r"layer 2 names"),
    (changed(b2=[-1, 1, "YAML", []]), r"layer 2 names `YAML`"),
    (changed(b2=[-1, 1, 3, []]), r"layer 2 names 3 as its module"),
    (changed(b2=[-1, 1, "C2f"]), r"layer 2 is not \[from, repeats, module, args\]"),
    (changed(b2="C2f"), r"layer 2 is not \[from, repeats, module, args\]"),
    (changed(b2=[-1, "two", "C2f", [16]]), r"the repeats of layer 2 \(C2f\) are 'two', not a whole number"),
    (changed(b2=[-1, 1, "C2f", []]), r"layer 2 \(C2f\) takes 1 to 4 arguments here, not 0"),
    (changed(b2=[-1, 1, "C2f", [16, True, 1, 0.5, 3]]), r"layer 2 \(C2f\) takes 1 to 4 arguments here, not 5"),
    (changed(b2=[-1, 1, "nn.Upsample", [1, 2, 3, 4, 5, 6]]), r"layer 2 \(nn\.Upsample\) takes 0 to 5 arguments"),
    (changed(b2=[-1, 1, "C2f", ["exit('now')"]]), r"the first argument of layer 2 \(C2f\), its channels, is"),
    (changed(b2=[-1, 1, "Concat", [1]]), r"`from` of layer 2 \(Concat\) is -1: it takes a list"),
    (changed(b2=[[-1, 9], 1, "Concat", [1]]), r"`from` of layer 2 \(Concat\) is \[-1, 9\]: only layers before it"),
    (changed(b2=[-1, 1, "SPPF", [16, 5, 3, False, 1]]), r"layer 2 \(SPPF\) takes 1 to 4 arguments here, not 5"),
    (changed(b2=[[-1, 0], 1, "Concat", [1, 1]]), r"layer 2 \(Concat\) takes 0 to 1 arguments here, not 2"),
    (changed(b2=[[-1], 1, "Conv", [16]]), r"`from` of layer 2 \(Conv\) is \[-1\]: it takes one number"),
    (changed(b2=[7, 1, "Conv", [16]]), r"`from` of layer 2 \(Conv\) is 7: only layers before it"),
    (changed(b2=[-3, 1, "Conv", [16]]), r"`from` of layer 2 \(Conv\) is -3: only layers before it"),
    (changed(b2=["one", 1, "Conv", [16]]), r"`from` of layer 2 \(Conv\) is 'one': a layer is named by its number"),
    (changed(b0=[0, 1, "Conv", [8, 3, 2]]), r"`from` of layer 0 \(Conv\) is 0: only layers before it"),
    (changed(b2=[-1, 1, "Conv", "16"]), r"the arguments of layer 2 \(Conv\) are no list"),
    (changed(b2=[-1, 1, "Conv", [None]]), r"the first argument of layer 2 \(Conv\), its channels, is None"),
    (changed(b2=[-1, 1, "Conv", [16, "3 +"]]), r"an argument of layer 2 \(Conv\) is '3 \+', which is neither"),
    (changed(h0=[[5], 1, "Segment", ["nc", 8, 16]]), r"`from` of layer 5 \(Segment\) is \[5\]: only layers before it"),
    (changed(h0=[[4], 1, "Segment", ["nc"]]), r"layer 5 \(Segment\) takes 3 arguments here, not 1"),
    (changed(h0=[[4], 1, "Segment", ["nc", 8, 16, 1]]), r"layer 5 \(Segment\) takes 3 arguments here, not 4"),
    ({name: value for name, value in SOUND.items() if name != "nc"}, r"it has no `nc`"),
    (changed(scales={"n": [1, -1, 64]}), r"\[depth, width, max_channels\], numbers, the last two above 0"),
    (changed(b2=[-1, 1, "C2f", [-16, True]]), r"layer 2 \(C2f\) is to have -16 channels"),
    (changed(b2=[-1, 1, "C2f", [0, True]]), r"layer 2 \(C2f\) is to have 0 channels"),
    (changed(h0=[[4], 1, "Segment", ["nc", 8, 0]]), r"layer 5 \(Segment\) is to have 0 channels"),
    (changed(scales={"n": [1, 1]}), r"`scales` is to be \[depth, width, max_channels\], numbers"),
    (changed(scales="n"), r"each of its `scales`"),
]


@pytest.mark.parametrize(("architecture", "said"), UNBUILDABLE, ids=[said[:40] for _, said in UNBUILDABLE])
def test_what_ultralytics_cannot_build_is_refused_before_any_training(
    architecture: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(architecture, tmp_path)
    with pytest.raises(UsageError, match=rf"^The model {path} cannot be built: .*{said}") as refusal:
        find_model(str(path))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "pwned").exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 (whatever Ultralytics raises)
        SegmentationModel(str(path), nc=2, verbose=False)


def test_the_scale_that_a_files_name_asks_for_must_be_there(tmp_path: Path) -> None:
    path = written(changed(scales={"n": [1, 1, 64]}), tmp_path, "yolov8x-mine.yaml")
    with pytest.raises(UsageError, match="asks for the scale `x`, which its `scales` lack"):
        find_model(str(path))
    with pytest.raises(KeyError):
        SegmentationModel(str(path), nc=2, verbose=False)
    find_model(str(written(changed(scales={"n": [1, 1, 64]}), tmp_path, "yolov8n-mine.yaml")))
    find_model(str(written(changed(scales={"n": [0, 1, 64]}), tmp_path, "shallow.yaml")))  # each layer once


@pytest.mark.parametrize(
    "activation",
    [
        "__import__('os').system('touch pwned')",
        "nn.ReLU() if __import__('os').system('touch pwned') else nn.SiLU()",
        "nn.ReLU(__import__('os').system('touch pwned'))",
        "nn.ReLU(**{'inplace': True})",
        "nn.ReLU()()",
        "nn.ReLU(" + "(" * 5000 + ")" * 5000 + ")",
        "SiLU()",
        "nn.Nope()",
        3,
    ],
)
def test_an_activation_that_is_none_of_torch_is_refused_and_not_executed(activation: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"its `activation` is .*, not one of torch such as"):
        find_model(str(written(changed(activation=activation), tmp_path)))
    with pytest.raises(TypeError):
        tasks._SafeLoad.activation(activation)


@pytest.mark.parametrize("activation", ["nn.SiLU()", "torch.nn.LeakyReLU(0.1)", None])
def test_an_activation_of_torch_is_taken(activation: str | None, tmp_path: Path) -> None:
    find_model(str(written(changed(activation=activation), tmp_path)))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_every_architecture_of_ultralytics_is_taken(path: Path) -> None:
    require_buildable(path)


def variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows 2 to 4 of the small model in all lengths and from all places, and every layer with up to four arguments."""
    values = [16, 1, 1, 2]
    for module in ("Conv", "C2f", "C3k2", "SPPF", "DWConv", "C2PSA", "A2C2f", "CBLinear", "nn.Identity"):
        for count in range(5):
            yield f"{module}-{count}", changed(b2=[-1, 1, module, values[:count]])
    for source in (-4, -3, -2, 0, 1, 2, [-1, 1], [0], []):
        yield f"from-{source}", changed(b2=[source, 1, "Conv", [16]])
        yield f"from-{source}-concat", changed(b2=[source, 1, "Concat", [1]], b3=[-1, 1, "Conv", [32, 3, 2]])
    yield from ((f"text-{text}", changed(b2=[-1, 1, "Conv", [16, text]])) for text in ("3", "None", "nc", "(((", "a b"))


@pytest.mark.parametrize(("architecture"), [pytest.param(found, id=name) for name, found in variants()])
def test_nothing_that_ultralytics_builds_is_refused(architecture: dict[str, Any], tmp_path: Path) -> None:
    path = written(architecture, tmp_path)
    try:
        SegmentationModel(str(path), nc=2, verbose=False)
    except Exception:  # noqa: BLE001
        return  # whether it is refused before is for the tests above
    require_buildable(path)


def test_of_torchvision_layers_are_taken_and_functions_are_not() -> None:
    known = layers.names() or frozenset()
    assert "torchvision.ops.Conv2dNormActivation" in known
    assert "torchvision.ops.nms" not in known


def test_weights_with_a_layer_that_this_ultralytics_lacks_are_refused(tmp_path: Path) -> None:
    model = SegmentationModel(str(SMALL), verbose=False)
    model.yaml["backbone"][2][2] = "CBAM3"
    torch.save({"model": model}, tmp_path / "best.pt")
    with pytest.raises(UsageError, match=r"best\.pt cannot be built: layer 2 names `CBAM3`"):
        find_model(str(tmp_path / "best.pt"))


def test_the_layers_known_are_those_that_ultralytics_resolves() -> None:
    """Of a release that is laid out otherwise nothing would be said; this one is known."""
    known = layers.names()
    assert known is not None
    own = {name for name in known if "." not in name}
    assert own == {
        name
        for name in vars(tasks)
        if isinstance(vars(tasks)[name], type)
        and issubclass(vars(tasks)[name], torch.nn.Module)
        and vars(tasks)[name].__module__.startswith("ultralytics.nn.modules")
    }
    assert {name for name in known if name.startswith("nn.")} <= {f"nn.{name}" for name in dir(torch.nn)}
    assert layers.group("base_modules") | layers.group("repeat_modules") <= known
    assert layers.signature("C2f") == layers.Signature(2, 6)
    assert layers.signature("nn.Upsample") == layers.Signature(0, 5)
