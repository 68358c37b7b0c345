"""What a person does to a study without training: create it, read it as a file, enqueue a point, stop the workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from petskin_tune.checkpoints.opening import check_store
from petskin_tune.commands.opening import NotBegun, Places, open_or_create, open_study
from petskin_tune.errors import UsageError
from petskin_tune.leases.claims import Claims
from petskin_tune.leases.lease import read_leases
from petskin_tune.study import file as study_file
from petskin_tune.study.ranking import ranked
from petskin_tune.study.space import parse_point
from petskin_tune.study.study import FINISHED, Study, Wanted, wanted
from petskin_tune.text import counted

OFFERED = 10  # finished trials of another study that a new one tries first


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
    name = None
    if file is not None:
        name, places = places.study, replace(places, study=file)
    points = _offered(places, source) if source else ()
    opened = open_or_create(places, say, data, name=name, more_points=points)
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
    say(f"study {study.name} is ready: {study.spec.target_trials} trials of {study.spec.epochs} epochs")
    if points:
        say(f"{counted(len(points), 'finished trial')} of {source} {'is' if len(points) == 1 else 'are'} tried first")
    say(f"next, type: {places.to_type('tune-worker', study.name)}")


def _offered(places: Places, source: str) -> tuple[dict[str, Any], ...]:
    """The parameters of the best finished trials of another study in the same database."""
    with open_study(replace(places, study=source, asked=Wanted(source))) as (_, other):
        return tuple(dict(trial.params) for trial in ranked(other.trials(*FINISHED))[:OFFERED])


def study_in_force(places: Places) -> str:
    """The study file as it is in force: the database's where the study has begun, else the file's own."""
    try:
        with open_study(places) as (_, study):
            return study_file.dump(study.spec)
    except NotBegun:
        spec = wanted(places.study).spec
        assert spec is not None
        return study_file.dump(spec)


def enqueue(places: Places, words: tuple[str, ...]) -> str:
    """Enqueue a point given as ``name=value`` words; what to tell the person.

    Raises:
        UsageError: a word is no such pair, a name is not searched, a value lies outside its range.
    """
    with open_study(places, "guest") as (_, study):
        number = study.enqueue(parse_point(words, study.spec.search), "person")
        reached = _leases(study).count() >= study.spec.target_trials
    line = f"trial {number} is enqueued; the next free worker tries it"
    if reached:
        line += (
            f". The study has reached its target of {study.spec.target_trials} trials; type: "
            f"{places.to_type('tune-worker', study.name)} --target-trials {study.spec.target_trials + 1}"
        )
    return line


def request_stop(places: Places) -> str:
    """Ask all workers of the study to suspend; what to tell the person."""
    with open_study(places, "guest") as (_, study):
        study.request_stop()
        leases = read_leases(study.storage, study.id, only_unfinished=True)
        running = [lease for lease in leases if lease.state == "running"]
    if not running:
        return f"no worker is at work on {study.name}"
    workers = "1 worker suspends" if len(running) == 1 else f"{len(running)} workers suspend"
    return f"{workers} after the epoch in work; to go on, type: {places.to_type('tune-worker', study.name)}"


def _leases(study: Study) -> Claims:
    return Claims(study.storage, study.id, "petskin-tune", study.spec.lease, study.spec.snapshot_every)
