"""Text from anywhere, made safe to print: what commands a terminal, hides or cannot be encoded is spelled out.

Names of workers, classes, parameters and files, notes and failures come from other people's databases, archives and
disks. An escape sequence in one of them could clear the screen, rename the window or forge a line; a file name that is
no UTF-8 could end the command.
"""

from __future__ import annotations

import re

# Cc but tab and line feed; of Cf what reorders or hides text (the joiners U+200C and U+200D are part of scripts and
# emoji); line and paragraph separators; surrogates, which stand for bytes that are no UTF-8 (PEP 383).
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    r"""``text`` with every character that a terminal acts on spelled out: ``\x1b``; an undecodable byte as ``\xc7``.

    Tabs and line feeds stay: whoever wants one line takes them out.
    """
    return _UNSAFE.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
