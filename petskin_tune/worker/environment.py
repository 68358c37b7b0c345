"""Keeps a study with the packages that it was begun with: recorded before its first trial is born, compared before
anything is claimed, kept in the home as a file that pip reads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from petskin_tune import packages
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import StoreError, translated, write_new
from petskin_tune.home.home import Home
from petskin_tune.study import attributes
from petskin_tune.study import environment as study_environment
from petskin_tune.study.study import Study


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

    def require(self) -> None:
        """Go on only where the study's release of Ultralytics and its snapshots' format are here, or it is allowed.

        Raises:
            UsageError: they are not; says what to type.
        """
        environment = self._recorded()
        if environment is None:
            return
        self._keep(environment)
        found = packages.decisive(environment, self._here)
        if not found:
            return
        if not self._allowed:
            raise UsageError(study_environment.refusal(self._study.name, environment, found, self._home.folder))
        self._remember_that_it_was_allowed()

    def begin(self) -> None:
        """Record this machine's packages as the study's, unless it has some: its first trial is about to be born.

        Raises:
            UsageError: another worker has recorded others meanwhile, see :meth:`require`.
        """
        if self._recorded() is None:
            self._study.set_once(attributes.ENVIRONMENT, self._here)
        self.require()

    def _recorded(self) -> dict[str, Any] | None:
        stored = self._study.attributes.get(attributes.ENVIRONMENT)
        if stored is not None and stored.get("device_model") is not None:
            return stored
        environment = study_environment.of_study(self._study.attributes, self._study.trials())
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
    with translated(f"writing {study_environment.FILE}"), tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / study_environment.FILE
        source.write_text(text, encoding="utf-8")
        write_new(source, home.folder / study_environment.FILE, network=home.network)
