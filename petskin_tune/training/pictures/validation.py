"""One validation of a trial's best weights, as its training validates, which keeps what the pictures show."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from ultralytics.data import build_dataloader
from ultralytics.models.yolo.segment import SegmentationValidator
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import select_device

from petskin_tune.protocol import PicturesJob
from petskin_tune.training import guards
from petskin_tune.training.data.loading import StrictDataset, options_of, read_data, validation_set
from petskin_tune.training.micro_batches import smaller_part
from petskin_tune.training.pictures.photographs import Outlined, outlines_of, tile_size
from petskin_tune.training.process.isolation import ignore_signals

CONFIDENCE = 0.25  # from which on a prediction is shown and counts as a confusion, as Ultralytics' predictions do
MOST_SHOWN = 20  # predictions on a photograph


class KeepingValidator(SegmentationValidator):
    """Ultralytics' validator of masks, which counts confusions and keeps the predictions of some images.

    Args:
        wanted: paths of the images whose predictions are kept.
        loader: of the validation images.
        folder: for what Ultralytics would write.
        arguments: of the training.

    Attributes:
        kept: the predictions by path.
    """

    def __init__(self, wanted: Collection[str], loader: Any, folder: Path, arguments: Mapping[str, Any]) -> None:
        super().__init__(loader, save_dir=folder, args=dict(arguments))
        self._wanted = wanted
        self.kept: dict[str, list[Outlined]] = {}

    def _process_batch(self, preds: dict[str, torch.Tensor], batch: dict[str, Any]) -> dict[str, np.ndarray]:
        """Look at one image's predictions before Ultralytics does."""
        self.confusion_matrix.process_batch(preds, batch, conf=CONFIDENCE)
        if batch["im_file"] in self._wanted:
            self.kept[batch["im_file"]] = _outlined(preds, batch)
        return super()._process_batch(preds, batch)


def open_data(job: PicturesJob, model: nn.Module) -> tuple[dict[str, Any], StrictDataset]:
    """The data set as Ultralytics has it, and its validation images.

    Raises:
        DataError: it cannot be used.
    """
    data = read_data(job.data)
    arguments = KeepingValidator((), None, Path(job.run_folder), _validation(job)).args
    stride = max(int(model.stride.max()), 32)
    labels = Path(job.label_cache)
    return data, validation_set(**options_of(data["val"], data, arguments, 2 * arguments.batch, stride, labels))


def load(job: PicturesJob) -> tuple[nn.Module, torch.device]:
    """The model with its best weights, on the device that the job names."""
    if job.threads:
        torch.set_num_threads(job.threads)
    device = select_device(job.device, verbose=False)
    model, _ = load_checkpoint(job.weights, device=device)
    return model, device


def validate(
    job: PicturesJob,
    model: nn.Module,
    device: torch.device,
    data: dict[str, Any],
    images: StrictDataset,
    wanted: Collection[str],
) -> KeepingValidator:
    """Validate as a training does after an epoch: the averaged model, unfused, on batches of twice the training's.

    On smaller ones where the device runs out of memory; they never cut across images of two shapes.

    Args:
        job: names the arguments.
        model: on ``device``.
        device: to compute on.
        data: the data set as Ultralytics has it.
        images: of its validation split.
        wanted: paths of the images whose predictions are kept.
    """

    def in_batches_of(size: int) -> KeepingValidator:
        workers = 0 if device.type == "cpu" else job.workers or 0
        loader = build_dataloader(images, size, workers, shuffle=False, rank=-1, device=device)
        loader.worker_init_fn = ignore_signals
        validator = KeepingValidator(wanted, loader, Path(job.run_folder), _validation(job))
        validator.device, validator.data = device, data
        if hasattr(model, "end2end"):
            model.end2end = validator.args.nms is False
        validator.init_metrics(model)
        with torch.inference_mode():
            for batch in loader:
                batch = validator.preprocess(batch)
                validator.update_metrics(validator.postprocess(model(batch["img"])), batch)
        validator.get_stats()
        return validator

    size = images.batch_size
    while True:
        try:
            return in_batches_of(size)
        except Exception as error:
            size = smaller_part(images.batch_size, size)
            if not guards.is_out_of_memory(error) or not size:
                raise
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _validation(job: PicturesJob) -> dict[str, Any]:
    """The training's arguments as those of a validation that writes and plots nothing."""
    quiet = {"plots": False, "save_json": False, "save_txt": False, "visualize": False, "half": False}
    fixed = {"task": "segment", "mode": "val", "split": "val", "data": job.data, "device": job.device, "conf": None}
    return {**job.arguments, **quiet, **fixed}


def _outlined(preds: dict[str, torch.Tensor], batch: dict[str, Any]) -> list[Outlined]:
    """The surest predictions for an image, outlined in pixels of its tile."""
    order = torch.argsort(preds["conf"], descending=True)[:MOST_SHOWN]
    found = []
    for index in order[preds["conf"][order] >= CONFIDENCE].tolist():
        mask = preds["masks"][index].float().cpu().numpy()
        outlines = outlines_of(_as_tile(mask, batch["imgsz"], batch["ratio_pad"], batch["ori_shape"]))
        found.append(Outlined(int(preds["cls"][index]), outlines, float(preds["conf"][index])))
    return found


def _as_tile(mask: np.ndarray, padded: Any, ratio_pad: Any, original: tuple[int, int]) -> np.ndarray:
    """A mask of the padded input, a quarter as large, as one of the tile.

    Args:
        mask: (height, width) of 0 and 1.
        padded: height and width of the input, in pixels.
        ratio_pad: as Ultralytics' LetterBox says: the scales, and the padding left and above.
        original: height and width of the photograph, in pixels.
    """
    height, width = (int(side) for side in padded)
    whole = cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)
    left, top = ratio_pad[1]
    inner = whole[round(top - 0.1) : height - round(top + 0.1), round(left - 0.1) : width - round(left + 0.1)]
    high, wide = tile_size(*original)
    return cv2.resize(inner, (wide, high), interpolation=cv2.INTER_LINEAR) > 0.5
