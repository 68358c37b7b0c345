"""``results.csv`` of a trial: Ultralytics' columns, then masks class by class, readable whatever the classes' names."""

from __future__ import annotations

import csv
import math
from types import SimpleNamespace

import pytest

from petskin_tune.protocol import MASK_MAP
from petskin_tune.training.snapshots import results


def found(*classes):
    return SimpleNamespace(ap_class_index=list(range(len(classes))), ap=list(classes))


def test_classes_with_objects_are_told_by_name_and_the_others_not_at_all():
    masks = SimpleNamespace(ap_class_index=[0, 2], ap=[0.123456, 0.0])
    names = {0: "papule", 1: "scale", 2: "ulcer"}
    assert results.by_class(masks, names) == {f"{MASK_MAP}/papule": 0.12346, f"{MASK_MAP}/ulcer": 0.0}


def test_classes_of_one_name_have_a_score_each():
    names = {0: "lesion", 1: "lesion", 2: "ulcer"}
    assert results.by_class(found(0.1, 0.2, 0.3), names) == {
        f"{MASK_MAP}/lesion (class 0)": 0.1,
        f"{MASK_MAP}/lesion (class 1)": 0.2,
        f"{MASK_MAP}/ulcer": 0.3,
    }


@pytest.mark.parametrize("count", [1, results.MOST_CLASSES + 1])
def test_one_class_is_the_mean_and_very_many_are_too_much_for_a_history(count):
    assert results.by_class(found(*[0.1] * count), {number: str(number) for number in range(count)}) == {}


def test_nothing_is_told_where_no_class_has_an_object():
    assert results.by_class(found(), {0: "papule", 1: "ulcer"}) == {}


def test_a_comma_in_a_class_name_and_a_column_that_came_later_leave_the_table_whole(tmp_path):
    file, name = tmp_path / "results.csv", f"{MASK_MAP}/papule, plaque"
    results.write(file, [{MASK_MAP: 0.1}, {MASK_MAP: 0.2, name: 0.3}], [1.0, 2.0])
    first, second = csv.DictReader(file.open())
    assert second == {"epoch": "2", "time": "2", MASK_MAP: "0.2", name: "0.3"}
    assert math.isnan(float(first[name]))
