"""What lies where, in lists: the trials of a study, the studies of a database."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

import click

from petskin_tune.commands.options import in_places, on_a_study, one_sentence
from petskin_tune.errors import UsageError
from petskin_tune.opening.places import Places

STATES = ("complete", "pruned", "failed", "running", "suspended", "frozen", "waiting")


@click.command()
@on_a_study()
@click.option("--sort", default="number", metavar="KEY", help="map, number, state, epochs, time, a parameter; -KEY.")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only these; may be repeated.")
@click.option(
    "--trial", type=click.IntRange(min=0), metavar="N", help="One trial: curve, settings, traceback, resumes."
)
@click.option("--csv", "as_csv", is_flag=True, help="All columns, for spreadsheets.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@one_sentence
def trials(places: Places, sort: str, states: tuple[str, ...], trial: int | None, as_csv: bool, as_json: bool) -> None:
    """List the trials: how they ended, how good they were, with what."""
    if as_csv and (as_json or trial is not None):
        raise UsageError("--csv is the table of all trials: leave --json and --trial out.")
    from petskin_tune.leases.lease import read_leases
    from petskin_tune.opening.study import open_study
    from petskin_tune.views.trials import page as trial_page
    from petskin_tune.views.trials import rows as trial_rows
    from petskin_tune.views.trials import table as view

    with open_study(places) as (_, study):
        leases = read_leases(study.storage, study.id)
        found = trial_rows.collect(study.optuna, leases, places.typed.strip())
        if trial is not None:
            page = trial_page.read(study.optuna, found, leases, trial)
            shown = trial_page.render(page, found.study, found.options, _columns())
            click.echo(_json(trial_page.to_json(page)) if as_json else shown, nl=as_json)
            return
        rows = trial_rows.arranged(found, sort, states)
    if as_csv:
        click.echo(view.to_csv(found, rows), nl=False)
    elif as_json:
        click.echo(_json(view.to_json(rows)))
    else:
        click.echo(view.render(found, rows, _columns()), nl=False)


@click.command()
@in_places
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@one_sentence
def studies(home: str | None, storage: str | None, checkpoints: str | None, as_json: bool) -> None:
    """List the studies that lie in this home or database."""
    from petskin_tune.opening.lookup import open_places, place_of
    from petskin_tune.views import studies as view

    places = Places("NAME", home, storage, checkpoints, command="petskin-tune studies")
    with open_places(places) as (where, database):
        rows = view.collect(database, time.time()) if database else []
    if as_json:
        click.echo(_json(view.to_json(rows)))
    else:
        click.echo(view.render(rows, place_of(where)), nl=False)


def _json(content: Any) -> str:
    return json.dumps(content, indent=2)


def _columns() -> int:
    """Of the terminal; where there is none, of most."""
    return max(40, shutil.get_terminal_size((80, 24)).columns)
