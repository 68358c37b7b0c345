"""Optuna's PED-ANOVA without the rest of ``optuna.importance``.

That package imports scikit-learn for its other methods, which takes longer than all of a report of a hundred trials.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

PACKAGE = "optuna.importance"

_lock = threading.Lock()


@cache
def evaluator_kind() -> Any:
    """``PedAnovaImportanceEvaluator``: Optuna's own where it is there already, else a copy that brings nothing along.

    Of the copy nothing stays behind: whoever imports the package afterwards gets it whole.
    """
    with _lock:
        if PACKAGE not in sys.modules:
            try:
                return _copy()
            except (ImportError, AttributeError):  # of a release that is built otherwise
                pass
        return importlib.import_module(PACKAGE).PedAnovaImportanceEvaluator


def shares_of(importances: Mapping[str, float]) -> dict[str, float]:
    """Each parameter's share of the whole, as ``get_param_importances`` tells it: all alike where there is none."""
    whole = sum(importances.values())
    return {name: value / whole if whole else 1 / len(importances) for name, value in importances.items()}


def _copy() -> Any:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ImportError(PACKAGE)
    sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)  # with its place on disk; nothing of it has run
    try:
        return importlib.import_module(f"{PACKAGE}._ped_anova").PedAnovaImportanceEvaluator
    finally:
        for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]
