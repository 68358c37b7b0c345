"""The study: created from a study file or opened from the database, one truth in the database.

A study is an ordinary Optuna study. Its spec, its store and its data set's fingerprint are user attributes of it. It is
born in one transaction together with its start points, so that of racing workers one creates it and the others open it.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from petskin_tune.database import queries
from petskin_tune.database.storage import PetskinStorage, models
from petskin_tune.errors import UsageError
from petskin_tune.printable import raw
from petskin_tune.study import attributes, ranking
from petskin_tune.study import file as study_file
from petskin_tune.study.space import check_settings
from petskin_tune.study.spec import CHANGEABLE, SPEC_VERSION, StudySpec
from petskin_tune.study.stored import checked, read_spec, recorded, study_attributes

START_POINT = "start point"  # where a trial comes from that the study file asks for
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class Wanted:
    """What a person named with ``--study``: a name, and the file behind it where there is one."""

    name: str
    spec: StudySpec | None = None
    file: study_file.FoundFile | None = None
    folder: Path | None = None  # of the study file
    shipped: bool = False
    warnings: tuple[str, ...] = ()
    frozen: bool = False  # the study in the database stands, whatever this spec says
    named: str | None = None  # the study file, as a person types it

    @property
    def is_compared(self) -> bool:
        """Whether the file has a say once the study is in the database."""
        return self.spec is not None and not (self.shipped or self.frozen)

    def beside(self, stored: StudySpec) -> StudySpec | None:
        """The spec to compare with ``stored``: with the defaults of the version that the study was begun with."""
        if self.file is None or stored.version == SPEC_VERSION:
            return self.spec
        return self.file.read(stored.version).spec


def wanted(name_or_path: str) -> Wanted:
    """Find and parse the study file, if there is one.

    Raises:
        UsageError: a path that is not there, or a file that is broken or contradictory.
    """
    found = study_file.find(name_or_path)
    if found is None:
        is_name = raw(name_or_path).decode(errors="replace") == name_or_path  # no database holds another
        if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")) or not is_name:
            raise study_file.not_found(name_or_path)
        return Wanted(name_or_path)
    parsed = found.read()
    folder, warnings = found.path.absolute().parent, tuple(parsed.warnings)
    return Wanted(parsed.spec.study, parsed.spec, found, folder, found.shipped, warnings, named=name_or_path)


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

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials (in ``states``, or all) as they are now, by number. Not copies: read only."""
        return self.optuna.get_trials(deepcopy=False, states=states or None)

    def best(self) -> FrozenTrial | None:
        """The best trial, see :func:`petskin_tune.study.ranking.ranked`; None while no trial has a value."""
        return ranking.best(self.trials(*FINISHED), self.attributes)

    def refresh(self) -> None:
        """Read the spec in force and the requests of other processes again.

        Raises:
            UsageError: somebody deleted the study, or has begun to.
        """
        try:
            self.attributes = self.optuna.user_attrs
        except KeyError:
            raise UsageError(f"The study {self.name!r} was deleted from the database.") from None
        refuse_deleted(self)
        self.spec = read_spec(self.attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set a user attribute of the study."""
        self.optuna.set_user_attr(key, value)
        self.attributes = {**self.attributes, key: value}

    def set_once(self, key: str, value: Any) -> Any:
        """Set a user attribute unless it is set; what is in force then."""

        def work(session: Session) -> Any:
            session.execute(queries.LOCK_STUDY[self.storage.engine.name], {"study_id": self.id})
            row = _attribute(session, self.id, key)
            if row is None:
                session.add(_new_attribute(self.id, key, value))
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
            session.execute(queries.LOCK_STUDY[self.storage.engine.name], {"study_id": self.id})
            row = _attribute(session, self.id, key)
            listed = [] if row is None else json.loads(row.value_json)
            if value not in listed:
                listed.append(value)
                if row is None:
                    session.add(_new_attribute(self.id, key, listed))
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
            session.execute(queries.LOCK_STUDY[self.storage.engine.name], {"study_id": self.id})
            row = _attribute(session, self.id, attributes.SPEC)
            changed = read_spec({attributes.SPEC: json.loads(row.value_json)}).model_copy(update=values)
            spec = checked(changed, "The study")
            row.value_json = json.dumps(_to_json(spec))
            return spec

        self.spec = self.storage.transaction(work)

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
            session.execute(queries.LOCK_STUDY[self.storage.engine.name], {"study_id": self.id})
            row = _attribute(session, self.id, key)
            if row is None:
                session.add(_new_attribute(self.id, key, 1))
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
            session.execute(queries.LOCK_STUDY[self.storage.engine.name], {"study_id": self.id})
            known = (
                session.query(models.TrialSystemAttributeModel)
                .filter_by(key=attributes.ENQUEUED, value_json=json.dumps(nonce))
                .one_or_none()
            )
            if known is not None:
                return models.TrialModel.find_or_raise_by_id(known.trial_id, session).number
            return self.storage._get_prepared_new_trial(self.id, template, session).number  # type: ignore[return-value]

        return self.storage.transaction(work)


# ---- opening ---------------------------------------------------------------------------------------------------------


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
    if spec.study != name or attributes.UID not in stored:
        raise UsageError(f"The study {name!r} in the database has lost its name or its uid: it cannot be gone on with.")
    return Study(storage, opened, spec, stored[attributes.UID], stored)


def our_names(storage: PetskinStorage, *, repetitions: bool = True) -> list[str]:
    """The names of the studies in this database that petskin-tune made, in the order in which they were created.

    Args:
        storage: open.
        repetitions: those of repetitions as well, see ``repeats.py``.
    """
    ours = (study for study in storage.get_all_studies() if attributes.SPEC in study.user_attrs)
    return [study.study_name for study in ours if repetitions or attributes.REPEATS not in study.user_attrs]


def refuse_deleted(study: Study) -> None:
    """Refuse a study that somebody has begun to delete: some of its files may be gone.

    Raises:
        UsageError: says how to end it.
    """
    if study.attributes.get(attributes.DELETING):
        raise UsageError(
            f"The study {study.name!r} is being deleted. To end it, type: petskin-tune delete {study.name}"
        )


def delete_rows(study: Study) -> None:
    """Delete all that the database has of the study, Optuna's rows and ours, in one transaction."""
    statements = queries.delete_study(models.BaseModel.metadata)

    def work(session: Session) -> None:
        session.execute(queries.LOCK_STUDY[study.storage.engine.name], {"study_id": study.id})
        for statement in statements:
            session.execute(statement, {"of_study": study.id})

    study.storage.transaction(work)


def refuse_differences(study: Study, asked: Wanted, typed: str = "") -> None:
    """Refuse a study file that differs from the study in what may not change.

    Args:
        study: in the database.
        asked: what a person named.
        typed: the options that a person types again to mean the same places.

    Raises:
        UsageError: says what differs, and the way on.
    """
    if not (lines := _differences(study, asked)):
        return
    file = shlex.quote(asked.named or asked.name)
    if is_untouched(study):
        raise UsageError(
            f"The study {study.name!r} was made of another study file, and no trial of it has begun: "
            f"{'; '.join(lines)}. To let it take this file, type: petskin-tune init --study {file}{typed}"
        )
    raise UsageError(
        f"The study {study.name!r} was begun with another study file: {'; '.join(lines)}. To begin another study "
        f"with this file, type: petskin-tune init --study {study.name}2 --from {study.name} {file}{typed}"
    )


def _differences(study: Study, asked: Wanted) -> list[str]:
    mine = asked.beside(study.spec) if asked.is_compared else None
    return study_file.differences(study.spec, mine) if mine is not None else []


def may_take_the_file(study: Study, asked: Wanted) -> bool:
    """Whether the study differs from a person's file, and can be made of it anew because nothing was done for it."""
    return bool(_differences(study, asked)) and is_untouched(study)


def is_untouched(study: Study) -> bool:
    """Whether the study holds nothing but the start points of its file, none of them begun."""
    return all(
        trial.state == TrialState.WAITING and trial.user_attrs.get(attributes.ORIGIN) == START_POINT
        for trial in study.trials()
    )


def take_changes(study: Study, asked: Wanted) -> None:
    """Let what may change at any time be as the study file that a person named has it: the newest wins."""
    if not asked.is_compared or (mine := asked.beside(study.spec)) is None:
        return
    changed = {key: getattr(mine, key) for key in CHANGEABLE}
    if changed != {key: getattr(study.spec, key) for key in CHANGEABLE}:
        study.change(**changed)


def name_metric(study: Study) -> None:
    """Let Optuna's own tools say what is maximised, in a study from before it was written at birth, too."""
    if study.optuna.metric_names is None:
        study.storage.set_study_system_attr(study.id, attributes.METRIC_NAMES, [attributes.METRIC])


def create_study(
    storage: PetskinStorage,
    spec: StudySpec,
    *,
    points: tuple[Mapping[str, Any], ...],
    attributes_of_study: Mapping[str, Any],
    waiting: Sequence[FrozenTrial] = (),
    instead_of: Study | None = None,
) -> Study:
    """Create the study with its start points in one transaction, or open it when another worker was faster.

    Args:
        storage: where.
        spec: of the study.
        points: tried first.
        waiting: trials of :func:`waiting_trial` that are tried after them.
        attributes_of_study: set with it.
        instead_of: an untouched study (:func:`is_untouched`) of this name, deleted in the same transaction.
    """
    stored = {**attributes_of_study, attributes.SPEC: _to_json(spec), attributes.UID: uuid.uuid4().hex[:12]}

    def work(session: Session) -> None:
        other_id = {} if instead_of is None else _delete_untouched(session, instead_of)
        if other_id is None:
            return
        direction = models.StudyDirectionModel(objective=0, direction=StudyDirection.MAXIMIZE)
        row = models.StudyModel(study_name=spec.study, directions=[direction], **other_id)
        session.add(row)
        session.flush()
        for key, value in stored.items():
            session.add(_new_attribute(row.study_id, key, value))
        session.add(
            models.StudySystemAttributeModel(
                study_id=row.study_id, key=attributes.METRIC_NAMES, value_json=json.dumps([attributes.METRIC])
            )
        )
        of_points = (waiting_trial(point, spec, START_POINT, uuid.uuid4().hex) for point in points)
        for template in (*of_points, *waiting):
            storage._get_prepared_new_trial(row.study_id, template, session)

    with contextlib.suppress(IntegrityError):  # the name is taken: by a faster worker, or by our own lost attempt
        storage.transaction(work)
    study = find_study(storage, spec.study)
    assert study is not None
    return study


def _delete_untouched(session: Session, study: Study) -> dict[str, int] | None:
    """Delete the study and what waits in it; None where a worker or a person was faster.

    Returns an id for the study that takes its place: SQLite would give it the same one, and a worker that still has the
    old study open would train trials of the new one.
    """
    session.execute(queries.LOCK_STUDY[study.storage.engine.name], {"study_id": study.id})
    row = session.get(models.StudyModel, study.id, populate_existing=True)
    if row is None or not all(_waits_as_start_point(trial) for trial in row.trials):
        return None
    highest = session.query(func.max(models.StudyModel.study_id)).scalar()
    session.delete(row)
    session.flush()
    return {"study_id": highest + 1} if study.storage.engine.name == "sqlite" else {}


def _waits_as_start_point(trial: Any) -> bool:
    origin = next((row.value_json for row in trial.user_attributes if row.key == attributes.ORIGIN), None)
    return trial.state == TrialState.WAITING and origin == json.dumps(START_POINT)


def _to_json(spec: StudySpec) -> Any:
    return spec.model_dump(mode="json")


def _new_attribute(study_id: int, key: str, value: Any) -> Any:
    return models.StudyUserAttributeModel(study_id=study_id, key=key, value_json=json.dumps(value))


def _attribute(session: Session, study_id: int, key: str) -> Any:
    return session.query(models.StudyUserAttributeModel).filter_by(study_id=study_id, key=key).one_or_none()


def waiting_trial(
    point: Mapping[str, Any], spec: StudySpec, origin: str, nonce: str, noted: Mapping[str, Any] | None = None
) -> FrozenTrial:
    """As ``optuna.Study.enqueue_trial`` makes one; what is not searched is the trial's own.

    Args:
        point: its settings; searched names left out are drawn.
        spec: of the study.
        origin: where it comes from, see ``attributes.ORIGIN``.
        nonce: no other trial of the database has it.
        noted: more of its user attributes.
    """
    searched = {name: value for name, value in point.items() if name in spec.search}
    fixed = {name: value for name, value in point.items() if name not in spec.search}
    return create_trial(
        state=TrialState.WAITING,
        system_attrs={attributes.POINT: searched, attributes.ENQUEUED: nonce},
        user_attrs={attributes.ORIGIN: origin, **({attributes.FIXED: fixed} if fixed else {}), **(noted or {})},
    )


def settings_of(trial: FrozenTrial, spec: StudySpec) -> dict[str, Any]:
    """What a trial trains with beside what the study fixes: its parameters, and arguments that are its alone.

    Raises:
        UsageError: a study file could not say so: the trial was made or changed by somebody else.
    """
    try:
        return check_settings({**recorded(trial).get(attributes.FIXED, {}), **trial.params}, spec.search)
    except UsageError as error:
        raise UsageError(f"Trial {trial.number} cannot be trained as it stands in the database: {error}") from error
