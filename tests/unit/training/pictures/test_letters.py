from __future__ import annotations

import cv2
import numpy as np
import pytest

from petskin_tune.training.pictures import letters


def ink(text: str, size: int = 20) -> np.ndarray:
    return letters.mask.__wrapped__(text, size)


@pytest.mark.skipif(not hasattr(cv2, "FontFace"), reason="this OpenCV brings no letters along")
def test_korean_letters_differ_from_each_other_and_from_those_that_nobody_has() -> None:
    drawn = [ink(text) for text in ("가", "뷁", "\U0010fffe", "각")]
    assert len({picture.tobytes() for picture in drawn}) == 4
    assert all(picture.any() for picture in drawn)
    assert ink("구진").shape[1] > 1.5 * ink("구").shape[1]


@pytest.mark.parametrize("has_letters", [True, False])
def test_text_is_one_line_whatever_it_is(has_letters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_letters:
        monkeypatch.delattr(cv2, "FontFace", raising=False)
    for text in ("", "a\nb\x1b[2J", "가" * 300, "e\u0301", "😀"):
        assert ink(text, 15).shape[0] == ink("x", 15).shape[0]
        assert ink(text, 15).dtype == np.uint8


def test_decomposed_hangul_is_drawn_as_composed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.array_equal(ink("\u1100\u116e"), ink("구"))
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    assert np.array_equal(ink("\u1100\u116e"), ink("구"))


def test_hangul_is_written_in_latin_letters_where_no_font_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "FontFace", raising=False)
    monkeypatch.setattr(letters, "_of_this_machine", lambda: ())
    assert np.array_equal(ink("구진 papule"), ink("gujin papule"))
    assert np.array_equal(ink("☃\U0010fffe구"), ink("☃?gu"))


SPELLED = {"구진": "gujin", "결절·종괴": "gyeoljeol·jonggoe", "뷁 abc": "bwek abc", "궤양": "gweyang"}


@pytest.mark.parametrize("hangul", SPELLED)
def test_a_syllable_is_spelled_by_its_letters(hangul: str) -> None:
    assert letters.romanised(hangul) == SPELLED[hangul]
