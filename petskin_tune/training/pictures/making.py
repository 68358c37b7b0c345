"""From a job to its pictures: choose the images, validate once, draw, write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from petskin_tune.datasets import layout
from petskin_tune.datasets.names import told_apart
from petskin_tune.datasets.pictures.decoding import decode
from petskin_tune.files import regular
from petskin_tune.files.atomic import write_whole
from petskin_tune.printable import printable
from petskin_tune.protocol import PICTURES, PicturesJob, PicturesMade
from petskin_tune.training.data.loading import StrictDataset
from petskin_tune.training.pictures import canvas, charts
from petskin_tune.training.pictures.choice import Labelled, choose
from petskin_tune.training.pictures.photographs import PER_SHEET, Outlined, Shown, sheet, tile_size
from petskin_tune.training.pictures.validation import KeepingValidator, load, open_data, validate
from petskin_tune.training.process import environment


def make(job: PicturesJob) -> PicturesMade:
    """Make all :data:`~petskin_tune.protocol.PICTURES` of a trial in the folder ``pictures`` of the job's own.

    Raises:
        Exception: whatever kept it from being made; nobody's training ends of it.
    """
    environment.quiet_ultralytics()
    model, device = load(job)
    data, images = open_data(job, model)
    chosen = _chosen(job, images)
    validator = validate(job, model, device, data, images, chosen.values())
    names = told_apart(list(data["names"].values()))
    drawn = [*_sheets(chosen, images, validator, names), *_plots(validator, names, job.history)]
    folder = Path(job.run_folder) / "pictures"
    for name, picture in zip(PICTURES, drawn, strict=True):
        write_whole(folder / name, canvas.jpeg(picture))
    return PicturesMade(str(folder), float(validator.metrics.seg.map), tuple(chosen))


# ---- photographs -----------------------------------------------------------------------------------------------------


def _chosen(job: PicturesJob, images: StrictDataset) -> dict[str, str]:
    """The paths of the images to show, by names that are the same on every machine."""
    data_set = layout.read(Path(job.data))
    paths = {layout.image_name(data_set, Path(label["im_file"])): label for label in images.labels}
    shown = choose({name: _labelled(label) for name, label in paths.items()}, job.seed)
    return {name: paths[name]["im_file"] for name in shown}


def _labelled(label: Mapping[str, Any]) -> Labelled:
    classes = frozenset(int(number) for number in label["cls"].ravel())
    areas = label["bboxes"][:, 2] * label["bboxes"][:, 3]
    return Labelled(classes, len(areas), float(areas.min()) if len(areas) else 1.0)


def _sheets(
    chosen: Mapping[str, str], images: StrictDataset, validator: KeepingValidator, names: Sequence[str]
) -> list[np.ndarray]:
    labels = {label["im_file"]: label for label in images.labels}
    shown = [_shown(name, labels[path], validator.kept.get(path, [])) for name, path in chosen.items()]
    starts = range(0, 3 * PER_SHEET, PER_SHEET)
    return [sheet(shown[start : start + PER_SHEET], names, start + 1) for start in starts]


def _shown(name: str, label: Mapping[str, Any], predictions: Sequence[Outlined]) -> Shown:
    path = Path(label["im_file"])
    pixels = decode(regular.read_bytes(path, regular.LARGEST_PICTURE), path.suffix)
    if pixels is None:
        raise ValueError(f"{printable(path)} cannot be decoded")
    high, wide = tile_size(*pixels.shape[:2])
    tile = cv2.resize(pixels, (wide, high), interpolation=cv2.INTER_AREA)
    outlines = [np.asarray(segment, np.float32) * (wide, high) for segment in label["segments"]]
    labels = [Outlined(int(number), (line,)) for number, line in zip(label["cls"].ravel(), outlines, strict=True)]
    return Shown(printable(name.removeprefix("images/")), np.ascontiguousarray(tile), labels, predictions)


# ---- plots -----------------------------------------------------------------------------------------------------------


def _plots(
    validator: KeepingValidator, names: Sequence[str], history: Mapping[str, Sequence[float]]
) -> list[np.ndarray]:
    """Confusions, precision by recall, F1 by confidence, mask mAP by class, losses: in the order of ``PICTURES``."""
    masks = validator.metrics.seg
    present = [names[int(index)] for index in masks.ap_class_index]
    by_class = len(present)
    precision = np.asarray(masks.prec_values if by_class else np.zeros((0, 1000)))
    f1 = np.asarray(masks.f1_curve if by_class else np.zeros((0, 1000)))
    at_half = [float(value) for value in masks.ap50] if by_class else []
    best = f1.max(1).tolist() if by_class else []
    xs = np.linspace(0, 1, 1000)
    mean = f1.mean(0) if by_class else np.zeros_like(xs)
    top = f"{mean.max():.2f} at {xs[mean.argmax()]:.2f}"
    return [
        charts.confusion_matrix(np.asarray(validator.confusion_matrix.matrix), names),
        charts.curves(
            xs, precision, present, "Masks: precision by recall (mAP50)", ("recall", "precision"), _scores(at_half)
        ),
        charts.curves(
            xs, f1, present, "Masks: F1 by confidence (highest F1)", ("confidence", "F1"), [top, *_scores(best)[1:]]
        ),
        charts.bars(present, [float(value) for value in masks.ap] if by_class else [], "Mask mAP50-95 by class"),
        charts.losses(history),
    ]


def _scores(values: Sequence[float]) -> list[str]:
    """The mean, and each value."""
    mean = sum(values) / len(values) if values else 0.0
    return [f"{value:.3f}" for value in (mean, *values)]
