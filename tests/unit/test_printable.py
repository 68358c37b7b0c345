"""Text from elsewhere can be printed and written, and its bytes are kept where they count."""

from __future__ import annotations

import json
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.errors import UsageError
from petskin_tune.printable import LONGEST_SENTENCE, from_raw, printable, quoted, raw

KOREAN = os.fsdecode("털".encode("cp949"))  # b"\xc5\xd0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("피부 – 1.jpg", "피부 – 1.jpg"),
        (KOREAN, r"\xc5\xd0"),
        ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_what_cannot_be_encoded_or_is_obeyed_by_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_encoded_once_it_is_printable_and_stays_so(text: str) -> None:
    assert printable(printable(text)) == printable(text)
    printable(text).encode()  # does not raise


@given(st.binary())
def test_the_bytes_of_a_name_are_kept(content: bytes) -> None:
    assert raw(content.decode("utf-8", "surrogateescape")) == content
    assert from_raw(content) == content.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def test_half_a_character_has_bytes_too() -> None:
    assert raw(json.loads(r'"\ud800"')) == b"\xed\xa0\x80"


def test_a_refusal_is_printable_no_longer_than_a_screen_and_survives_pickling() -> None:
    refused = UsageError(f"begins {KOREAN}" + "x" * 100_000 + "ends")
    assert len(str(refused)) == LONGEST_SENTENCE <= 24 * 80
    assert str(refused).startswith(r"begins \xc5\xd0")
    assert str(refused).endswith("ends")
    assert str(pickle.loads(pickle.dumps(refused))) == str(refused)


def test_what_a_sentence_quotes_leaves_room_for_the_sentence() -> None:
    assert len(quoted("y" * 10_000)) <= 300
    assert quoted("short") == "short"
