"""The two entry points and the list of commands; each command is written in ``petskin_tune.commands``."""

from __future__ import annotations

import click

from petskin_tune import __version__
from petskin_tune.commands.lazy import LazyGroup
from petskin_tune.commands.worker import tune_worker

__all__ = ["petskin_tune", "tune_worker"]

COMMANDS = {
    "init": "petskin_tune.commands.study:init",
    "show": "petskin_tune.commands.study:show",
    "import": "petskin_tune.commands.imports:import_runs",
    "try": "petskin_tune.commands.study:try_point",
    "stop": "petskin_tune.commands.study:stop",
    "status": "petskin_tune.commands.results:status",
    "trials": "petskin_tune.commands.listing:trials",
    "studies": "petskin_tune.commands.listing:studies",
    "delete": "petskin_tune.commands.deleting:delete",
    "report": "petskin_tune.commands.report:report",
    "diagnose": "petskin_tune.commands.results:diagnose",
    "best": "petskin_tune.commands.results:best",
    "dashboard": "petskin_tune.commands.results:dashboard",
    "train": "petskin_tune.commands.train:train",
    "doctor": "petskin_tune.commands.doctor:doctor",
    "data": "petskin_tune.commands.data:data",
}


@click.group(name="petskin-tune", cls=LazyGroup, places=COMMANDS)
@click.version_option(__version__, prog_name="petskin-tune")
def petskin_tune() -> None:
    """Look at a study, steer it, and use what it found. Work is done by tune-worker."""


if __name__ == "__main__":
    petskin_tune()
