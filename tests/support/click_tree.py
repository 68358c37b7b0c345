"""The commands as a person finds them, read from click's own tree."""

from __future__ import annotations

from collections.abc import Iterator

import click

from petskin_tune.cli import petskin_tune, tune_worker


def all_commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """The command and all below it, by what a person types."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from all_commands(found, f"{name} {below}")


COMMANDS = {**dict(all_commands(tune_worker, "tune-worker")), **dict(all_commands(petskin_tune, "petskin-tune"))}
