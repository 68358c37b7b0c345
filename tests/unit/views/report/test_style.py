from __future__ import annotations

import json
import math

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from petskin_tune.views.report import style

LOG = FloatDistribution(1e-5, 1e-1, log=True)


@pytest.mark.parametrize(
    ("value", "written"),
    [(1e-5, "1e-5"), (0.00081634, "0.0008163"), (0.5, "0.5"), (1.0, "1"), (3, "3"), ("AdamW", "AdamW"), (1e22, "1e22")],
)
def test_numbers_are_written_as_people_type_them(value: object, written: str) -> None:
    assert style.number(value) == written


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-5, 1e-1, [1e-5, 1e-3, 1e-1]),
        (1e-3, 1e-1, [1e-3, 1e-2, 1e-1]),
        (2e-4, 5e-4, [2e-4, 5e-4]),
        (2e-6, 3e-1, [1e-5, 1e-3, 1e-1]),
    ],
)
def test_a_logarithmic_axis_has_few_round_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert style.decades(low, high, 4) == ticks


def test_an_axis_is_logarithmic_where_the_space_is() -> None:
    assert style.parameter_axis("lr0", LOG)["type"] == "log"
    assert "type" not in style.parameter_axis("mosaic", FloatDistribution(0, 1))
    choices = style.parameter_axis("optimizer", CategoricalDistribution(("SGD", None, "<b>")))
    assert choices["ticktext"] == ["SGD", "None", "&lt;b&gt;"]


def test_a_value_has_its_place_between_the_ends_of_what_is_searched() -> None:
    assert style.unit(1e-3, LOG) == pytest.approx(0.5)
    assert style.unit(5, IntDistribution(0, 10)) == 0.5
    assert style.unit("b", CategoricalDistribution(("a", "b"))) == 0.75
    assert math.isnan(style.position("c", CategoricalDistribution(("a", "b"))))


def test_json_in_a_page_cannot_end_its_script_and_has_no_nan() -> None:
    text = style.as_json({"name": "</script><!--", "y": [1.5, math.nan, math.inf], 7: None})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script><!--", "y": [1.5, None, None], "7": None}


def test_json_in_a_page_spells_out_what_would_turn_the_page() -> None:
    text = style.as_json({"name": "\\\u202e\x7f\ud800 \n가"})
    assert text.isprintable()
    assert json.loads(text) == {"name": "\\\\u202e\\x7f\\ud800 \n가"}


def test_long_names_leave_room_for_the_plot() -> None:
    assert len(style.label("x" * 300)) == style.LONGEST_LABEL
