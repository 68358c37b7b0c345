"""All trials of a study as Optuna's storage gives them, read without an object for every row.

Optuna makes an object of every row of six tables, and decodes the same distribution once for every trial. Here the
columns are read as they are, by the same statements in the same transaction, and each distinct distribution and short
attribute is decoded once. Whatever looks strange is left to Optuna's way, where it is said which row is damaged.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models as _models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

models: Any = _models

AT_ONCE = 500  # trials whose rows one statement asks for, as SQLAlchemy's loading of relations does
SHORT = 40  # characters of an attribute that others are likely to equal
_NUMBERS = frozenset({float, int})
_NOT_FINITE = {"INF_POS": float("inf"), "INF_NEG": float("-inf"), "NAN": float("nan")}

_trials = models.TrialModel.__table__.c
_params = models.TrialParamModel.__table__.c
_values = models.TrialValueModel.__table__.c
_users = models.TrialUserAttributeModel.__table__.c
_systems = models.TrialSystemAttributeModel.__table__.c
_curves = models.TrialIntermediateValueModel.__table__.c

_TRIALS = sa.select(
    _trials.trial_id, _trials.number, _trials.state, _trials.datetime_start, _trials.datetime_complete
).order_by(_trials.trial_id)


def _plain(column: Any) -> Any:
    """A column of an enumeration as its text: it is compared, not made an object of."""
    return sa.type_coerce(column, sa.String).label(column.name)


def _of_trials(owner: Any, *columns: Any) -> sa.Select[Any]:
    return sa.select(owner, *columns).where(owner.in_(sa.bindparam("ids", expanding=True)))


_PARAMS = _of_trials(
    _params.trial_id, _params.param_id, _params.param_name, _params.param_value, _params.distribution_json
)
_VALUES = _of_trials(_values.trial_id, _values.objective, _values.value, _plain(_values.value_type))
_USERS = _of_trials(_users.trial_id, _users.key, _users.value_json)
_SYSTEMS = _of_trials(_systems.trial_id, _systems.key, _systems.value_json)
_CURVES = _of_trials(
    _curves.trial_id, _curves.step, _curves.intermediate_value, _plain(_curves.intermediate_value_type)
)


def read(
    session: Session, study_id: int, states: Container[TrialState] | None, included: Iterable[int], after: int
) -> list[FrozenTrial]:
    """The trials of a study by Optuna's id: those beyond ``after``, and those ``included`` up to it.

    Args:
        session: within which the rows are read, all in one transaction.
        study_id: Optuna's.
        states: of the trials; None: all.
        included: ids.
        after: an id; -1: all trials.

    Raises:
        KeyError: there is no such study.
        ValueError, LookupError, TypeError, AssertionError, RecursionError: a row is strange.
    """
    models.StudyModel.find_or_raise_by_id(study_id, session)
    heads = _heads(session, study_id, states, {one for one in included if one <= after}, after)
    found: list[FrozenTrial] = []
    decoded, distribution = cache(json.loads), cache(_distribution)
    for begin in range(0, len(heads), AT_ONCE):
        found += _built(session, heads[begin : begin + AT_ONCE], decoded, distribution)
    return found


def _heads(
    session: Session, study_id: int, states: Container[TrialState] | None, included: set[int], after: int
) -> Sequence[Any]:
    asked = _TRIALS.where(_trials.study_id == study_id)
    if states is not None:
        asked = asked.where(_trials.state.in_(states))
    if after > -1 and len(included) > AT_ONCE:  # databases take so many numbers in a statement, and no more
        return [head for head in session.execute(asked) if head.trial_id > after or head.trial_id in included]
    if after > -1:
        asked = asked.where(sa.or_(_trials.trial_id > after, _trials.trial_id.in_(sorted(included))))
    return session.execute(asked).all()


def _built(
    session: Session,
    heads: Sequence[Any],
    decoded: Callable[[str], Any],
    distribution: Callable[[str], tuple[BaseDistribution, Callable[[float], Any]]],
) -> Iterator[FrozenTrial]:
    ids = [head[0] for head in heads]

    def rows(asked: sa.Select[Any]) -> Iterable[Any]:
        return session.execute(asked, {"ids": ids}).all()

    params = _params_of(ids, rows(_PARAMS), distribution)
    values: dict[int, dict[int, float]] = {one: {} for one in ids}
    for owner, objective, value, kind in rows(_VALUES):
        values[owner][objective] = _number(value, kind)
    users, systems = (_attributes_of(ids, rows(asked), decoded) for asked in (_USERS, _SYSTEMS))
    curves = _curves_of(ids, rows(_CURVES))
    for owner, number, state, begun, ended in heads:
        if type(number) is not int:
            raise ValueError(f"a trial has the number {number!r}")
        chosen, drawn_from = params[owner]
        yield FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=[values[owner][place] for place in range(len(values[owner]))] or None,
            datetime_start=begun,
            datetime_complete=ended,
            params=chosen,
            distributions=drawn_from,
            user_attrs=users[owner],
            system_attrs=systems[owner],
            intermediate_values=curves[owner],
            trial_id=owner,
        )


def _params_of(
    ids: Sequence[int],
    rows: Iterable[Any],
    distribution: Callable[[str], tuple[BaseDistribution, Callable[[float], Any]]],
) -> dict[int, tuple[dict[str, Any], dict[str, BaseDistribution]]]:
    """By trial: the values of its parameters, and their distributions; in the order in which they were drawn."""
    found: dict[int, tuple[dict[str, Any], dict[str, BaseDistribution]]] = {one: ({}, {}) for one in ids}
    for owner, _, name, value, text in sorted(rows, key=lambda row: row[1]):
        if type(value) not in _NUMBERS:
            raise ValueError(f"the parameter {name} is no number")
        drawn_from, outside = distribution(text)
        found[owner][0][name] = outside(value)
        found[owner][1][name] = drawn_from
    return found


def _distribution(text: str) -> tuple[BaseDistribution, Callable[[float], Any]]:
    known = json_to_distribution(text)
    return known, known.to_external_repr


def _attributes_of(ids: Sequence[int], rows: Iterable[Any], decoded: Callable[[str], Any]) -> dict[int, dict[str, Any]]:
    """By trial: its attributes. What can be changed is nobody else's, so that only text and numbers are shared."""
    found: dict[int, dict[str, Any]] = {one: {} for one in ids}
    for owner, name, text in rows:
        is_shared = len(text) <= SHORT and text[0] not in "[{ \t\n\r"
        found[owner][name] = decoded(text) if is_shared else json.loads(text)
    return found


def _curves_of(ids: Sequence[int], rows: Iterable[Any]) -> dict[int, dict[int, float]]:
    found: dict[int, dict[int, float]] = {one: {} for one in ids}
    for owner, step, value, kind in rows:
        if type(step) is not int:
            raise ValueError(f"an epoch has the number {step!r}")
        found[owner][step] = value if kind == "FINITE" and type(value) is float else _number(value, kind)
    return found


def _number(value: Any, kind: str) -> float:
    """What Optuna means by a number and its kind."""
    if kind == "FINITE":
        if type(value) not in _NUMBERS:
            raise ValueError(f"{value!r} is no number")
        return value  # type: ignore[no-any-return]
    if value is not None:
        raise ValueError(f"{value!r} is not {kind}")
    return _NOT_FINITE[kind]
