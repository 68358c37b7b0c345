"""Text streams that cannot break their writer, nor let through what would command the reader's terminal."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TextIO, cast

from petskin_tune.error_text import masked
from petskin_tune.printable import printable

_PLAINER = str.maketrans({"–": "-", "—": "-", "−": "-", "→": ">", "·": "*"})


class FilteredStream(io.TextIOBase):
    """A text stream that prints no control character and never fails for want of one in its encoding.

    Attributes:
        unfiltered: the stream beneath, for escape sequences of our own.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unfiltered = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream beneath."""
        return getattr(self.unfiltered, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write ``text``, filtered.

        Raises:
            TypeError: bytes, by which click finds out what kind of stream this is.
        """
        if not isinstance(text, str):
            raise TypeError("this stream takes text")
        self.unfiltered.write(encodable(printable(text), self.encoding))
        return len(text)

    @property
    def buffer(self) -> io.RawIOBase:
        """Where bytes are written, as click does for the completion of a shell; they are filtered, too."""
        return _Bytes(self)

    def writable(self) -> bool:
        """It is there to be written to."""
        return True

    def flush(self) -> None:
        """Flush the stream beneath."""
        self.unfiltered.flush()

    def isatty(self) -> bool:
        """Whether the stream beneath is a terminal."""
        return self.unfiltered.isatty()

    def fileno(self) -> int:
        """The descriptor beneath."""
        return self.unfiltered.fileno()

    def close(self) -> None:
        """Leave the stream beneath open: it is not ours."""


class _Bytes(io.RawIOBase):
    """The text of a stream as whole pieces of UTF-8."""

    def __init__(self, stream: FilteredStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        self._stream.write(bytes(text).decode("utf-8", "replace"))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


class _Nowhere(io.StringIO):
    """Takes everything and keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def unfiltered(stream: TextIO) -> TextIO:
    """The stream on which escape sequences of our own have their effect."""
    return cast(TextIO, getattr(stream, "unfiltered", stream))


@contextlib.contextmanager
def filtered_output() -> Iterator[None]:
    """Filter all that this process prints meanwhile, and the traceback that may end it.

    Where it was started without an output (``>&-``), what it prints there goes nowhere.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, FilteredStream(unfiltered(stream or _Nowhere()))) for stream in before)
    sys.excepthook = _print_traceback
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As Python does at its end, without secrets and escape sequences."""
    stream = FilteredStream(unfiltered(sys.stderr))
    stream.write(masked("".join(traceback.format_exception(kind, error, trace))))
    stream.flush()


class UnbreakableStream:
    """A text stream that goes on silently when its reader is gone, and spells out what its encoding cannot say."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"
        self.broken = False

    def write(self, text: str) -> int:
        """Write ``text`` if anybody can still read it."""
        if not self.broken:
            with self._breaking():
                self._stream.write(encodable(text, self.encoding))
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


def encodable(text: str, encoding: str) -> str:
    """``text`` as far as ``encoding`` can say it: signs of ours by their nearest, others spelled out."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        kept = "".join(sign if _can_say(encoding, sign) else sign.translate(_PLAINER) for sign in text)
        return kept.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _can_say(encoding: str, sign: str) -> bool:
    try:
        sign.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
