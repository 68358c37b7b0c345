"""Commands as a terminal needs them: a group imports its commands when asked, and all they print is filtered."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from petskin_tune.errors import UsageError
from petskin_tune.views.stream import filtered_output

# On several lines, and nothing in them was typed: the choices there are, and of click 8.2 and later the whole help.
_OF_CLICK_ALONE = (click.MissingParameter, getattr(click.exceptions, "NoArgsIsHelpError", click.MissingParameter))


class FilteredCommand(click.Command):
    """A command of which no name, path or message that it prints can command the terminal, or fill it."""

    def main(self, *args: Any, **more: Any) -> Any:
        """Run it, refusals of click's own included."""
        with filtered_output():
            return super().main(*args, **more)

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        """Read the command's own words."""
        with _in_a_sentence():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run it, and read the words of the commands below it."""
        with _in_a_sentence():
            return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse words that no system takes, in which a notebook's call may differ from a shell."""
        if not all(map(_can_be_typed, args)):
            raise click.UsageError("An argument holds a NUL character or half of a surrogate pair; take it out.", ctx)
        return super().parse_args(ctx, args)


def _can_be_typed(word: str) -> bool:
    """Whether a word can be handed to a program, as bytes without NUL; undecodable bytes can (PEP 383)."""
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


@contextlib.contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Say click's refusals as ours: on one line, on one screen, and without the secret of a URL that they quote."""
    try:
        yield
    except click.UsageError as refusal:
        said = refusal.format_message()
        better = str(UsageError(said))
        if isinstance(refusal, _OF_CLICK_ALONE) or said == better:
            raise
        raise click.UsageError(better, refusal.ctx) from None


class LazyGroup(FilteredCommand, click.Group):
    """A group that knows of each command only where it is written.

    Args:
        places: ``module:function`` of each command, by the command's name.
    """

    def __init__(self, *args: Any, places: Mapping[str, str], **more: Any) -> None:
        super().__init__(*args, **more)
        self.commands.update({name: click.Command(name) for name in places})  # the names, for now
        self._places = dict(places)  # of commands that are not imported yet

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None: there is none of this name."""
        if cmd_name in self._places:
            module, _, function = self._places[cmd_name].partition(":")
            self.commands[cmd_name] = getattr(importlib.import_module(module), function)
            del self._places[cmd_name]
        return super().get_command(ctx, cmd_name)
