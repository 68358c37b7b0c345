"""The Optuna storage of a study, which rides out an outage.

The study stays an ordinary Optuna study in ordinary tables. :class:`PetskinStorage` adds to Optuna's ``RDBStorage``:

* retries of the idempotent calls while the database is away (:class:`~petskin_tune.database.engine.Patience`);
* :meth:`PetskinStorage.transaction`: one transaction over Optuna's tables and ours, tried again from its start.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as _models
from optuna.storages._rdb.storage import _create_scoped_session
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from petskin_tune.database import queries, trial_rows, unreadable
from petskin_tune.database.addresses import mask, normalise_url, without_password
from petskin_tune.database.engine import (
    create_tables,
    engine_options,
    named_incompatibility,
    optunas_url,
    prepare,
    reading,
    require_tables,
)
from petskin_tune.database.garbage import rarely_collected
from petskin_tune.database.outages import Patience, is_outage
from petskin_tune.database.refusals import AFTER_DAMAGE, AFTER_FULL, is_damaged, is_full
from petskin_tune.database.watched_file import WatchedFile
from petskin_tune.errors import UsageError

Result = TypeVar("Result")
models: Any = _models  # Optuna's tables; their annotations do not tell columns from values

# Each opens one transaction of its own and, run twice, leaves what one run leaves.
IDEMPOTENT_CALLS = (
    "_get_best_trial_id",
    "_get_trials",
    "_set_trial_param",
    "get_all_studies",
    "get_study_directions",
    "get_study_id_from_name",
    "get_study_name_from_id",
    "get_study_system_attrs",
    "get_study_user_attrs",
    "get_trial",
    "get_trial_id_from_study_id_trial_number",
    "get_trial_param",
    "get_trial_system_attrs",
    "get_trial_user_attrs",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_system_attr",
    "set_trial_user_attr",
)


class PetskinStorage(RDBStorage):
    """Optuna's ``RDBStorage`` that waits out an outage.

    Args:
        url: SQLite or PostgreSQL.
        patience: how long calls wait for a database that is away.
        read_only: of an SQLite file that this user may not write to.
        tolerant: rows that cannot be read are passed over, see :mod:`petskin_tune.database.unreadable`; for views.

    Raises:
        UsageError: the tables belong to another version.
    """

    def __init__(
        self, url: str | URL, patience: Patience | None = None, *, read_only: bool = False, tolerant: bool = False
    ) -> None:
        parsed = normalise_url(url) if isinstance(url, str) else url
        self.patience = patience or Patience()
        self.tolerant = tolerant
        self._watched: WatchedFile | None = None
        self.patience.call(lambda: self._open_to_read(parsed) if read_only else self._open(parsed))

    def watch_file(self) -> None:
        """Notice from now on, where :meth:`require_file` is called, that an SQLite file is deleted or replaced."""
        if self.engine.name == "sqlite" and self._watched is None:
            self._watched = WatchedFile(Path(str(self.engine.url.database)))

    def require_file(self) -> None:
        """Make sure that the database is still the file that was opened; asks the disk, not the database.

        Raises:
            UsageError: it was deleted, moved or replaced; says where that lies which it held.
        """
        if self._watched is not None:
            self._watched.require()

    def clock(self) -> float:
        """Seconds since 1970 by the database's clock, which all workers share."""
        return self.transaction(lambda session: float(session.execute(queries.CLOCK[self.engine.name]).scalar_one()))

    def _open_to_read(self, url: URL) -> None:
        with named_incompatibility():
            super().__init__(optunas_url(url), engine_kwargs=reading(url), skip_table_creation=True)
        self._name_sessions()
        require_tables(self.engine)

    def _open(self, url: URL) -> None:
        create_tables(url)
        with named_incompatibility():
            super().__init__(optunas_url(url), engine_kwargs=engine_options(url), skip_table_creation=True)
        self._prepare()

    def _prepare(self) -> None:
        self.engine.dispose()  # connections opened before are not prepared
        self._name_sessions()
        prepare(self.engine)

    def _name_sessions(self) -> None:
        self.scoped_session.remove()
        self.scoped_session.configure(info={unreadable.STORAGE: self})

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        del state["patience"]  # its event and its listener belong to this process
        state["_watched"] = None
        return state

    def __setstate__(self, state: dict[Any, Any]) -> None:
        self.patience = Patience()
        super().__setstate__(state)
        self._prepare()

    def transaction(self, work: Callable[[Session], Result]) -> Result:
        """Run ``work`` in one transaction, again from its start when the database was away.

        ``work`` must be idempotent: after a lost acknowledgement it runs on top of its own result.
        """

        def attempt() -> Result:
            session = self.scoped_session()
            try:
                result = work(session)
                session.commit()
                return result
            except BaseException:
                _quietly(session.rollback)
                raise
            finally:
                _quietly(session.close)

        return unreadable.passing_over(lambda: self.patience.call(attempt))

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Optuna's, see :mod:`petskin_tune.database.trial_rows`; by Optuna's way where a row cannot be read."""
        asked = (study_id, states, included_trial_ids, trial_id_greater_than)
        if not unreadable.is_looking():
            with contextlib.suppress(*unreadable.ERRORS), _create_scoped_session(self.scoped_session) as session:
                return trial_rows.read(session, *asked)
        return super()._get_trials(*asked)

    def _build_frozen_trial_from_trial_model(self, trial: Any) -> FrozenTrial:
        unreadable.drop_optunas(trial)
        try:
            if not all(isinstance(row.param_value, (float, int)) for row in trial.params):
                raise ValueError(f"a parameter of trial {trial.number} is no number")
            built = super()._build_frozen_trial_from_trial_model(trial)
        except unreadable.ERRORS as error:
            if unreadable.is_first(error):
                raise
            if not self.tolerant:
                raise unreadable.Unreadable(error or f"of trial {trial.number}") from error
            built = self._built_without_parameters(trial)
        return unreadable.checked(built, tolerant=self.tolerant)

    def _built_without_parameters(self, trial: Any) -> FrozenTrial:
        unreadable.drop_parameters(trial)
        try:
            return super()._build_frozen_trial_from_trial_model(trial)
        except unreadable.ERRORS as error:
            raise unreadable.Unreadable(f"of trial {trial.number}: {error}") from error


def _quietly(close: Callable[[], None]) -> None:
    with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
        close()


def _with_patience(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: PetskinStorage, *args: Any, **kwargs: Any) -> Any:
        return unreadable.passing_over(lambda: self.patience.call(lambda: method(self, *args, **kwargs)))

    return call


def _of_many_rows(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: PetskinStorage, *args: Any, **kwargs: Any) -> Any:
        with rarely_collected():
            return method(self, *args, **kwargs)

    return call


for _name in IDEMPOTENT_CALLS:
    setattr(PetskinStorage, _name, _with_patience(getattr(PetskinStorage, _name)))
PetskinStorage._get_trials = _of_many_rows(PetskinStorage._get_trials)  # type: ignore[method-assign]


def open_storage(
    url: str, patience: Patience | None = None, *, read_only: bool = False, tolerant: bool = False
) -> PetskinStorage:
    """The storage at ``url``, its tables created where they are missing; see :class:`PetskinStorage`.

    Raises:
        UsageError: not a database, out of reach, or it refuses the password (never shown).
    """
    parsed = normalise_url(url)
    try:
        if parsed.get_backend_name() == "sqlite" and parsed.database and not read_only:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        return PetskinStorage(parsed, patience, read_only=read_only, tolerant=tolerant)
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, OSError) as error:
        raise unreachable(parsed, error) from None


def unreachable(url: URL, error: BaseException) -> UsageError:
    """What to tell a person whose database cannot be opened."""
    if isinstance(error, UsageError):
        return error
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    text = without_password(str(getattr(cause, "orig", None) or cause), url)
    if "authentication failed" in text or "no password supplied" in text:
        return UsageError(f"The database {mask(url)} refuses the user or the password.")
    if is_full(error):
        return UsageError(f"The database {mask(url)} has no room left. {AFTER_FULL}")
    verb = "reached" if is_outage(error) else "opened"
    way_on = f". {AFTER_DAMAGE}" if is_damaged(error) else ""
    way_on = "; look whether its disk is full or fails" if "disk i/o" in text.lower() else way_on
    return UsageError(f"The database {mask(url)} cannot be {verb}: {text}{way_on}")


def rows(result: Any) -> int:
    """How many rows a statement has changed."""
    return int(result.rowcount)
