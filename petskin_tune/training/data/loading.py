"""The data sets and the loader of a training: Ultralytics' augmentations in our order, with our random numbers."""

from __future__ import annotations

import os
import random
from collections import OrderedDict
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
from torch.utils.data import DataLoader
from ultralytics.data.augment import (
    Compose,
    CopyPaste,
    CutMix,
    Format,
    MixUp,
    Mosaic,
    RandomFlip,
    RandomHSV,
    RandomPerspective,
)
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import colorstr

from petskin_tune.datasets import layout
from petskin_tune.datasets.folders import images_at
from petskin_tune.datasets.labels.rows import label_path
from petskin_tune.errors import UsageError
from petskin_tune.printable import printable
from petskin_tune.protocol import Position
from petskin_tune.training.data.labels import DataError, check_whole, read_labels, unreadable
from petskin_tune.training.data.order import LANES, Order, SampleKey, seeded_sample
from petskin_tune.training.process.isolation import ignore_signals

IMAGE_CACHE_BYTES = 3 << 29  # decoded training images kept in memory, over all loader processes
PREFETCHED_BATCHES = 4  # per loader process, as Ultralytics

LoadedImage = tuple[np.ndarray, tuple[int, int], tuple[int, int]]  # pixels, original and resized (height, width)


def image_cache_bytes() -> int:
    """Return how many bytes of decoded images to keep, over all loader processes: less on a machine short of memory."""
    return min(IMAGE_CACHE_BYTES, psutil.virtual_memory().available // 8)


class ImageCache:
    """Images as they were loaded, the least recently used dropped first when they exceed ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.misses = 0
        self._images: OrderedDict[int, LoadedImage] = OrderedDict()

    def get(self, index: int) -> LoadedImage | None:
        """Return image ``index``, or None."""
        found = self._images.get(index)
        if found is None:
            self.misses += 1
        else:
            self._images.move_to_end(index)
        return found

    def put(self, index: int, image: LoadedImage) -> None:
        """Keep an image."""
        self._images[index] = image
        self.bytes += image[0].nbytes
        while self.bytes > self.limit:
            _, (pixels, _, _) = self._images.popitem(last=False)
            self.bytes -= pixels.nbytes


def read_data(data_yaml: str) -> dict[str, Any]:
    """Read a data set's YAML as ``init`` and ``data check`` do; Ultralytics' form, and no key that it would act on.

    Raises:
        DataError: It is wrong, or what it names is not there.
    """
    try:
        data_set = layout.read(Path(data_yaml))
    except UsageError as error:
        raise DataError(str(error)) from error
    return {
        "path": data_set.root,
        "yaml_file": data_yaml,
        **{split: [str(place) for place in places] for split, places in data_set.places.items()},
        "names": dict(enumerate(data_set.names)),
        "nc": len(data_set.names),
        "channels": layout.channels(data_set.raw),
        "by_name": data_set.by_name,
    }


class _NoArrays:
    """In the place of the paths ``X.npy`` beside each image ``X.png``: none of them is there."""

    def __getitem__(self, _: int) -> Path:
        return Path(os.devnull, "no.npy")


class StrictDataset(YOLODataset):
    """Ultralytics' segmentation data set that names an unusable file instead of going on without it.

    Pixels come from the image files alone. Ultralytics takes a file ``X.npy`` beside ``X.png`` for its own cache: it
    trains on it, writes it anew where it does not fit, and deletes what numpy cannot load. Here it is the user's, and
    ``cache='disk'``, which writes such files, keeps decoded images in memory as any training does.
    """

    npy_files = property(lambda self: _NoArrays(), lambda self, files: None)

    def __init__(self, *, label_cache: Path, **options: Any) -> None:
        self._label_cache = label_cache
        cache = options.pop("cache", None)
        super().__init__(cache=None if cache == "disk" else cache, **options)

    def get_img_files(self, img_path: str | list[str]) -> list[str]:
        """Return the paths of the split's images, as the data set has them.

        Raises:
            DataError: There are none.
        """
        places = [Path(place) for place in ([img_path] if isinstance(img_path, str) else img_path)]
        try:
            if self.data["by_name"]:
                files = [str(image) for image in layout.by_name(self.data["path"], places)]
            else:
                files = sorted(str(image) for place in places for image in images_at(place))
        except UsageError as error:
            raise DataError(str(error)) from error
        if not files:
            raise DataError(f"{printable(img_path)}: there are no images")
        return files

    def get_labels(self) -> list[dict[str, Any]]:
        """Return the labels of all images (see ``read_labels``)."""
        label_files = [str(label_path(Path(image))) for image in self.im_files]
        labels = read_labels(self.im_files, label_files, len(self.data["names"]), self._label_cache)
        self.verify_labels(labels, self._label_cache)
        return labels

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> LoadedImage:
        """Load image ``i``, resized to the training size.

        Raises:
            DataError: The file is gone, truncated or no image.
        """
        if self.ims[i] is None:
            check_whole(self.im_files[i])
        try:
            return super().load_image(i, rect_mode, resize_short)
        except FileNotFoundError as error:  # Ultralytics' way to say that OpenCV and Pillow gave nothing
            raise DataError(f"{printable(self.im_files[i])}: the image cannot be read") from error
        except Exception as error:
            raise unreadable(self.im_files[i], error) from error


def options_of(
    img_path: Any, data: dict[str, Any], arguments: SimpleNamespace, batch: int | None, stride: int, label_cache: Path
) -> dict[str, Any]:
    """Return what the data sets of a training and of its validations have in common, in Ultralytics' words.

    Args:
        img_path: Folders and lists of the split.
        data: The data set, see ``read_data``.
        arguments: Of the training.
        batch: Images of a batch.
        stride: The model's largest, in pixels.
        label_cache: Folder for the cache of labels.
    """
    return {
        "img_path": img_path,
        "imgsz": arguments.imgsz,
        "batch_size": batch,
        "hyp": arguments,
        "cache": arguments.cache or None,
        "stride": stride,
        "task": "segment",
        "data": data,
        "label_cache": label_cache,
    }


def validation_set(**options: Any) -> StrictDataset:
    """Return the images of a validation split, in batches of alike shapes; ``options``: see ``options_of``."""
    return StrictDataset(augment=False, rect=True, pad=0.5, prefix=colorstr("val: "), **options)


class WindowMosaic(Mosaic):
    """Mosaic whose partners come from the data set's window at the current sample, not from a buffer with a history."""

    def get_indexes(self) -> list[int]:
        """Return three partners for the current sample."""
        return random.choices(self.dataset.partners(), k=self.n - 1)


class TrainDataset(StrictDataset):
    """The training images; asked with a ``SampleKey``, it answers the same in any process and after any restart.

    Args:
        seed: The training's seed.
        mosaic_until: The first epoch (0-based) without mosaic, copy-paste, mixup and cutmix.
        cache_bytes: How many bytes of decoded images this process may keep; a cache of pure reads changes no result.
        options: As Ultralytics' ``YOLODataset``.
    """

    def __init__(self, *, seed: int, mosaic_until: int, cache_bytes: int, **options: Any) -> None:
        self._seed = seed
        self._mosaic_until = mosaic_until
        self.images = ImageCache(cache_bytes)
        self._place = SampleKey(0, 0, 0)
        self._window: tuple[tuple[int, int], list[int]] | None = None
        super().__init__(**options)
        self.max_buffer_length = 0  # Ultralytics' own buffer stays empty
        self.order = Order(seed, len(self), min(self.batch_size, len(self)))

    def build_transforms(self, hyp: SimpleNamespace) -> Compose:
        """Return the augmentations before mosaic closes; those after are kept in ``closed_transforms``."""
        closed = copy(hyp)
        closed.mosaic = closed.copy_paste = closed.mixup = closed.cutmix = 0.0
        self.closed_transforms = self._pipeline(closed)
        return self._pipeline(hyp)

    def _pipeline(self, hyp: SimpleNamespace) -> Compose:
        """``v8_transforms`` and ``Format`` of Ultralytics for segmentation, with our mosaic and without Albumentations.

        Ultralytics adds Albumentations where it happens to be installed, with generators of its own.
        """
        mosaic = WindowMosaic(self, imgsz=self.imgsz, p=hyp.mosaic)
        affine = RandomPerspective(
            degrees=hyp.degrees,
            translate=hyp.translate,
            scale=hyp.scale,
            shear=hyp.shear,
            perspective=hyp.perspective,
            size=(self.imgsz, self.imgsz),
        )
        if hyp.copy_paste_mode == "flip":
            mixed = Compose([mosaic, CopyPaste(self, p=hyp.copy_paste, mode="flip"), affine])
        else:
            partner = Compose([WindowMosaic(self, imgsz=self.imgsz, p=hyp.mosaic), affine])
            mixed = Compose([mosaic, affine, CopyPaste(self, partner, p=hyp.copy_paste, mode=hyp.copy_paste_mode)])
        return Compose(
            [
                mixed,
                MixUp(self, pre_transform=mixed, p=hyp.mixup),
                CutMix(self, pre_transform=mixed, p=hyp.cutmix),
                RandomHSV(hgain=hyp.hsv_h, sgain=hyp.hsv_s, vgain=hyp.hsv_v),
                RandomFlip(direction="vertical", p=hyp.flipud, flip_idx=[]),
                RandomFlip(direction="horizontal", p=hyp.fliplr, flip_idx=[]),
                Format(
                    bbox_format="xywh",
                    normalize=True,
                    return_mask=True,
                    batch_idx=True,
                    mask_ratio=hyp.mask_ratio,
                    mask_overlap=hyp.overlap_mask,
                    bgr=hyp.bgr,
                ),
            ]
        )

    def partners(self) -> list[int]:
        """Return the images that the current sample may be combined with by mosaic."""
        place = self._place.epoch, self._place.batch
        if self._window is None or self._window[0] != place:
            self._window = place, self.order.window(*place)
        return self._window[1]

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> LoadedImage:
        """Load image ``i`` from the cache or from disk, for reading only.

        An augmentation that wrote into a cached image would make its next use depend on this one. None of Ultralytics'
        does (they work on the mosaic or on the warped image); if one ever should, numpy refuses.
        """
        if (image := self.images.get(i)) is not None:
            return image
        pixels, original, resized = super().load_image(i, rect_mode, resize_short)
        pixels = pixels.view()
        pixels.flags.writeable = False
        image = pixels, original, resized
        if self.cache != "ram":  # Ultralytics' own cache holds all images, and is filled by several threads
            self.images.put(i, image)
        return image

    def __getitem__(self, key: SampleKey) -> dict[str, Any]:  # type: ignore[override]
        """Return the sample ``key``, augmented under its own seed."""
        with seeded_sample(self._seed, key):
            self._place = key
            transforms = self.transforms if key.epoch < self._mosaic_until else self.closed_transforms
            return transforms(self.get_image_and_label(key.image))


class TrainLoader:
    """Batches of a training from any position on, prefetched across the ends of epochs.

    Iterating yields what is left of the current epoch, so that ``for batch in loader`` is one epoch, as with
    Ultralytics' ``InfiniteDataLoader``, whose other attributes that the trainer reads are here too.

    Args:
        dataset: What is loaded; its order is the loader's.
        epochs: Epochs of the training.
        workers: Loader processes; as many are started as divide the order's lanes.
        pin_memory: Hand batches over in page-locked memory, for a GPU.
    """

    drop_last = False

    def __init__(self, dataset: TrainDataset, epochs: int, workers: int, pin_memory: bool) -> None:
        self.dataset = dataset
        self.order = dataset.order
        self.epochs = epochs
        self.num_workers = max((number for number in range(1, workers + 1) if LANES % number == 0), default=0)
        self.pin_memory = pin_memory
        self.batch_size = self.order.batch
        self.sampler = range(self.order.images)
        self._next = Position(0, 0)
        self._iterator: Iterator[dict[str, Any]] | None = None

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.order.batches

    def seek(self, position: Position) -> None:
        """Let the next batch be the one at ``position``."""
        self.close()
        at_end = position.batch >= len(self)
        self._next = Position(position.epoch + 1, 0) if at_end else position

    def reset(self) -> None:
        """Forget what was prefetched and go on from the next batch."""
        self.seek(self._next)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rest of the current epoch."""
        if self._iterator is None:
            self._iterator = iter(self._loader())
        epoch = self._next.epoch
        for batch in range(self._next.batch, len(self)):
            loaded = next(self._iterator)
            self._next = Position(epoch, batch + 1) if batch + 1 < len(self) else Position(epoch + 1, 0)
            yield loaded

    def close(self) -> None:
        """End the loader processes; the next iteration starts new ones."""
        shut_down = getattr(self._iterator, "_shutdown_workers", None)
        if shut_down:
            shut_down()
        self._iterator = None

    def _loader(self) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_sampler=self.order.stream(self._next, self.epochs),  # an iterable is enough
            num_workers=self.num_workers,
            prefetch_factor=PREFETCHED_BATCHES if self.num_workers else None,
            pin_memory=self.pin_memory,
            collate_fn=self.dataset.collate_fn,
            worker_init_fn=ignore_signals,
        )
