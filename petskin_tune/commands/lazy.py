"""Commands as a terminal needs them: a group imports its commands when asked, and all they print is filtered."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from petskin_tune.views.stream import filtered_output


class FilteredCommand(click.Command):
    """A command of which no name, path or message that it prints can command the terminal."""

    def main(self, *args: Any, **more: Any) -> Any:
        """Run it, refusals of click's own included."""
        with filtered_output():
            return super().main(*args, **more)


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
