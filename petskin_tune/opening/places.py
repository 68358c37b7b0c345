"""Where a study lies, as a person types it."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from petskin_tune.error_text import masked_url
from petskin_tune.errors import UsageError
from petskin_tune.language import _

if TYPE_CHECKING:
    from petskin_tune.home.replica import Mode
    from petskin_tune.study.wanted import Wanted


_TOLD = "petskin_tune.overlooked"  # in what click keeps while a command runs


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

    @property
    def typed_for_workers(self) -> str:
        """Those that other commands than ``tune-worker`` do not take, and do not need."""
        return " --ephemeral" if self.ephemeral else ""

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
        said = _("warning: other users can see the password in --storage (by `ps`); TUNE_STORAGE hides it")
        click.echo(said, err=True)


def tell_of_overlooked_studies(places: Places) -> None:
    """Say on stderr, once in a command, that studies also lie in the folder that was the default before."""
    from petskin_tune.home.default import overlooked

    said = overlooked(places.home, places.storage, os.environ)
    context = click.get_current_context(silent=True)
    told = context.meta if context else {}
    if said and not told.get(_TOLD):
        told[_TOLD] = True
        click.echo(said, err=True)
