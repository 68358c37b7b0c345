"""Text from anywhere (a disk, a database, an archive), as it may reach a terminal, a page or a file.

Names of workers, classes, parameters and files, notes and failures are other people's. An escape sequence in one of
them could clear the screen, rename the window or forge a line. File names are bytes: Python decodes them as UTF-8 and
keeps every other byte as a lone surrogate (``surrogateescape``, PEP 383), which no encoder takes.
"""

from __future__ import annotations

import html
import re

LONGEST_SENTENCE = 1600  # characters: what a terminal of 24 lines of 80 columns shows, and a prompt
_LONGEST_QUOTED = 300  # characters
_ESCAPED = "surrogateescape"
# Cc but tab and line feed; of Cf what reorders or hides text (the joiners U+200C and U+200D are part of scripts and
# emoji); line and paragraph separators; surrogates, which stand for bytes that are no UTF-8 (PEP 383).
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
# ``USER:SECRET@`` of a URL, whose secret may hold anything up to the last ``@``, or of a text that is none.
_CREDENTIALS = re.compile(
    r"(://[^\s:@/]{0,100}:)(?!PASSWORD@)(?!\d{1,5}(?:[/\s]|$))(?:\S{1,2000}|[^@\n]{1,200})@"
    r"|(?<![\w.+-])([\w.+-]{0,100}:)(?!PASSWORD@)[^\s/@]{1,2000}@"
)
# A parameter of a URL whose name says that it is secret, and addresses that are secrets themselves.
_PARAMETERS = re.compile(
    r"([?&][\w.-]{0,40}(?:pass|pwd|secret|token|sig|key|credential)[\w.-]{0,40}=)[^&\s'\"`]{1,2000}", re.IGNORECASE
)
_HOOKS = re.compile(r"(hooks\.slack\.com/services/|discord(?:app)?\.com/api/webhooks/)[^\s'\"`]{1,2000}")


def printable(text: object) -> str:
    r"""``text`` with every character that a terminal acts on spelled out: ``\x1b``; an undecodable byte as ``\xc7``.

    Tabs and line feeds stay: whoever wants one line takes them out.
    """
    return _UNSAFE.sub(_spelled, str(text))


def one_line(text: object) -> str:
    r"""``text`` as one printable line: a line feed is spelled ``\n``."""
    return printable(text).replace("\n", "\\n")


def sentence(text: object) -> str:
    """``text`` as one printable line without the secrets of what looks like a URL in it.

    People give URLs where a path or a name is asked for, and a refusal quotes them: of ``USER:SECRET@``, behind a
    scheme or not, the secret is masked; so are parameters called password, token, sig and the like, and webhooks.
    """
    masked = _CREDENTIALS.sub(r"\1\2***@", one_line(text))
    return _HOOKS.sub(r"\1***", _PARAMETERS.sub(r"\1***", masked))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def html_text(text: object, *, quote: bool = True) -> str:
    """``text`` as printable HTML; with ``quote`` also inside of an attribute."""
    return html.escape(printable(text), quote=quote)


def in_json(text: str) -> str:
    r"""JSON whose strings have what :func:`printable` spells out spelled so: ``\\u202e`` is six characters in them."""
    return _UNSAFE.sub(lambda found: "\\" + _spelled(found), text)


def raw(text: str) -> bytes:
    """The bytes that ``text`` is on a disk: for digests and for files that name files."""
    try:
        return text.encode("utf-8", _ESCAPED)
    except UnicodeEncodeError:  # a surrogate that stands for no byte, as YAML and JSON can write it
        return text.encode("utf-8", "surrogatepass")


def from_raw(content: bytes) -> str:
    """The inverse of :func:`raw`, without a byte order mark."""
    return content.decode("utf-8", _ESCAPED).removeprefix("\ufeff")


def quoted(value: object) -> str:
    """What a sentence quotes, printable and short enough to leave room for the sentence."""
    return shortened(printable(value), _LONGEST_QUOTED, _LONGEST_QUOTED * 5 // 8)


def shortened(text: str, longest: int, head: int) -> str:
    """``text``, or its first ``head`` characters and its end where it is longer than ``longest``."""
    if len(text) <= longest:
        return text
    return f"{text[:head]} … {text[-(longest - head - 3) :]}"
