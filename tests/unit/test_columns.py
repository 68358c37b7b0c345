from __future__ import annotations

import pytest

from petskin_tune.columns import cut, padded, table, width, wrapped


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("mask mAP", 8),
        ("반려견", 6),
        ("반려견-1", 8),
        ("e\u0301", 1),
        ("\u1112\u1161\u11ab", 2),
        ("한", 2),
        ("·…–", 3),
        ("", 0),
    ],
)
def test_a_text_is_as_wide_as_a_terminal_draws_it(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize("text", ["host-12345", "반려견-피부-질환-연구", "가a나b다c라d"])
@pytest.mark.parametrize("columns", range(2, 30))
def test_what_is_cut_fits_and_keeps_both_ends(text: str, columns: int) -> None:
    shown = cut(text, columns)
    assert width(shown) <= columns
    if shown != text:
        head, _, end = shown.partition("…")
        assert text.startswith(head)
        assert text.endswith(end)


def test_cells_of_two_alphabets_stand_below_each_other() -> None:
    lines = table([("worker", "epoch"), ("반려견-1", "7/27"), ("colab", "12/27")], right=[1])
    assert lines == ["worker    epoch", "반려견-1   7/27", "colab     12/27"]
    assert padded("반", 4, right=True) == "  반"


def test_lines_are_broken_between_words_however_wide_their_letters_are() -> None:
    lines = wrapped("반려견 피부 질환 segmentation", 12, first="- ", then="  ")
    assert lines == ["- 반려견", "  피부 질환", "  segmentation"]
    assert wrapped("/a/path/that/is/longer a", 10) == ["/a/path/that/is/longer", "a"]
    assert wrapped("  ", 10, first="- ") == []
