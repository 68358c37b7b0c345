"""The pixels of a picture as the training sees them, without torch and Ultralytics.

The trainer reads with OpenCV, which keeps the high byte of 16 bits a channel; Pillow clips them to white.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

_WITH_PILLOW = (".avif", ".heic", ".heif")  # suffixes of what OpenCV may not read
_WITH_PAGES = (".tif", ".tiff")


def decode(raw: bytes, suffix: str) -> np.ndarray | None:
    """Pixels (height, width, 3), blue first, turned as their EXIF says; None where the training sees none.

    The same as ``imread(file)`` of ``ultralytics/utils/patches.py``; a test compares the two. What is not of 8 bits
    after that (pictures of floating point) is none to a training.

    Args:
        raw: content of the file.
        suffix: of its name, which decides between decoders.
    """
    import cv2  # a tenth of a second that no command should wait for that decodes nothing

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says names no file
    content = np.frombuffer(raw, np.uint8)
    pixels = None
    if suffix.lower() in _WITH_PAGES:
        read, pages = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED)
        pixels = pages[0][..., :3] if read and pages[0].ndim == 3 else None  # without alpha
    if pixels is None and suffix.lower() in _WITH_PILLOW:
        pixels = _with_pillow(raw)
    if pixels is None:
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)
    if pixels is not None and pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return pixels if pixels is not None and pixels.dtype == np.uint8 and pixels.shape[-1] == 3 else None


def _with_pillow(raw: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(raw)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[..., ::-1]
    except Exception:  # noqa: BLE001 - as the trainer, which then asks OpenCV
        return None
