"""YAML of others: bounded, and one kind of error."""

from __future__ import annotations

from contextlib import suppress

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.files import yaml_guard


def billion_laughs(levels: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"names: [*a{levels - 1}]"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (billion_laughs(), "more than 1,000,000 values"),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: &c [*c]", "stands for what contains it"),
        ("&a [*a]", "stands for what contains it"),
        ("[" * 5000, "nested too deeply"),
        ("[" * 300 + "]" * 300 + "\n- [", "line|expected|parsing"),
        ("a: 2024-13-45", "month must be in 1..12"),
        ("a: !!int ''", "cannot be? read|cannot read"),
        ("a: !!timestamp x", "cannot read"),
        (f"a: {'9' * 5000}", "cannot read"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: [1", "expected"),
        ("a: \x01", "special characters are not allowed"),
    ],
)
def test_what_is_no_sound_yaml_is_refused_with_one_kind_of_error(text: str, said: str) -> None:
    with pytest.raises(yaml.YAMLError, match=said):
        yaml_guard.load(text)


def test_ordinary_aliases_and_merges_are_read() -> None:
    assert yaml_guard.load("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
    }
    assert yaml_guard.load("") is None


def test_words_that_yaml_takes_for_true_and_false_stay_words_where_names_are_meant() -> None:
    text = "names: [yes, no, On, 1, x]\nflag: yes\n"
    assert yaml_guard.load(text, as_written=("names",)) == {"names": ["yes", "no", "On", 1, "x"], "flag": True}
    assert yaml_guard.load("names: {0: off}", as_written=("names",)) == {"names": {0: "off"}}


@given(st.text(alphabet=st.sampled_from("&*ab[]{},:-? \n'\"|>!<#0129.~%@\t\u0085"), max_size=80))
def test_no_text_ends_in_another_error(text: str) -> None:
    with suppress(yaml.YAMLError):
        yaml_guard.load(text)
