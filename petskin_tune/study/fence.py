"""Whether a study is still the one that a process has open: asked under the lock of its row, before it is written to.

SQLite gives the id of a deleted study to the next one: only the uid tells them apart. Whoever deletes a study marks it
first, under the same lock: what was begun before is seen by then, and nothing is begun afterwards.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from petskin_tune.database import queries
from petskin_tune.database.unreadable import value_of
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes


@dataclass(frozen=True)
class Fence:
    """The study that a process has open.

    Attributes:
        id: Optuna's.
        uid: of the study; None: it has none, because Optuna alone made it.
        name: for people.
    """

    id: int
    uid: str | None
    name: str

    def require(self, session: Session) -> None:
        """Keep others from writing to the study until the transaction of ``session`` ends.

        Raises:
            UsageError: it was deleted, or somebody has begun to delete it.
        """
        self.check(self._lock(session))

    def require_kept(self, session: Session) -> None:
        """As :meth:`require`, for what goes on with a trial that is held: whoever deletes the study waits for its end.

        Raises:
            UsageError: it was deleted.
        """
        self._refuse_other(self._lock(session))

    def is_kept(self, session: Session) -> bool:
        """Whether the study is there; then it is locked as by :meth:`require`."""
        return self._is_ours(self._lock(session))

    def check(self, stored: Mapping[str, Any] | None) -> None:
        """Refuse a study that is not ours to work on any more.

        Args:
            stored: its user attributes as they are now; None: there is no study of this id.

        Raises:
            UsageError: it was deleted, or somebody has begun to delete it.
        """
        self._refuse_other(stored)
        if stored and stored.get(attributes.DELETING):
            raise being_deleted(self.name)

    def _refuse_other(self, stored: Mapping[str, Any] | None) -> None:
        if not self._is_ours(stored):
            raise deleted(self.name)

    def _is_ours(self, stored: Mapping[str, Any] | None) -> bool:
        return stored is not None and stored.get(attributes.UID) == self.uid

    def _lock(self, session: Session) -> dict[str, Any] | None:
        """What the locked study says of itself; None: there is no study of this id."""
        row = {"study_id": self.id}
        if session.execute(queries.LOCK_STUDY[session.get_bind().dialect.name], row).one_or_none() is None:
            return None
        wanted = {"uid": attributes.UID, "deleting": attributes.DELETING}
        found = session.execute(queries.WHOSE_STUDY, {**row, **wanted})
        return {attribute.key: value_of(attribute.value_json) for attribute in found}


def deleted(name: str) -> UsageError:
    """What to tell a person whose study is gone."""
    return UsageError(f"The study {name!r} was deleted from the database.")


def being_deleted(name: str) -> UsageError:
    """What to tell a person whose study is going: some of its files may be gone."""
    return UsageError(
        f"The study {name!r} is being deleted. To end it, type: petskin-tune delete {shlex.quote(name)}, "
        "with the --home or --storage that you have just given, if any."
    )
