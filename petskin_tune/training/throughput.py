"""How fast batches are trained, without the validations and snapshots between them."""

from __future__ import annotations

import time

PROGRESS_EVERY = 0.5  # seconds


class Throughput:
    """Counts the batches of one process."""

    def __init__(self) -> None:
        self._seconds = 0.0  # in batches, in all
        self._batches = 0
        self._images = 0  # since the rate was told last
        self._seconds_told = 0.0  # in batches, then
        self._told_at = time.monotonic()

    @property
    def seconds_per_batch(self) -> float:
        """The mean so far; 0 before the first batch."""
        return self._seconds / max(self._batches, 1)

    def add(self, images: int, seconds: float) -> float | None:
        """Count a batch.

        Returns:
            Images a second since it was told last, now and then; else None.
        """
        self._seconds += seconds
        self._batches += 1
        self._images += images
        if time.monotonic() - self._told_at < PROGRESS_EVERY:
            return None
        rate = self._images / (self._seconds - self._seconds_told)
        self._told_at, self._images, self._seconds_told = time.monotonic(), 0, self._seconds
        return rate
