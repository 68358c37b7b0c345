"""What the commands share: the options that say which study and where it lies, and one sentence for every refusal.

Imported for ``--help`` too, so everything heavy is imported where it is used, here and in every module with commands.
"""

from __future__ import annotations

import functools
import math
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click

from petskin_tune.error_text import shortened
from petskin_tune.errors import EXIT_UNFORESEEN, EXIT_USAGE
from petskin_tune.files.paths import require_current_folder
from petskin_tune.language import LANGUAGES, preferred, use
from petskin_tune.opening.places import Places
from petskin_tune.opening.refusals import SCREEN, as_refusal, of_damage

HOURS_OF_A_YEAR = 8760

Command = Callable[..., Any]


# ---- options ---------------------------------------------------------------------------------------------------------


def on_a_study(*, unless: str = "", named_by: str = "") -> Callable[[Command], Command]:
    """The options that say which study, and where it lies; the command gets them as its ``places``.

    Without ``--study`` (and TUNE_STUDY) it is the only one that lies there.

    Args:
        unless: a parameter of the command in whose presence no study is looked for; ``places`` are None then.
        named_by: one whose value names the study where ``--study`` does not; ``places.study`` is "" then.
    """

    def decorate(command: Command) -> Command:
        @click.option("--study", metavar="NAME|FILE", help="Study, by name or file.  [TUNE_STUDY; the only one there]")
        @in_places
        @functools.wraps(command)
        def run(study: str | None, home: str | None, storage: str | None, checkpoints: str | None, **more: Any) -> None:
            where = Places(study or "", home, storage, checkpoints, command=_command())
            if study is not None:
                command(places=where, **more)
            elif more.get(unless) is not None:
                command(places=None, **more)
            elif more.get(named_by) is not None:
                command(places=where, **more)
            else:
                named = os.environ.get("TUNE_STUDY") or _only_study(where, more.get("ephemeral", False))
                command(places=replace(where, study=named), **more)

        return run

    return decorate


def in_places(command: Command) -> Command:
    """The options that say where studies lie."""
    home = click.option("--home", metavar="DIR", help="Folder of everything without servers.  [TUNE_HOME; tune-home]")
    storage = click.option("--storage", metavar="URL", help="Database of the study.  [TUNE_STORAGE; in the home]")
    store = click.option("--checkpoints", metavar="URL", help="Store of snapshots.  [TUNE_CHECKPOINTS; the study's]")
    return home(storage(store(command)))


def _only_study(places: Places, ephemeral: bool) -> str:
    """The name of the only study in these places; where there is none, or another, this process ends with why."""
    from petskin_tune.opening.lookup import only_study

    places = replace(places, study="NAME", ephemeral=ephemeral)
    return _answered(lambda: only_study(places), places)


def _command() -> str:
    """The command in work, as a person types it."""
    context = click.get_current_context()
    return "tune-worker" if context.parent is None else f"petskin-tune {context.info_name}"


class _Hours(click.FloatRange):
    """More than none and at most a year's; ``nan`` is in every range of click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        hours = super().convert(value, param, ctx)
        if math.isnan(hours):
            self.fail(f"{value!r} is not a valid number of hours.", param, ctx)
        return hours


def typed_data(data: str | None) -> str:
    """``--data`` as a person types it again for a command that trains; "" where it was not typed."""
    return f" --data {shlex.quote(data)}" if data else ""


data_here = click.option(
    "--data", metavar="FILE|ZIP|TAR", help="The data set on this machine, instead of the study's entry."
)
max_hours = click.option(
    "--max-hours", type=_Hours(min=0, min_open=True, max=HOURS_OF_A_YEAR), metavar="H", help="Suspend in time."
)


def on_this_machine(command: Command) -> Command:
    """The options that say what may differ from the machine on which study and trials were begun."""
    exact = click.option("--exact", is_flag=True, help="Leave trials that cannot go on here bit for bit.")
    different = click.option(
        "--allow-different-machine", is_flag=True, help="Go on with another release of Ultralytics."
    )
    return exact(different(command))


def in_a_language(command: Command) -> Command:
    """The option that says in which language the command speaks; refusals stay English."""

    @click.option(
        "--lang",
        type=click.Choice(LANGUAGES),
        help="Language of what is said.  [that of LC_ALL, LC_MESSAGES or LANG; en]",
    )
    @functools.wraps(command)
    def run(lang: str | None, **more: Any) -> None:
        with use(lang or preferred(os.environ)):
            command(**more)

    return run


# ---- refusals --------------------------------------------------------------------------------------------------------


def one_sentence(command: Command) -> Command:
    """Turn what a person can mend into one sentence and exit code 2; a result becomes the exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        sys.exit(_answered(lambda: command(*args, **kwargs), kwargs.get("places")) or 0)

    return run


def _answered(work: Callable[[], Any], places: Places | None) -> Any:
    """What ``work`` returns; what it refuses is said, and ends this process."""
    try:
        require_current_folder()
        return work()
    except BrokenPipeError:
        sys.exit(EXIT_UNFORESEEN)
    except Exception as error:
        refusal = as_refusal(error) or of_damage(places)
        if refusal is None:
            raise
        click.echo(f"error: {shortened(str(refusal), SCREEN)}", err=True)
        sys.exit(EXIT_USAGE)
