"""What a person does to a study without training: create it, read it as a file, enqueue a point, stop the workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from petskin_tune.commands.options import data_here, on_a_study, one_sentence, typed_data
from petskin_tune.errors import UsageError
from petskin_tune.opening.places import Places
from petskin_tune.text import counted
from petskin_tune.views.pulse import Pulse

if TYPE_CHECKING:
    from petskin_tune.leases.claims import Claims
    from petskin_tune.study.spec import StudySpec
    from petskin_tune.study.study import Study

OFFERED = 10  # finished trials of another study that a new one tries first


@click.command()
@on_a_study(named_by="file")
@click.option("--from", "source", metavar="OTHER", help="Offer the finished trials of this study as start points.")
@data_here
@click.argument("file", required=False, type=click.Path())
@one_sentence
def init(places: Places, source: str | None, data: str | None, file: str | None) -> None:
    """Create tables and study, check everything, train nothing.

    With FILE, the study is made from that file, under the name of --study where one is given.
    """
    init_study(places, click.echo, source=source, data=data, file=file)


def init_study(
    places: Places, say: Callable[[str], None], *, source: str | None, data: str | None, file: str | None
) -> None:
    """Create tables and study, check everything, train nothing.

    Args:
        places: where; its ``study`` names the study, or the file when ``file`` is None.
        say: prints a line.
        source: name of a study in the same database whose finished trials are offered as start points.
        data: the data set on this machine.
        file: the study file, where ``places.study`` is the name it shall have.

    Raises:
        UsageError: anything is missing or wrong; nothing is created then.
    """
    from petskin_tune.checkpoints.opening import check_store
    from petskin_tune.opening.study import open_or_create

    name = None
    if file is not None:
        name, places = places.study or None, replace(places, study=file)
    points = _offered(places, source) if source else ()
    pulse = Pulse(say)
    with pulse.during("looking at data set and model"):
        opened = open_or_create(places, say, data, name=name, more_points=points)
    pulse.close()
    study, home = opened.study, opened.home
    try:
        check_store(home.open_store(study.store, study.uid))
        if source and opened.prepared is None:
            raise UsageError(
                f"The study {study.name!r} has begun already, and takes no start points from {source!r} any more; "
                f"enqueue one with: {places.to_type('petskin-tune try', study.name)} NAME=VALUE …"
            )
    finally:
        saved = home.close()
    if not saved:
        raise UsageError(f"The home {home.folder} does not answer: the study is not in it yet. Try again later.")
    say(f"study {study.name} is ready: {_size(study.spec)}")
    if points:
        say(f"{counted(len(points), 'finished trial')} of {source} {'is' if len(points) == 1 else 'are'} tried first")
    say(f"next, type: {places.to_type('tune-worker', study.name)}{typed_data(data)}")


def _size(spec: StudySpec) -> str:
    """How much is to be trained, in words."""
    if spec.budget is None:
        return f"{counted(spec.target_trials, 'trial')} of {counted(spec.epochs, 'epoch')}"
    runs = f"{spec.budget / spec.epochs:.3g} full runs of {spec.epochs}"
    return f"{counted(spec.budget, 'epoch')} in all, as many as {runs}"


def _offered(places: Places, source: str) -> tuple[dict[str, Any], ...]:
    """The parameters of the best finished trials of another study in the same database."""
    from petskin_tune.opening.study import open_study
    from petskin_tune.study.best.ranking import ranked
    from petskin_tune.study.study import FINISHED
    from petskin_tune.study.wanted import Wanted

    with open_study(replace(places, study=source, asked=Wanted(source))) as (_, other):
        return tuple(dict(trial.params) for trial in ranked(other.trials(*FINISHED), other.attributes)[:OFFERED])


@click.command()
@on_a_study()
@one_sentence
def show(places: Places) -> None:
    """Print the study file in force; `> mine.yaml` makes it your own."""
    from petskin_tune.opening.study import NotBegun, open_study
    from petskin_tune.study.study_file.file import dump, text_of

    try:
        with open_study(places) as (_, study):
            shown = text_of(places.study, study.spec) or dump(study.spec)
    except NotBegun:
        shown = text_of(places.study)
    click.echo(shown, nl=False)


@click.command(name="try", context_settings={"ignore_unknown_options": True})
@on_a_study()
@click.argument("point", nargs=-1, required=True, metavar="NAME=VALUE ...")
@one_sentence
def try_point(places: Places, point: tuple[str, ...]) -> None:
    """Enqueue a point of one's own; what is left out is drawn."""
    click.echo(enqueue(places, point))


def enqueue(places: Places, words: tuple[str, ...]) -> str:
    """Enqueue a point given as ``name=value`` words; what to tell the person.

    Raises:
        UsageError: a word is no such pair, a name is not searched, a value lies outside its range.
    """
    from petskin_tune.opening.study import open_study
    from petskin_tune.study.best.ranking import has_reached
    from petskin_tune.study.space.parameters import parse_point
    from petskin_tune.study.study import FINISHED

    with open_study(places, "guest") as (_, study):
        number = study.enqueue(parse_point(words, study.spec.search), "person")
        more = _more(study)
    line = f"trial {number} is enqueued; the next free worker tries it"
    if more:
        line += f". The study has {more[0]}; type: {places.to_type('tune-worker', study.name)} {more[1]}"
    elif has_reached(study.spec.stop_at, study.trials(*FINISHED)):
        line += f". The study has reached its `stop_at` of {study.spec.stop_at}: raise it in the study file first"
    return line


def _more(study: Study) -> tuple[str, str] | None:
    """What the study has reached, and the option that lets it go on; None: it begins new trials as it is."""
    from petskin_tune.study.extent import begun_here, extent

    spec = study.spec
    if _leases(study).count() >= spec.target_trials:
        target = counted(spec.target_trials, "trial")
        return f"reached its target of {target}", f"--target-trials {spec.target_trials + 1}"
    done = extent(spec, begun_here(study.trials()))
    if spec.budget is not None and not done.left:
        return f"used up its budget of {done.whole}", f"--budget '{max(done.done, spec.budget) + spec.epochs} epochs'"
    return None


@click.command()
@on_a_study()
@one_sentence
def stop(places: Places) -> None:
    """Let all workers of the study suspend after their next epoch."""
    from petskin_tune.leases.lease import read_leases
    from petskin_tune.opening.study import open_study
    from petskin_tune.views.holds import hold_of

    with open_study(places, "guest") as (_, study):
        study.request_stop()
        leases = read_leases(study.storage, study.id, only_unfinished=True)
        running = [lease for lease in leases if hold_of(lease) == "training"]
    if not running:
        click.echo(f"no worker is at work on {study.name}")
        return
    workers = "1 worker suspends" if len(running) == 1 else f"{len(running)} workers suspend"
    way_on = places.to_type("tune-worker", study.name)
    click.echo(f"{workers} after the epoch in work; to go on, type: {way_on}")


def _leases(study: Study) -> Claims:
    from petskin_tune.leases.claims import Claims

    return Claims(study.storage, study.fence, "petskin-tune", study.spec.lease, study.spec.snapshot_every)
