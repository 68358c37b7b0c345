"""Whether the last batch of an epoch, which may be smaller than the others, can be trained.

BatchNorm needs more than one value per channel. One image whose side is no longer than the model's stride gives the
deepest layers a single one. The rule is that of ``_build_train_pipeline`` in ultralytics/engine/trainer.py.
"""

from __future__ import annotations

STRIDE = 32  # pixels of the image for one of the deepest layers, at least: Ultralytics reckons with no smaller one


def smallest_side(imgsz: int, multi_scale: float = 0.0, stride: int = STRIDE) -> int:
    """The smallest side that images may have in a training, in pixels; for the arguments see below."""
    return max(stride, int(imgsz * (1 - multi_scale))) // stride * stride


def last_batch_fault(images: int, batch: int, imgsz: int, multi_scale: float = 0.0, stride: int = STRIDE) -> str | None:
    """Why a training ends at the last batch of an epoch, and what to change; None where it does not.

    Args:
        images: to train on.
        batch: images in a batch.
        imgsz: side of the images, in pixels.
        multi_scale: share of ``imgsz`` by which sides vary.
        stride: the model's largest, in pixels.
    """
    smallest = smallest_side(imgsz, multi_scale, stride)
    if smallest >= 2 * stride or (images % batch or batch) != 1:
        return None
    scaled, what = (f" (`multi_scale` {multi_scale:g})", "sizes") if multi_scale else ("", "an `imgsz`")
    return (
        f"a last batch of one image (`batch` {batch}, {images} to train on) cannot be trained at {smallest} "
        f"pixels{scaled}, BatchNorm has one value per channel there: take another `batch`, or {what} of {2 * stride} "
        "or more"
    )
