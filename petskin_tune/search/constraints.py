"""What a trial that ran out of memory or diverged tells the sampler: a violated constraint.

Told as FAIL, such a trial teaches nothing: samplers skip it, and half of a search ran out of memory again and again. As
a constraint, 0 or 1 and on *every* trial (Optuna's GP asks for the same ones on all), the model learns where not to go.
"""

from __future__ import annotations

from petskin_tune.protocol import FailureKind

PREFIX = "constraints:"  # under which Optuna's trial.set_constraint(name, value) keeps a value in the system attributes
_VIOLATED_BY: dict[str, FailureKind] = {"oom": "out-of-memory", "diverged": "diverged"}
NAMES = tuple(_VIOLATED_BY)


def constraint_attrs(failure: FailureKind | None) -> dict[str, float]:
    """The system attributes to write in the transaction that tells a trial's end.

    They say the same as ``trial.set_constraint("oom", …)`` and ``("diverged", …)``: above 0 is violated. A trial that
    violates one is told as PRUNED; any other failure as FAIL, from which no sampler should conclude anything.
    """
    return {f"{PREFIX}{name}": float(failure == kind) for name, kind in _VIOLATED_BY.items()}
