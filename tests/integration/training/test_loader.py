"""The loader gives the same batches whatever loads them, from wherever it starts, augmented as Ultralytics does it."""

from __future__ import annotations

import sys
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from ultralytics.data.augment import Albumentations, BaseTransform, Compose, Mosaic, v8_transforms

from petskin_tune.protocol import Position
from petskin_tune.training.snapshots.state import Decisions
from petskin_tune.training.trial_trainer import TrialTrainer
from tests.support import training as helpers

MIXED = {"mixup": 0.5, "cutmix": 0.3, "copy_paste": 0.5, "copy_paste_mode": "mixup", "degrees": 90.0, "close_mosaic": 1}


def loader(root, **changes):
    setup = TrialTrainer(helpers.job(root, "loader", **changes), Decisions())
    setup._setup_train()
    return setup.train_loader


def batches(root, count=None, **changes):
    """Return the batches of two epochs, or the first ``count``; mosaic is closed in the second."""
    arguments = {"epochs": 2, **MIXED, **changes.pop("arguments", {})}
    train_loader = loader(root, arguments=arguments, **changes)
    try:
        return list(islice((batch for _ in range(2) for batch in train_loader), count))
    finally:
        train_loader.close()


@pytest.fixture(scope="module")
def expected(root):
    loaded = batches(root)
    assert len(loaded) == 12
    assert helpers.differences(loaded[0], loaded[6]) != []
    return loaded


@pytest.mark.parametrize("processes", [1, 3])
def test_loader_processes_change_nothing(root, expected, processes):
    assert helpers.differences(expected, batches(root, workers=processes)) == []


def test_the_image_cache_changes_nothing(root, expected, monkeypatch):
    monkeypatch.setattr("petskin_tune.training.trial_trainer.image_cache_bytes", lambda: 0)
    assert helpers.differences(expected, batches(root)) == []


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_ultralytics_own_cache_changes_nothing(root, expected, cache):
    assert helpers.differences(expected, batches(root, arguments={"cache": cache})) == []


def test_albumentations_installed_or_not_changes_nothing(root, expected, monkeypatch):
    pytest.importorskip("albumentations")
    monkeypatch.setitem(sys.modules, "albumentations", None)
    with pytest.raises(ImportError):
        import albumentations  # noqa: F401
    assert helpers.differences(expected, batches(root)) == []


ALBUMENTATIONS = '''
"""As much of Albumentations as Ultralytics asks for; it draws random numbers and changes every pixel."""

import random

import numpy as np
import torch

__version__ = "2.0.8"


class BaseCompose:
    pass


class DualTransform:
    pass


class Blur:
    def __init__(self, p=0.5, **options):
        self.p = p


MedianBlur = ToGray = CLAHE = RandomBrightnessContrast = RandomGamma = ImageCompression = Blur


class Compose(BaseCompose):
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        random.random(), np.random.rand(), torch.rand(1)
        return {"image": 255 - image}
'''


def test_an_installed_albumentations_changes_nothing(root, expected, monkeypatch, tmp_path):
    """A small one that Ultralytics takes for the real one, so that this is tried wherever the tests run."""
    package = tmp_path / "albumentations"
    package.mkdir()
    (package / "__init__.py").write_text(ALBUMENTATIONS)
    monkeypatch.delitem(sys.modules, "albumentations", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        pixels = np.zeros((2, 2, 3), np.uint8)
        assert (Albumentations()({"img": pixels})["img"] == 255).all(), "Ultralytics does not use it"
        assert helpers.differences(expected, batches(root)) == []
    finally:
        sys.modules.pop("albumentations", None)


@pytest.mark.parametrize("start", [Position(0, 2), Position(0, 6), Position(1, 0), Position(1, 5)])
@pytest.mark.parametrize("processes", [0, 3])
def test_the_loader_starts_at_any_batch(root, expected, start, processes):
    skipped = start.epoch * 6 + start.batch
    entered = start if start.batch < 6 else Position(start.epoch + 1, 0)
    train_loader = loader(root, workers=processes, arguments={"epochs": 2, **MIXED})
    train_loader.seek(start)
    loaded = [batch for _ in range(entered.epoch, 2) for batch in train_loader]
    train_loader.close()
    assert helpers.differences(expected[skipped:], loaded) == []


def test_other_seeds_give_other_batches(root, expected):
    assert helpers.differences(expected[0], batches(root, count=1, arguments={"seed": 4})[0]) != []


def test_what_ran_before_in_the_process_changes_nothing(root, expected):
    torch.manual_seed(123)
    torch.rand(1000)
    assert helpers.differences(expected[:3], batches(root, count=3)) == []


def test_in_memory_every_image_is_decoded_once(root):
    train_loader = loader(root, arguments={"epochs": 2})
    for _ in range(2):
        for _ in train_loader:
            pass
    assert train_loader.dataset.images.misses == len(train_loader.dataset)


# ---- the augmentations are Ultralytics' own --------------------------------------------------------------------------


def described(transform, dataset):
    """Return a transform's class and settings, comparable between two pipelines."""
    if isinstance(transform, Compose):
        return [described(part, dataset) for part in transform.transforms if not isinstance(part, Albumentations)]
    name = "Mosaic" if isinstance(transform, Mosaic) else type(transform).__name__
    settings = {}
    for key, value in vars(transform).items():
        if isinstance(value, (BaseTransform, Compose)):
            settings[key] = described(value, dataset)
        elif value is not dataset:
            settings[key] = value
    return name, settings


@pytest.mark.parametrize("mode", ["flip", "mixup"])
def test_the_pipeline_is_ultralytics_own_without_albumentations(root, mode):
    arguments = {**MIXED, "copy_paste_mode": mode, "shear": 3.0, "perspective": 0.0005, "flipud": 0.2, "hsv_h": 0.1}
    setup = TrialTrainer(helpers.job(root, "loader", arguments=arguments), Decisions())
    setup._setup_train()
    dataset = setup.train_loader.dataset
    stock = v8_transforms(dataset, dataset.imgsz, setup.args)
    ours = Compose(dataset.transforms.transforms[:-1])  # Format comes last and is compared below
    assert described(ours, dataset) == described(stock, dataset)
    formatted = dataset.format_class(
        bbox_format="xywh",
        normalize=True,
        return_mask=True,
        return_keypoint=False,
        return_obb=False,
        batch_idx=True,
        mask_ratio=setup.args.mask_ratio,
        mask_overlap=setup.args.overlap_mask,
        bgr=setup.args.bgr,
    )
    assert vars(dataset.transforms.transforms[-1]) == vars(formatted)


@pytest.mark.parametrize("cache", [False, "ram"])
@pytest.mark.parametrize("mode", ["flip", "mixup"])
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_images_kept_in_memory_are_not_drawn_over(root, monkeypatch, cache, limit, mode):
    """What every augmentation gets cannot be written to, and still all of them work."""
    monkeypatch.setattr("petskin_tune.training.trial_trainer.image_cache_bytes", lambda: limit)
    mixed = {**MIXED, "copy_paste_mode": mode, "mosaic": 0.3, "perspective": 0.0005, "flipud": 0.5, "bgr": 0.5}
    train_loader = loader(root, arguments={"epochs": 2, **mixed, "cache": cache})
    for _ in train_loader:
        pass
    dataset = train_loader.dataset
    for index, file in enumerate(dataset.im_files):
        pixels, original, resized = dataset.load_image(index)
        assert not pixels.flags.writeable
        assert (pixels == cv2.imread(file)).all()
        assert original == resized == (64, 64)
