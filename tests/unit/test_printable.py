"""Text from elsewhere can be printed and written, and its bytes are kept where they count."""

from __future__ import annotations

import json
import os
import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.errors import UsageError
from petskin_tune.printable import LONGEST_SENTENCE, from_raw, one_line, printable, quoted, raw, sentence

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


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("file://u:SECRET@h/x", "file://u:***@h/x"),
        ("file:/u:SECRET@h/x", "file:/u:***@h/x"),
        ("u:SECRET@h/x", "u:***@h/x"),
        ("//u:SECRET@h", "//u:***@h"),
        ("s3:k:SECRET@b", "s3:***@b"),
        ("https://u:SEC/R@ET:S@h/x", "https://u:***@h/x"),
        ("https://:SECRET@h", "https://:***@h"),
        ("postgresql://u:***@h/x", "postgresql://u:***@h/x"),
        ("https://h/x@y", "https://h/x@y"),
        ("me@example.org", "me@example.org"),
        ("postgresql://u:SEC RET@h/x", "postgresql://u:***@h/x"),
        ("postgresql://h/x?user=u&password=SECRET", "postgresql://h/x?user=u&password=***"),
        ("https://h/data.zip?sig=SECRET&v=1", "https://h/data.zip?sig=***&v=1"),
        ("https://hooks.slack.com/services/T/B/SECRET", "https://hooks.slack.com/services/***"),
        ("http://h:8080/x, or ask me@example.org", "http://h:8080/x, or ask me@example.org"),
        ("postgresql://USER:PASSWORD@HOST/DATABASE", "postgresql://USER:PASSWORD@HOST/DATABASE"),
    ],
)
def test_a_refusal_quotes_no_secret_of_what_looks_like_a_url(typed: str, said: str) -> None:
    assert str(UsageError(f"There is no study `{typed}`, neither here nor there: look.")) == (
        f"There is no study `{said}`, neither here nor there: look."
    )
    assert sentence(said) == said


def test_a_refusal_is_one_line_whatever_it_quotes() -> None:
    assert str(UsageError("there is no `a\nb\x1b[2J`")) == r"there is no `a\nb\x1b[2J`"
    assert one_line("a\tb\nc") == "a\tb\\nc"


def test_what_a_sentence_quotes_leaves_room_for_the_sentence() -> None:
    assert len(quoted("y" * 10_000)) <= 300
    assert quoted("short") == "short"


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
