"""Class names: one text a class, told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petskin_tune.datasets.names import class_names, repeated, told_apart
from petskin_tune.errors import UsageError

HERE = Path("data.yaml")


@pytest.mark.parametrize("nc", [3, "3", 3.0, None])
def test_a_number_of_classes_that_agrees_is_taken_as_ultralytics_takes_it(nc: Any) -> None:
    assert class_names(HERE, {"names": ["a", "b", "c"], "nc": nc}) == ("a", "b", "c")


@pytest.mark.parametrize("nc", [2, 80, "4"])
def test_a_number_of_classes_that_does_not_agree_is_refused_with_both(nc: Any) -> None:
    with pytest.raises(UsageError, match=f"`nc: {nc}` and the 3 `names` do not agree"):
        class_names(HERE, {"names": ["a", "b", "c"], "nc": nc})


@pytest.mark.parametrize("nc", [True, "many", 1.5, 0, [3], float("nan"), 10**12])
def test_what_is_no_number_of_classes_is_refused(nc: Any) -> None:
    with pytest.raises(UsageError, match="`nc:` must be the number of `names`"):
        class_names(HERE, {"names": ["a"], "nc": nc})


@pytest.mark.parametrize("name", [None, ["a"], {"a": 1}, "x" * 256, "a\x1b[2Jb", "\udcc7"])
def test_a_name_that_is_no_text_for_people_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="class 1") as refused:
        class_names(HERE, {"names": ["a", name]})
    assert len(str(refused.value)) < 400


def test_numbers_and_dates_are_names_as_they_are_written() -> None:
    assert class_names(HERE, {"names": [1, 2.5, "다래끼"]}) == ("1", "2.5", "다래끼")
    assert class_names(HERE, {"names": {"1": "b", "0": "a"}}) == ("a", "b")


def test_classes_of_one_name_are_told_apart_by_their_number() -> None:
    assert told_apart(["lesion", "ulcer", "lesion"]) == ["lesion (class 0)", "ulcer", "lesion (class 2)"]
    assert repeated(["lesion", "ulcer", "lesion "]) == ["lesion"]
    assert repeated(["가", "\u1100\u1161", "b"]) == ["가"]
    assert repeated(["Lesion", "lesion", "ulcer"]) == ["Lesion"]
    assert repeated(["a", "b"]) == []
