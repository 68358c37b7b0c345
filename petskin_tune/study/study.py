"""The study in the database, the one truth of it: read, changed, deleted.

A study is an ordinary Optuna study. Its spec, its store and its data set's fingerprint are user attributes of it.
``creation.py`` makes one, ``wanted.py`` holds a person's study file against it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.orm import Session

from petskin_tune.database import queries
from petskin_tune.database.storage import PetskinStorage, models
from petskin_tune.errors import UsageError
from petskin_tune.study import attributes
from petskin_tune.study.best import ranking
from petskin_tune.study.fence import Fence, being_deleted, deleted
from petskin_tune.study.rows import attribute, changeable, keep_attribute, new_attribute, to_json, waiting_trial
from petskin_tune.study.space.parameters import check_settings
from petskin_tune.study.spec import CHANGEABLE, StudySpec
from petskin_tune.study.stored import checked, read_spec, recorded, study_attributes

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass
class Study:
    """A study in the database; ``spec`` is the one in force when it was last read."""

    storage: PetskinStorage
    optuna: optuna.Study
    spec: StudySpec
    uid: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> int:
        """Optuna's study id."""
        return self.optuna._study_id

    @property
    def name(self) -> str:
        """The study's name."""
        return self.spec.study

    @property
    def folders(self) -> list[Path]:
        """Where relative paths of the spec are looked up: the folder of the study file it was created from."""
        base = self.attributes.get(attributes.BASE)
        return [Path(base)] if base else []

    @property
    def store(self) -> str | None:
        """The store as the study names it, see :meth:`petskin_tune.home.home.Home.store_for`."""
        return self.attributes.get(attributes.STORE)

    @property
    def fence(self) -> Fence:
        """By which a write knows this study from one that has taken its place."""
        return Fence(self.id, self.uid, self.name)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials (in ``states``, or all) as they are now, by number. Not copies: read only.

        Raises:
            UsageError: somebody deleted the study.
        """
        try:
            return self.optuna.get_trials(deepcopy=False, states=states or None)
        except KeyError:
            raise deleted(self.name) from None

    def best(self) -> FrozenTrial | None:
        """The best trial, see :func:`petskin_tune.study.best.ranking.ranked`; None while no trial has a value."""
        return ranking.best(self.trials(*FINISHED), self.attributes)

    def refresh(self) -> None:
        """Read the spec in force and the requests of other processes again.

        Raises:
            UsageError: somebody deleted the study, or has begun to.
        """
        self.attributes = self.require()
        self.spec = read_spec(self.attributes)

    def require(self) -> dict[str, Any]:
        """The user attributes of the study as they are now; what this process knows of them stays as it is.

        Raises:
            UsageError: somebody deleted the study, or has begun to.
        """
        stored = self._stored()
        self.fence.check(stored)
        return stored

    def read_attribute(self, key: str) -> Any:
        """A user attribute as it is now; None where it is not set.

        Raises:
            UsageError: it is not as we write it, or somebody deleted the study.
        """
        return study_attributes(self._stored()).get(key)

    def _stored(self) -> dict[str, Any]:
        try:
            return self.storage.get_study_user_attrs(self.id)
        except KeyError:
            raise deleted(self.name) from None

    def set_attribute(self, key: str, value: Any) -> None:
        """Set a user attribute of the study.

        Raises:
            UsageError: somebody deleted the study, or has begun to; so it is with every write below.
        """

        def work(session: Session) -> None:
            self.fence.require(session)
            keep_attribute(session, self.id, key, value)

        self.storage.transaction(work)
        self.attributes = {**self.attributes, key: value}

    def mark_for_deletion(self, going: bool = True) -> None:
        """Let nobody begin anything in the study any more; or, ``going`` off, let them again.

        Raises:
            UsageError: somebody else has deleted it.
        """

        def work(session: Session) -> None:
            self.fence.require_kept(session)
            keep_attribute(session, self.id, attributes.DELETING, going or None)

        self.storage.transaction(work)

    def set_once(self, key: str, value: Any) -> Any:
        """Set a user attribute unless it is set; what is in force then."""

        def work(session: Session) -> Any:
            self.fence.require(session)
            row = attribute(session, self.id, key)
            if row is None:
                session.add(new_attribute(self.id, key, value))
                return value
            return json.loads(row.value_json)

        in_force = self.storage.transaction(work)
        self.attributes = {**self.attributes, key: in_force}
        return in_force

    def add_once(self, key: str, value: Any) -> None:
        """Add ``value`` to the list under a user attribute of the study, unless it is in it."""
        if value in self.attributes.get(key, ()):
            return

        def work(session: Session) -> list[Any]:
            self.fence.require(session)
            row = attribute(session, self.id, key)
            listed = [] if row is None else json.loads(row.value_json)
            if value not in listed:
                listed.append(value)
                if row is None:
                    session.add(new_attribute(self.id, key, listed))
                else:
                    row.value_json = json.dumps(listed)
            return listed

        self.attributes = {**self.attributes, key: self.storage.transaction(work)}

    def change(self, **values: Any) -> None:
        """Change keys of the spec that may change at any time (:data:`~petskin_tune.study.spec.CHANGEABLE`).

        Raises:
            UsageError: a value breaks a rule of the study file.
        """
        if not set(values) <= set(CHANGEABLE):
            raise ValueError(f"only {CHANGEABLE} may change")

        def work(session: Session) -> StudySpec:
            self.fence.require(session)
            row = attribute(session, self.id, attributes.SPEC)
            changed = read_spec({attributes.SPEC: json.loads(row.value_json)}).model_copy(update=values)
            spec = checked(changed, "The study")
            row.value_json = json.dumps(to_json(spec))
            return spec

        self.spec = self.storage.transaction(work)

    def take_file(self, mine: StudySpec) -> None:
        """Change what a study file says otherwise than when it was last taken: what an option changed since then stays.

        Args:
            mine: the file's.

        Raises:
            UsageError: together with what is in force it breaks a rule of the study file.
        """
        says = changeable(mine)
        if self.attributes.get(attributes.FILE) == says:
            return

        def work(session: Session) -> StudySpec:
            self.fence.require(session)
            row, said = (attribute(session, self.id, key) for key in (attributes.SPEC, attributes.FILE))
            before = {} if said is None else json.loads(said.value_json)
            news = {key: getattr(mine, key) for key in says if key not in before or before[key] != says[key]}
            changed = read_spec({attributes.SPEC: json.loads(row.value_json)}).model_copy(update=news)
            spec = checked(changed, "The study")
            row.value_json = json.dumps(to_json(spec))
            keep_attribute(session, self.id, attributes.FILE, says)
            return spec

        self.spec = self.storage.transaction(work)
        self.attributes = {**self.attributes, attributes.FILE: says}

    def request_stop(self) -> None:
        """Ask every worker that runs now to suspend; those that start later are not meant."""
        self._add_one(attributes.STOP_REQUESTED)

    @property
    def stop_requests(self) -> int:
        """How often :meth:`request_stop` was called, as far as this process has heard."""
        return int(self.attributes.get(attributes.STOP_REQUESTED, 0))

    def hear(self, news: Mapping[str, Any]) -> None:
        """Take over attributes of the study that were read with something else; the spec may be among them."""
        self.attributes = {**self.attributes, **study_attributes(news)}
        if attributes.SPEC in news:
            self.spec = read_spec(news)

    def _add_one(self, key: str) -> None:
        def work(session: Session) -> None:
            self.fence.require(session)
            row = attribute(session, self.id, key)
            if row is None:
                session.add(new_attribute(self.id, key, 1))
            else:
                row.value_json = json.dumps(json.loads(row.value_json) + 1)

        self.storage.transaction(work)

    def enqueue(self, point: Mapping[str, Any], origin: str) -> int:
        """Let the next free worker try ``point`` (searched names left out are drawn). Returns the trial's number."""
        return self.enqueue_once(waiting_trial(point, self.spec, origin, uuid.uuid4().hex))

    def enqueue_once(self, template: FrozenTrial) -> int:
        """Enqueue a trial of :func:`waiting_trial`, unless one of its nonce is there already. Returns its number."""
        nonce = template.system_attrs[attributes.ENQUEUED]

        def work(session: Session) -> int:
            self.fence.require(session)
            known = (
                session.query(models.TrialSystemAttributeModel)
                .filter_by(key=attributes.ENQUEUED, value_json=json.dumps(nonce))
                .one_or_none()
            )
            if known is not None:
                return models.TrialModel.find_or_raise_by_id(known.trial_id, session).number
            return self.storage._get_prepared_new_trial(self.id, template, session).number  # type: ignore[return-value]

        return self.storage.transaction(work)


def find_study(storage: PetskinStorage, name: str) -> Study | None:
    """The study of that name in the database, or None.

    Raises:
        UsageError: an Optuna study of that name is there, but it is none of ours, a newer petskin-tune made it, or
            somebody has changed what we keep with it.
    """
    try:
        study_id = storage.get_study_id_from_name(name)
    except (KeyError, UnicodeEncodeError):  # databases hold UTF-8, and a terminal may give any bytes
        return None
    stored = storage.get_study_user_attrs(study_id)
    if attributes.SPEC not in stored:
        raise UsageError(f"The database has a study {name!r} that petskin-tune did not create; choose another name.")
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # its warnings of an outage are whole statements
    opened = optuna.Study(study_name=name, storage=storage)
    spec = read_spec(stored)
    if spec.study != name or "/" in name or attributes.UID not in stored:
        raise UsageError(f"The study {name!r} in the database has lost its name or its uid: it cannot be gone on with.")
    return Study(storage, opened, spec, stored[attributes.UID], stored)


def our_names(storage: PetskinStorage, *, repetitions: bool = True) -> list[str]:
    """The names of the studies in this database that petskin-tune made, in the order in which they were created.

    Args:
        storage: open.
        repetitions: those of repetitions as well, see ``best/repeats.py``.
    """
    ours = (study for study in storage.get_all_studies() if attributes.SPEC in study.user_attrs)
    return [study.study_name for study in ours if repetitions or attributes.REPEATS not in study.user_attrs]


def refuse_deleted(study: Study) -> None:
    """Refuse a study that somebody has begun to delete: some of its files may be gone.

    Raises:
        UsageError: says how to end it.
    """
    if study.attributes.get(attributes.DELETING):
        raise being_deleted(study.name)


def delete_rows(study: Study) -> None:
    """Delete all that the database has of the study, Optuna's rows and ours, in one transaction.

    Nothing happens where somebody else has done so: another study may have its id by now.
    """
    statements = queries.delete_study(models.BaseModel.metadata)

    def work(session: Session) -> None:
        if study.fence.is_kept(session):
            for statement in statements:
                session.execute(statement, {"of_study": study.id})

    study.storage.transaction(work)


def settings_of(trial: FrozenTrial, spec: StudySpec) -> dict[str, Any]:
    """What a trial trains with beside what the study fixes: its parameters, and arguments that are its alone.

    Raises:
        UsageError: a study file could not say so: the trial was made or changed by somebody else.
    """
    try:
        return check_settings({**recorded(trial).get(attributes.FIXED, {}), **trial.params}, spec.search)
    except UsageError as error:
        raise UsageError(f"Trial {trial.number} cannot be trained as it stands in the database: {error}") from error
