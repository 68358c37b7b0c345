"""Durations and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petskin_tune.study.study_file.units import format_duration, format_size, parse_duration, parse_size


@given(st.one_of(st.floats(0, 1e9), st.integers(0, 10**7).map(float)))
def test_any_duration_is_read_back(seconds):
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(0, 10**15))
def test_any_size_is_read_back(size):
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("90s", 90), ("1h30m", 5400), ("2 h", 7200), ("1d", 86400), ("0", 0), (45, 45)]
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["often", "5 minutes", "-5m", "m", "", None, True, float("inf"), -1, "5m 3"])
def test_what_is_no_duration_or_size_is_refused(text):
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "size"), [("6GB", 6 * 10**9), ("500 mb", 5 * 10**8), ("1GiB", 2**30), ("7", 7), (8, 8)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


def test_a_whole_number_beyond_every_float_is_too_much_of_anything():
    with pytest.raises(ValueError, match="is too long"):
        parse_duration(10**400)
    with pytest.raises(ValueError, match="is more than any disk holds"):
        parse_size(10**400)
