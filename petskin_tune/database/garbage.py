"""Python's collector of cyclic garbage, kept from looking at everything again and again while many rows are read.

SQLAlchemy makes an object of every row. Of a thousand trials the collector, which each few hundred new objects
wake, would otherwise take as long as all the rest of the reading.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

RARELY = 100_000  # new objects between two collections

_lock = threading.Lock()
_readers = 0
_usual = gc.get_threshold()


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Within it garbage is collected rarely; several threads may be within at the same time."""
    global _readers, _usual
    with _lock:
        if not _readers:
            _usual = gc.get_threshold()
            if 0 < _usual[0] < RARELY:  # 0: somebody has switched it off
                gc.set_threshold(RARELY, *_usual[1:])
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                gc.set_threshold(*_usual)
