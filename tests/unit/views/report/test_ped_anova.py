"""Importances are Optuna's, and what Optuna imports beside them is left where it is."""

from __future__ import annotations

import subprocess
import sys

import optuna
import pytest

from petskin_tune.views.report import ped_anova
from petskin_tune.views.report.ped_anova import shares_of

IN_A_PROCESS_OF_ITS_OWN = """
import sys
from petskin_tune.views.report import parameters
from petskin_tune.views.report.ped_anova import PACKAGE, evaluator_kind
from petskin_tune.views.report.rows import read
from tests.support.made_studies import made

found = made(40, 6)
shares = parameters.importances(read(found.study, found.leases, {}))
heavy = {name.partition(".")[0] for name in sys.modules} & {"sklearn", "boto3", "google"}
assert shares and not heavy, (shares, heavy)
assert not [name for name in sys.modules if name.startswith(PACKAGE)]

import optuna
assert optuna.importance.PedAnovaImportanceEvaluator is not evaluator_kind()
assert optuna.importance._base.BaseImportanceEvaluator in optuna.importance.PedAnovaImportanceEvaluator.__mro__

usual = optuna.importance.PedAnovaImportanceEvaluator
parameters.evaluator_kind = lambda: usual
assert parameters.importances(read(found.study, found.leases, {})) == shares
"""


def test_a_report_imports_none_of_what_other_methods_need_and_says_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_where_optuna_is_built_otherwise_its_package_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def otherwise() -> None:
        raise ImportError

    monkeypatch.setattr(ped_anova, "_copy", otherwise)
    monkeypatch.delitem(sys.modules, ped_anova.PACKAGE, raising=False)
    kind = ped_anova.evaluator_kind.__wrapped__()
    assert kind.__name__ == "PedAnovaImportanceEvaluator"


def test_shares_are_those_of_optuna() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + 0.1 * trial.suggest_float("y", 0, 1), n_trials=30)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    raw = evaluator.evaluate(study, params=["x", "y"])
    usual = optuna.importance.get_param_importances(study, evaluator=evaluator, params=["x", "y"])
    assert shares_of(raw) == usual
    assert shares_of({"x": 0.0, "y": 0.0}) == {"x": 0.5, "y": 0.5}
