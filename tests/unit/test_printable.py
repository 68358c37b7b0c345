from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.printable import printable

ANYTHING = st.text(alphabet=st.characters(exclude_categories=()))


@given(ANYTHING)
def test_nothing_that_commands_a_terminal_is_left(text: str) -> None:
    said = printable(text)
    assert not [sign for sign in said if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") and sign not in "\t\n"]
    assert not set(said) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
    said.encode("utf-8")
    assert printable(said) == said


@pytest.mark.parametrize("text", ["피부\u3000병변 2024\u00a0é", "👩\u200d⚕️ नमस्\u200dते", "a\tb\nc", '{"a": "\\u001b"}'])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_control_character_and_an_undecodable_byte_are_spelled_out() -> None:
    assert printable("\x1b]0;pwned\x07 \x9b2J \r") == r"\x1b]0;pwned\x07 \x9b2J \x0d"
    assert printable(b"\xc7\xc7.jpg".decode("utf-8", "surrogateescape")) == r"\xc7\xc7.jpg"
    assert printable("\ud800 \u202e") == r"\ud800 \u202e"
