"""``petskin-tune report``: the page at once, then the pictures of the best trials, made here where nobody has."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from petskin_tune.commands.options import data_here, on_a_study, one_sentence
from petskin_tune.errors import UsageError
from petskin_tune.opening.places import Places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.trial import FrozenTrial

    from petskin_tune.checkpoints.base import Store
    from petskin_tune.checkpoints.pictures import Picture
    from petskin_tune.home.home import Home
    from petskin_tune.leases.lease import Lease
    from petskin_tune.study.study import Study
    from petskin_tune.trial.process.runner import Runner
    from petskin_tune.views.report import Gallery

NO_PICTURES = "--no-pictures"


@click.command()
@on_a_study()
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(dir_okay=False),
    help="The file to write.",
)
@data_here
@click.option(NO_PICTURES, is_flag=True, help="Without pictures of what the best trials do.")
@one_sentence
def report(places: Places, output: str, data: str | None, no_pictures: bool) -> None:
    """Write one HTML file: what was found, what it is worth, all trials.

    Pictures of the best trials that are not there yet are made, unless a worker trains on this machine.
    """
    from petskin_tune.leases.lease import read_leases
    from petskin_tune.opening.study import open_study
    from petskin_tune.views import report as view

    with open_study(places) as (home, study):
        leases = read_leases(study.storage, study.id)
        said = f"{output} shows the study {study.name}; open it in a browser"

        def galleries() -> list[Gallery]:
            click.echo(said)
            found = _Galleries(study, home, leases, data).all()
            if found:
                click.echo(f"it shows photographs of the data set; to pass it on without them: {NO_PICTURES}")
            return found

        view.write(
            study.optuna,
            Path(output),
            leases,
            options=places.typed.strip(),
            artifacts=home.folder / "artifacts",
            galleries=None if no_pictures else galleries,
        )
        if no_pictures:
            click.echo(said)


class _Galleries:
    """The pictures of the best trials: from the store, or made here and brought there."""

    def __init__(self, study: Study, home: Home, leases: Sequence[Lease], data: str | None) -> None:
        from petskin_tune.leases.lease import is_anybody_here

        self._study, self._home, self._data = study, home, data
        self._is_at_work = is_anybody_here(leases)

    def all(self) -> list[Gallery]:
        """One for each trial of which there are any; why there are none of another is said."""
        from petskin_tune.trial.pictures import NotMade, wanted
        from petskin_tune.views.report import Gallery

        trials = wanted(self._study)
        store = self._store() if trials else None
        found: list[Gallery] = []
        for trial in trials:
            if store is None:
                break
            try:
                found.append(Gallery(trial.number, trial.values[0], self._pictures(store, trial)))
            except NotMade as reason:
                click.echo(f"no pictures of trial {trial.number}: {reason}")
            except _NoneHere as reason:
                click.echo(f"no pictures of trial {trial.number}, and none are made: {reason}")
                break
            except KeyboardInterrupt:
                click.echo(f"stopped: the report is without the pictures of trial {trial.number}")
                break
        return found

    def _store(self) -> Store | None:
        try:
            return self._home.open_store(self._study.store, self._study.uid)
        except UsageError as refusal:
            click.echo(f"no pictures: {refusal}")
            return None

    def _pictures(self, store: Store, trial: FrozenTrial) -> list[Picture]:
        from petskin_tune.checkpoints import pictures
        from petskin_tune.files.durable import StoreError
        from petskin_tune.trial.pictures import NotMade

        try:
            key = pictures.find(store, self._study.uid, trial.number)
            return pictures.fetch(store, key or self._made(store, trial))
        except StoreError as error:
            raise NotMade(str(error)) from error

    def _made(self, store: Store, trial: FrozenTrial) -> str:
        """The key of pictures that are made now.

        Raises:
            NotMade: of this trial they cannot be.
            _NoneHere: of no trial they can.
        """
        from petskin_tune.trial.inputs import data_of
        from petskin_tune.trial.pictures import Maker

        if self._is_at_work:
            raise _NoneHere("a worker trains on this machine, and they would slow it down")
        click.echo(f"making the pictures of trial {trial.number} (Ctrl-C leaves the report without them)")
        try:
            prepared = data_of(self._study, self._home, self._data)
        except (UsageError, OSError) as error:
            raise _NoneHere(str(error)) from error
        return Maker(self._study, store, self._runner, self._home.work).make(trial, prepared)

    @cached_property
    def _runner(self) -> Runner:
        from petskin_tune.trial.process.runner import Runner

        return Runner(self._home.work / "ultralytics")


class _NoneHere(Exception):
    """No pictures can be made on this machine; the text says why."""
