"""What the commands share: the options that say which study and where it lies, and one sentence for every refusal.

Imported for ``--help`` too, so everything heavy is imported where it is used, here and in every module with commands.
"""

from __future__ import annotations

import errno
import functools
import math
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from petskin_tune.error_text import masked_url, shortened
from petskin_tune.errors import EXIT_UNFORESEEN, EXIT_USAGE, UsageError
from petskin_tune.files.durable import StoreError

if TYPE_CHECKING:
    from petskin_tune.home.replica import Mode
    from petskin_tune.study.study import Wanted

HOURS_OF_A_YEAR = 8760
SCREEN = 1600  # characters of a refusal
# Full, read-only, broken or closed to this user: nothing that petskin-tune could have foreseen or can mend.
OF_THE_DISK = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)

Command = Callable[..., Any]


@dataclass(frozen=True)
class Places:
    """The options that every command takes."""

    study: str
    home: str | None = None
    storage: str | None = None
    checkpoints: str | None = None
    mode: Mode = "owner"
    take_over: bool = False
    ephemeral: bool = False
    local_checkpoints: bool = False
    command: str = "tune-worker"
    asked: Wanted | None = None  # what ``study`` means, where no file or database need be asked

    @property
    def typed(self) -> str:
        """The options beside ``--study`` that a person types again to mean the same places, the password masked."""
        given = {"--home": self.home, "--storage": _masked(self.storage), "--checkpoints": self.checkpoints}
        return "".join(f" {option} {shlex.quote(value)}" for option, value in given.items() if value)

    def to_type(self, command: str, study: str | None = None) -> str:
        """``command`` as a person types it for this study (or another in the same places)."""
        return f"{command} --study {shlex.quote(study or self.study)}{self.typed}"


def _masked(url: str | None) -> str | None:
    if not url:
        return url
    from petskin_tune.database.urls import read_url

    try:
        read_url(url)
    except UsageError:
        return None  # it is refused elsewhere, and never quoted
    return masked_url(url)


def warn_of_visible_password(places: Places) -> None:
    """Say on stderr that others can read the password of a ``--storage`` that was typed; a variable's they cannot."""
    from petskin_tune.database.urls import read_url

    read = read_url(places.storage) if places.storage else None
    if read is not None and (read.password or read.query.get("password")):
        click.echo("warning: other users can see the password in --storage (by `ps`); TUNE_STORAGE hides it", err=True)


# ---- options ---------------------------------------------------------------------------------------------------------


def on_a_study(*, required: bool = True) -> Callable[[Command], Command]:
    """The options that say which study, and where it lies; the command gets them as its ``places``.

    Args:
        required: without it, the command's ``places`` are None where no study was named.
    """

    def decorate(command: Command) -> Command:
        @click.option("--study", required=required, metavar="NAME|FILE", help="Name of a study, or a study file.")
        @click.option("--home", metavar="DIR", help="Folder of everything without servers.  [TUNE_HOME; runs]")
        @click.option("--storage", metavar="URL", help="Database of the study.  [TUNE_STORAGE; in the home]")
        @click.option("--checkpoints", metavar="URL", help="Store of snapshots.  [TUNE_CHECKPOINTS; the study's]")
        @functools.wraps(command)
        def run(study: str | None, home: str | None, storage: str | None, checkpoints: str | None, **more: Any) -> None:
            places = None if study is None else Places(study, home, storage, checkpoints, command=_command())
            command(places=places, **more)

        return run

    return decorate


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


# ---- refusals --------------------------------------------------------------------------------------------------------


def one_sentence(command: Command) -> Command:
    """Turn what a person can mend into one sentence and exit code 2; a result becomes the exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            code = command(*args, **kwargs)
        except BrokenPipeError:
            code = EXIT_UNFORESEEN
        except Exception as error:
            refusal = as_refusal(error) or _of_damage(kwargs.get("places"))
            if refusal is None:
                raise
            click.echo(f"error: {shortened(str(refusal), SCREEN)}", err=True)
            code = EXIT_USAGE
        sys.exit(code or 0)

    return run


def _of_damage(places: Places | None) -> UsageError | None:
    """What to say of an error that nobody foresaw, where SQLite finds its file damaged: its rows may be anything."""
    if places is None or "sqlalchemy" not in sys.modules:
        return None
    from petskin_tune.database.refusals import AFTER_DAMAGE
    from petskin_tune.database.sqlite_file import is_whole
    from petskin_tune.files.paths import is_file
    from petskin_tune.home.home import resolve_home

    home = resolve_home(places.home, places.storage, None, os.environ, study=places.study, ephemeral=True)
    file = home.database
    if file is None or not is_file(file) or is_whole(file):
        return None
    return UsageError(f"{file} is damaged, says SQLite's quick_check. {AFTER_DAMAGE}")


def as_refusal(error: Exception) -> UsageError | None:
    """What to tell a person about an error; None: nobody foresaw it."""
    if isinstance(error, UsageError):
        return error
    if isinstance(error, StoreError):
        return UsageError(f"The store cannot be used: {error}.")
    if isinstance(error, OSError) and error.errno in OF_THE_DISK:
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        return UsageError(f"This machine's disk refuses: {where}{error.strerror}.")
    if "sqlalchemy" not in sys.modules:  # whose errors the rest are
        return None
    from petskin_tune.database.refusals import refusal

    return refusal(error)
