"""Environment variables that hold seconds."""

from __future__ import annotations

import pytest

from petskin_tune import variables
from petskin_tune.errors import UsageError


@pytest.mark.parametrize(("text", "seconds"), [(None, 12.0), ("", 12.0), (" 170 ", 170.0), ("0.5", 0.5), ("0", 0.0)])
def test_seconds_are_those_of_the_variable_or_the_default(
    text: str | None, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(variables.GRACE, raising=False)
    if text is not None:
        monkeypatch.setenv(variables.GRACE, text)
    assert variables.seconds(variables.GRACE, 12.0) == seconds


@pytest.mark.parametrize("text", ["3m", "-1", "nan", "inf", "1,5"])
def test_what_is_no_number_of_seconds_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variables.PATIENCE, text)
    with pytest.raises(UsageError, match="TUNE_PATIENCE_SECONDS must be a number of seconds"):
        variables.seconds(variables.PATIENCE, 0.0)
