"""Errors in one line: whole, at most so long, without passwords."""

from __future__ import annotations

import pytest

from petskin_tune.error_text import LONGEST_MESSAGE, masked, named, one_line, shortened, tail
from petskin_tune.study.failures import Failure


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    message = "Error(s) in loading state_dict for SegmentationModel:" + "".join(
        f"\n\tsize mismatch for model.{layer}.conv.weight: 80 and 64." for layer in range(96)
    )
    said = one_line(RuntimeError(message))
    assert len(said) == LONGEST_MESSAGE
    assert said.startswith("Error(s) in loading state_dict for SegmentationModel: size mismatch for model.0.conv")
    assert said.endswith("size mismatch for model.95.conv.weight: 80 and 64.")
    assert shortened("short") == "short"


def test_an_error_without_a_message_is_told_by_its_name() -> None:
    assert named(KeyError()) == "KeyError"
    assert named(ValueError("no")) == "ValueError: no"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("postgresql://me:geheim@host/db is away", "geheim"),
        ("s3://bucket?X-Amz-Security-Token=geheim&x=1", "geheim"),
        ("{'password': 'geheim'}", "geheim"),
        ("AWS_SECRET_ACCESS_KEY=geheim", "geheim"),
        ("api_key: geheim", "geheim"),
    ],
)
def test_what_is_secret_is_masked(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in masked(text)
    kept = Failure("crashed", text, f"Traceback\n{text}").to_json()
    assert secret not in str(kept)


def test_what_is_no_secret_stays() -> None:
    text = 'https://docs.example.org/key: File "a.py", line 3, in tokenize, http://host:80/x, a@b.c'
    assert masked(text) == text


def test_the_end_of_a_text_is_its_last_lines_cut_to_a_width() -> None:
    assert tail("one\n\ntwo\n" + "x" * 50 + "\n", 2, width=10) == ["two", "x" * 9 + "…"]


@pytest.mark.parametrize("word", ["x", "password", "secret-", "a.b+"])
def test_an_endless_word_is_read_in_time_that_grows_with_its_length(word: str) -> None:
    """With that of its square, this would take longer than any test may."""
    text = word * (200_000 // len(word))
    assert masked(text) == text


def test_a_secret_behind_an_endless_word_is_masked_all_the_same() -> None:
    before = "x" * 10_000
    assert masked(f"{before}://user:hidden@host/x") == f"{before}://user:***@host/x"
    assert masked(f"{'.' * 100}://user:hidden@host/x") == f"{'.' * 100}://user:***@host/x"
    assert masked(f"{'password' * 1000}=hidden") == f"{'password' * 1000}=***"
