"""A text stream that cannot break its writer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TextIO


class UnbreakableStream:
    """A text stream that goes on silently when its reader is gone, and replaces what its encoding cannot say."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.broken = False

    def write(self, text: str) -> int:
        """Write ``text`` if anybody can still read it."""
        if not self.broken:
            with self._breaking():
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        """Flush if anybody can still read it."""
        if not self.broken:
            with self._breaking():
                self._stream.flush()

    def isatty(self) -> bool:
        """Whether this is a terminal."""
        return not self.broken and self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor beneath."""
        return self._stream.fileno()

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # EPIPE, EIO of a closed terminal; "I/O operation on closed file"
            self.broken = True
            self._let_buffered_text_go()

    def _let_buffered_text_go(self) -> None:
        """What is still buffered would raise again at the interpreter's end and turn its exit code into 120."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
