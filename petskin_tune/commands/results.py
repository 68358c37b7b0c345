"""What a person looks at: each command opens the study, lets a view say what it shows, and writes nothing to it."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petskin_tune.commands.options import (
    data_here,
    in_a_language,
    max_hours,
    on_a_study,
    on_this_machine,
    one_sentence,
)
from petskin_tune.errors import EXIT_DONE, UsageError
from petskin_tune.files.paths import require_folder, writing
from petskin_tune.files.regular import require_replaceable
from petskin_tune.opening.places import Places
from petskin_tune.text import fitted

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from petskin_tune.checkpoints.artifacts import Artifacts
    from petskin_tune.home.home import Home
    from petskin_tune.study.study import Study
    from petskin_tune.views.status.facts import Status


@click.command()
@on_a_study()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", is_flag=True, help="Show it again every few seconds, until the study is done.")
@one_sentence
def status(places: Places, as_json: bool, watch: bool) -> None:
    """Say how far the study is, when it ends, who works on what, and what a kill would cost."""
    from petskin_tune.opening.study import open_study
    from petskin_tune.views.status import text as view

    with open_study(places) as (home, study):
        shown = _read_status(home, study, places)
        if not watch:
            click.echo(json.dumps(shown.to_json(), indent=2) if as_json else view.render(shown).rstrip("\n"))
            return
        study.storage.patience.seconds = None  # whoever watches sees it come back
        if home.copied is None:
            view.watch(lambda: _read_status(home, study, places), sys.stdout, show=_in_one_line if as_json else None)
            return
    view.watch(_Following(places, shown).read, sys.stdout, show=_in_one_line if as_json else None)


def _read_status(home: Home, study: Study, places: Places) -> Status:
    from petskin_tune.leases.lease import read_leases
    from petskin_tune.views.status.collect import collect

    study.refresh()  # it may have been deleted
    leases = read_leases(study.storage, study.id)
    return collect(study.optuna, leases, time.time(), options=places.typed.strip(), home=home.folder)


class _Following:
    """A network home's study, as the newest copy there says: the database here may be of an hour ago.

    Args:
        places: where.
        shown: what is shown while the home does not answer.
    """

    def __init__(self, places: Places, shown: Status) -> None:
        self._places, self._shown = places, shown

    def read(self) -> Status:
        """The newest that can be had."""
        from petskin_tune.files.durable import StoreError
        from petskin_tune.opening.study import open_study

        try:
            with open_study(self._places, say=lambda _: None) as (home, study):
                self._shown = _read_status(home, study, self._places)
        except UsageError as refusal:
            if not isinstance(refusal.__cause__, StoreError):
                raise
        return self._shown


def _in_one_line(status: Status) -> str:
    return json.dumps(status.to_json()) + "\n"


@click.command()
@on_a_study(unless="path")
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="Only this trial of the study.")
@in_a_language
@click.argument("path", required=False)
@one_sentence
def diagnose(places: Places | None, path: str | None, trial: int | None) -> None:
    """Say whether anything is wrong, what to try, and what the curves show.

    Of a study, of one of its trials, or of any results.csv or run folder of Ultralytics.
    """
    if path is not None and places is not None:
        raise UsageError("Name either --study, or the path of a results.csv or of a run's folder.")
    from petskin_tune.diagnosis import explain

    if path is not None:
        click.echo(fitted(explain.of_run(Path(path))), nl=False)
        return
    from petskin_tune.opening.study import open_study

    assert places is not None
    with open_study(places) as (_home, study):
        click.echo(fitted(explain.of_study(study.optuna, trial)), nl=False)


@click.command()
@on_a_study()
@click.option("--yaml", "yaml_file", type=click.Path(dir_okay=False), help="Settings for `yolo train cfg=FILE`.")
@click.option("--weights", type=click.Path(dir_okay=False), help="The best weights, for `YOLO(FILE)`.")
@click.option("--repeat", type=int, metavar="K", help="Train the best and the defaults under K further seeds each.")
@data_here
@click.option("--device", default="", metavar="D", help="With --repeat: cpu, a GPU, or several.")
@max_hours
@on_this_machine
@one_sentence
def best(places: Places, yaml_file: str | None, weights: str | None, repeat: int | None, **options: Any) -> int:
    """Print the best trial, write its settings and weights, or measure what it is worth.

    With --repeat the best trial and the defaults are trained under further seeds, and the gain is said with
    an interval, or that it is noise. Typed again, the same command goes on where it stood.
    """
    if repeat is not None:
        if yaml_file is not None or weights is not None:
            raise UsageError("--repeat trains and writes no file: leave --yaml and --weights out, and type them after.")
        return _repeat_best(places, repeat, options)
    data = options.pop("data")
    if any(options.values()):
        raise UsageError("Options such as --device and --max-hours are for --repeat, which trains.")
    if data is not None and yaml_file is None:
        raise UsageError("--data is for --yaml, which names the data set, and for --repeat.")
    _best(places, yaml_file, weights, data)
    return EXIT_DONE


def _repeat_best(places: Places, pairs: int, options: dict[str, Any]) -> int:
    from petskin_tune.commands.repeat import repeat_best
    from petskin_tune.commands.worker import Request

    return repeat_best(places, pairs, Request(**options))


def _best(places: Places, yaml_file: str | None, weights: str | None, data: str | None) -> None:
    from petskin_tune.opening.study import open_study
    from petskin_tune.views import export

    for file in (yaml_file, weights):
        if file is not None:
            require_folder(Path(file))
    if weights is not None:
        with writing(Path(weights)):
            require_replaceable(Path(weights))
    options = places.typed.strip()
    with open_study(places) as (home, study):
        if yaml_file is None and weights is None:
            click.echo(export.render(study.optuna, options=options).rstrip("\n"))
        if yaml_file is not None:
            trial = export.write_yaml(study.optuna, Path(yaml_file), options=options, **_found_here(study, home, data))
            cfg = shlex.quote(yaml_file)
            click.echo(f"{yaml_file} has the settings of trial {trial.number}; type: yolo train cfg={cfg}")
        if weights is not None:
            trial = _write_weights(study, home, weights, options)
            click.echo(f"{weights} has the best weights of trial {trial.number}; load them with YOLO({weights!r})")
            if validation := export.to_validate(study.optuna, trial, weights):
                click.echo(f"its mask mAP again: {validation}")


def _found_here(study: Study, home: Home, data: str | None) -> dict[str, Any]:
    """Model and data set as paths of this machine, as far as they are here: `yolo train` knows nothing of studies.

    Args:
        study: open.
        home: of the study.
        data: the data set that a person named instead of the study's own entry.

    Raises:
        UsageError: that one cannot be used.
    """
    from petskin_tune.datasets import source
    from petskin_tune.trial.model.files import find_model

    found: dict[str, Any] = {}
    base = study.folders[0] if study.folders else Path.cwd()
    cache, by_name = home.work / "data", study.spec.images_by_name
    if data is not None:
        found["data"] = str(source.prepare(data, base=Path.cwd(), cache=cache, by_name=by_name))
    try:
        found["model"] = find_model(study.spec.model, (*study.folders, home.folder, home.folder / "weights"))
        if data is None:
            found["data"] = str(source.prepare(study.spec.data, base=base, cache=cache, by_name=by_name))
    except (UsageError, OSError):  # also of a home that may only be read
        pass  # the study's own words then, which are right where the files are
    return found


def _write_weights(study: Study, home: Home, file: str, options: str) -> FrozenTrial:
    """Write the best weights to ``file``; gives their trial back."""
    from petskin_tune.files.durable import StoreError
    from petskin_tune.views import export

    store = home.open_store(study.store, study.uid)
    try:
        return export.write_weights(study.optuna, Path(file), store.fetch, options=options)
    except StoreError as error:
        raise UsageError(f"The weights cannot be fetched from {store.url}: {error}.") from error


@click.command()
@on_a_study()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="To listen on.")
@click.option("--write", is_flag=True, help="Let this machine's browsers change and delete studies.")
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="IP address to listen on.")
@click.option("--behind-proxy", is_flag=True, help="A proxy with login and TLS stands before it.")
@click.option("--public-name", metavar="NAME", multiple=True, help="Host name of that proxy, where it passes it on.")
@one_sentence
def dashboard(
    places: Places, port: int, write: bool, host: str, behind_proxy: bool, public_name: tuple[str, ...]
) -> None:
    """Serve the Optuna dashboard on this machine, for looking only."""
    from petskin_tune.leases.lease import is_anybody_here, read_leases
    from petskin_tune.opening.study import open_study
    from petskin_tune.views.dashboard import server as view
    from petskin_tune.views.dashboard.names import checked

    names = checked(host, behind_proxy=behind_proxy, public=public_name)
    with open_study(places) as (home, study):
        leases = read_leases(study.storage, study.id)
        if home.copied is not None and not is_anybody_here(leases):
            click.echo("the home is on a network disk: this shows the study as it is now; newer: type it again")
        view.serve(
            study.storage,
            study.optuna,
            port,
            write=write,
            read_leases=lambda: read_leases(study.storage, study.id),
            options=places.typed.strip(),
            artifacts=_artifacts(study, home),
            say=click.echo,
            names=names,
        )


def _artifacts(study: Study, home: Home) -> Artifacts | None:
    """The pictures of the study's trials, and what a person has added; None where its store cannot be used here."""
    from petskin_tune.checkpoints.artifacts import Artifacts

    try:
        return Artifacts(home.open_store(study.store, study.uid), study.uid, home.folder / "artifacts")
    except UsageError as refusal:
        click.echo(f"without pictures: {refusal}")
        return None
