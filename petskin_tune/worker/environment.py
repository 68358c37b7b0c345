"""Keeps a study with the packages that it was begun with: recorded before its first trial is born, compared before
anything is claimed, kept in the home as a file that pip reads.

Until a trial has trained, what is recorded is only what the worker has that sets the first training up. Its packages
may be the ones that cannot train; so another worker replaces them by its own as soon as nobody holds a trial.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy.orm import Session

from petskin_tune import packages
from petskin_tune.database import queries
from petskin_tune.database.unreadable import value_of
from petskin_tune.errors import UsageError
from petskin_tune.files import temporary
from petskin_tune.files.durable import StoreError, translated, write_new
from petskin_tune.home.home import Home
from petskin_tune.study import attributes
from petskin_tune.study import environment as study_environment
from petskin_tune.study.rows import attribute, keep_attribute
from petskin_tune.study.study import Study

Key = tuple[int, int]  # of a lease: trial id, token


class EnvironmentCheck:
    """One for each worker.

    Args:
        study: open; its attributes are those that were read last.
        home: keeps ``environment.txt``.
        allowed: a person said that this machine may differ; then it is recorded.
        say: takes one sentence for people.
    """

    def __init__(self, study: Study, home: Home, *, allowed: bool, say: Callable[[str], None]) -> None:
        self._study = study
        self._home = home
        self._allowed = allowed
        self._say = say
        self._here = packages.here()  # once: what is installed later is not what this worker runs
        self._kept = ""
        self._said_that_it_waits = False

    def require(self, gone: Collection[Key] = (), own: int | None = None) -> bool:
        """Whether a trial may be claimed here; else another worker sets the first training up with other packages.

        It may where the study's release of Ultralytics and its snapshots' format are here, or it is allowed.

        Args:
            gone: (trial id, token) of owners that are gone.
            own: id of the trial that this worker holds.

        Raises:
            UsageError: the study was trained with others; says what to type.
        """
        environment = self._recorded()
        if environment is None:
            return self._may_begin(gone, own)
        self._keep(environment)
        found = packages.decisive(environment, self._here)
        if found and not self._allowed:
            raise UsageError(study_environment.refusal(self._study.name, environment, found, self._home.folder))
        if found:
            self._remember_that_it_was_allowed()
        return True

    def begin(self, gone: Collection[Key] = (), own: int | None = None) -> bool:
        """Record this machine's packages as the study's, unless others hold: before a trial is claimed, and behind it.

        Nobody replaces them while a trial is held. So who finds them in force behind a claim has them to itself.

        Args:
            gone: see :meth:`require`.
            own: see :meth:`require`.

        Returns:
            whether a trial may be trained here, see :meth:`require`.

        Raises:
            UsageError: the study was trained with others meanwhile.
        """
        if self._recorded() is not None:
            return self.require()
        in_force = self._put(gone, own)
        self._keep(in_force)
        if packages.decisive(in_force, self._here):
            if not self._allowed:
                self.require(gone, own)
                return False
            self._remember_that_it_was_allowed()
        return True

    def _may_begin(self, gone: Collection[Key], own: int | None) -> bool:
        """Whether nobody sets the study's first training up with another release than is here."""
        begun = self._study.attributes.get(attributes.ENVIRONMENT)
        if begun is None or self._allowed or not (found := packages.decisive(begun, self._here)):
            return True
        if not self._study.storage.transaction(lambda session: self._is_held(session, gone, own)):
            return True
        if not self._said_that_it_waits:
            self._said_that_it_waits = True
            here = f"this machine has {packages.said(found)}, with which another worker begins the study"
            self._say(f"{here}: waiting whether its training starts")
        return False

    def _put(self, gone: Collection[Key], own: int | None) -> dict[str, Any]:
        """The packages in force: this machine's, unless others were trained with or are about to be."""

        def work(session: Session) -> dict[str, Any]:
            self._study.fence.require(session)
            row = attribute(session, self._study.id, attributes.ENVIRONMENT)
            if row is not None and (self._has_trained(session) or self._is_held(session, gone, own)):
                return dict(json.loads(row.value_json))
            keep_attribute(session, self._study.id, attributes.ENVIRONMENT, self._here)
            return self._here

        in_force = self._study.storage.transaction(work)
        self._study.attributes = {**self._study.attributes, attributes.ENVIRONMENT: in_force}
        return in_force

    def _has_trained(self, session: Session) -> bool:
        wanted = {"study_id": self._study.id, "key": attributes.VERSIONS}
        return any(
            isinstance(value_of(value), dict) for value in session.execute(queries.RECORDED_OF_TRIALS, wanted).scalars()
        )

    def _is_held(self, session: Session, gone: Collection[Key], own: int | None) -> bool:
        """Whether another worker, that may live, holds a trial."""
        running = session.execute(queries.RUNNING, {"study_id": self._study.id})
        return any(row.trial_id != own and (row.trial_id, row.token) not in gone for row in running)

    def _recorded(self) -> dict[str, Any] | None:
        """What the study was trained with; None: nothing yet."""
        stored = self._study.attributes.get(attributes.ENVIRONMENT)
        if stored is not None and stored.get("device_model") is not None:
            return stored
        trials = self._study.trials()
        if study_environment.of_study({}, trials) is None:
            return None
        # Once a trial has trained nobody replaces it; before, somebody may have since it was read.
        stored = self._study.read_attribute(attributes.ENVIRONMENT)
        self._study.attributes = {**self._study.attributes, attributes.ENVIRONMENT: stored}
        environment = study_environment.of_study({attributes.ENVIRONMENT: stored}, trials)
        if environment is not None and environment != stored:
            self._study.set_attribute(attributes.ENVIRONMENT, environment)
        return environment

    def _remember_that_it_was_allowed(self) -> None:
        release = self._here["versions"].get(packages.ULTRALYTICS, "none")
        environment = self._study.attributes[attributes.ENVIRONMENT]
        if release != environment["versions"].get(packages.ULTRALYTICS):
            self._study.add_once(attributes.OTHER_RELEASES, release)

    def _keep(self, environment: dict[str, Any]) -> None:
        """Bring the home's ``environment.txt`` up to date; a home that refuses keeps nobody from training."""
        text = study_environment.render(self._study.name, environment)
        if text == self._kept:
            return
        self._kept = text
        try:
            keep_in(self._home, text)
        except StoreError as error:
            if not study_environment.holds(self._home.folder, text):  # unless a worker beside this one was faster
                self._say(f"{study_environment.FILE} could not be written into the home: {error}")


class LeftToOthers:
    """The trials that one worker leaves to a machine that can go on with them, and why."""

    def __init__(self) -> None:
        self._left: dict[int, tuple[int, str]] = {}  # trial id: its number, and why

    @property
    def trials(self) -> set[int]:
        """Trial ids."""
        return set(self._left)

    def add(self, trial_id: int, number: int, reason: str) -> None:
        """Leave one more."""
        self._left[trial_id] = (number, reason)

    def numbered(self, numbers: Collection[int]) -> set[int]:
        """Trial ids of those of them that have these numbers."""
        return {trial_id for trial_id, (number, _) in self._left.items() if number in numbers}

    def sentence(self, study: str, left: set[int]) -> str:
        """Why the trials ``left`` of the study are left, those with one reason together, and what to do."""
        reasons: dict[str, list[str]] = {}
        for trial_id, (number, reason) in self._left.items():
            if trial_id in left:
                reasons.setdefault(reason, []).append(str(number))
        said = "; ".join(f"trial {', '.join(numbers)}: {reason}" for reason, numbers in reasons.items())
        return f"What is left of the study {study} is for another machine, {said}."


def keep_in(home: Home, text: str) -> None:
    """Let the home's ``environment.txt`` say ``text``, which is shorter than what a disk writes at once.

    Raises:
        StoreError: the home refuses.
    """
    if study_environment.holds(home.folder, text):
        return
    with translated(f"writing {study_environment.FILE}"), temporary.new_folder() as folder:
        source = folder / study_environment.FILE
        source.write_text(text, encoding="utf-8")
        write_new(source, home.folder / study_environment.FILE, network=home.network)
