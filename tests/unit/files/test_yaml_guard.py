"""YAML of others: bounded, and one kind of error."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.files import yaml_guard
from tests.support.fuzzing import cases


def billion_laughs(levels: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"names: [*a{levels - 1}]"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (billion_laughs(), "more than 200000 values"),
        ("a: &a {x: 1}\nb: &b {<<: [*a, *a]}\nc: &c [*c]", "stands within itself|undefined alias|more than"),
        ("&a [*a]", "stands within itself|undefined alias|more than"),
        ("[" * 5000, "maximum nesting depth|more than 40 lists"),
        ("[" * 300 + "]" * 300 + "\n- [", "more than 40 lists"),
        ("a: !!int ''", "cannot be read"),
        ("a: !!timestamp x", "cannot be read"),
        (f"a: {'9' * 5000}", "cannot be read"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: [1", "expected"),
        ("a: \x01", "control characters are not allowed"),
    ],
)
def test_what_is_no_sound_yaml_is_refused_with_one_kind_of_error(text: str, said: str) -> None:
    with pytest.raises(yaml_guard.BadYaml, match=said):
        yaml_guard.parse_yaml(text)


def test_ordinary_aliases_and_merges_are_read() -> None:
    assert yaml_guard.parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": [{"x": 1}, {"x": 1}],
    }
    assert yaml_guard.parse_yaml("") is None


def test_what_looks_like_a_date_stays_a_word() -> None:
    assert yaml_guard.parse_yaml("a: 2024-13-45\nb: 2024-12-31") == {"a": "2024-13-45", "b": "2024-12-31"}


def test_words_that_yaml_takes_for_true_and_false_stay_words_where_names_are_meant() -> None:
    text = "names: [yes, no, On, 1, 010, 1.10, =, null]\nflag: yes\n"
    named = ["yes", "no", "On", "1", "010", "1.10", "=", None]
    assert yaml_guard.parse_yaml(text, as_written=("names",)) == {"names": named, "flag": True}
    assert yaml_guard.parse_yaml("names: {0: off}", as_written=("names",)) == {"names": {0: "off"}}


def test_a_number_that_names_two_classes_is_refused_at_its_line() -> None:
    for text in ("names:\n  0: a\n  0: b\n", "names:\n  8: a\n  010: b\n"):
        with pytest.raises(yaml_guard.BadYaml, match=r"^line 3: . is given twice, first in line 2"):
            yaml_guard.parse_yaml(text, as_written=("names",))
    merged = "names: {<<: {0: a}, <<: {1: b}, 2: c}"
    assert yaml_guard.parse_yaml(merged, as_written=("names",)) == {"names": {0: "a", 1: "b", 2: "c"}}


def test_a_file_in_another_encoding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [a]", encoding="utf-16")
    with pytest.raises(yaml_guard.BadYaml, match="byte 0 is no UTF-8: save it as UTF-8"):
        yaml_guard.load_yaml(tmp_path / "data.yaml")


@cases(100)
@given(st.text(alphabet=st.sampled_from("&*ab[]{},:-? \n'\"|>!<#0129.~%@\t\u0085"), max_size=80))
def test_no_text_ends_in_another_error(text: str) -> None:
    with suppress(yaml_guard.BadYaml):
        yaml_guard.parse_yaml(text)
