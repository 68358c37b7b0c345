"""The commands: parse, call, print. Starts fast: everything heavy is imported where it is used."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from petskin_tune import __version__
from petskin_tune.commands.data import data
from petskin_tune.errors import EXIT_SUSPENDED, EXIT_UNFORESEEN, EXIT_USAGE, UsageError

if TYPE_CHECKING:
    from petskin_tune.commands.opening import Places
    from petskin_tune.interrupts import Signals

STUDY_HELP = "Name of a study, or a study file."
HOURS_OF_A_YEAR = 8760


class _Hours(click.FloatRange):
    """More than none and at most a year's; ``nan`` is in every range of click's."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        hours = super().convert(value, param, ctx)
        if math.isnan(hours):
            self.fail(f"{value!r} is not a valid number of hours.", param, ctx)
        return hours


HOURS = _Hours(min=0, min_open=True, max=HOURS_OF_A_YEAR)


def _one_sentence(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a person can mend into one sentence and exit code 2; a result becomes the exit code."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            code = command(*args, **kwargs)
        except UsageError as error:
            click.echo(f"error: {error}", err=True)
            code = EXIT_USAGE
        except BrokenPipeError:
            code = EXIT_UNFORESEEN
        except Exception as error:
            if not _is_outage(error):
                raise
            click.echo("error: The database was reached and has gone away: type the same command again.", err=True)
            code = EXIT_USAGE
        sys.exit(code or 0)

    return run


def _is_outage(error: Exception) -> bool:
    if "sqlalchemy" not in sys.modules:  # whose errors these are
        return False
    from petskin_tune.database.engine import is_outage

    return is_outage(error)


def _places(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which study, and where it lies."""
    options = [
        click.option("--study", required=True, metavar="NAME|FILE", help=STUDY_HELP),
        click.option("--home", metavar="DIR", help="Folder of everything without servers.  [TUNE_HOME; runs]"),
        click.option("--storage", metavar="URL", help="Database of the study.  [TUNE_STORAGE; in the home]"),
        click.option("--checkpoints", metavar="URL", help="Store of snapshots.  [TUNE_CHECKPOINTS; the study's]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _on_this_machine(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what may differ from the machine on which study and trials were begun."""
    options = [
        click.option("--exact", is_flag=True, help="Leave trials that cannot go on here bit for bit."),
        click.option("--allow-different-machine", is_flag=True, help="Go on with another release of Ultralytics."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _resolve(study: str, home: str | None, storage: str | None, checkpoints: str | None, **more: Any) -> Places:
    from petskin_tune.commands.opening import Places

    return Places(study, home, storage, checkpoints, **more)


# ---- the worker ------------------------------------------------------------------------------------------------------


@click.command(name="tune-worker")
@_places
@click.option("--data", metavar="FILE|ZIP|TAR", help="The data set on this machine, instead of the study's entry.")
@click.option("--device", default="", metavar="D|LIST|all", help="cpu, a GPU, or several: one worker each.")
@click.option("--name", metavar="WORKER", help="What this worker is called.  [host and process]")
@click.option("--max-hours", type=HOURS, metavar="H", help="Suspend in time.")
@click.option("--target-trials", type=click.IntRange(min=1), metavar="N", help="Configurations of the study in all.")
@click.option("--max-trials", type=click.IntRange(min=1), metavar="N", help="Trials that this worker ends.")
@click.option("--take-over", is_flag=True, help="The owners of running trials are gone: go on with theirs at once.")
@_on_this_machine
@click.option("--ephemeral", is_flag=True, help="Use this machine's disk although it is deleted with the session.")
@click.option("--local-checkpoints", is_flag=True, help="Keep snapshots where only this machine finds them.")
@click.version_option(__version__, prog_name="tune-worker")
@_one_sentence
def tune_worker(study: str, home: str | None, storage: str | None, checkpoints: str | None, **options: Any) -> int:
    """Work on a study until it is done; typed again, the same command goes on where it stood.

    \b
    Exit codes: 0 the study is done · 75 suspended with work left · 2 wrong usage or
    a study that cannot run · 1 anything unforeseen.
    """
    from petskin_tune.interrupts import Signals, end_now

    with Signals() as signals:  # before the second that the imports below take
        code = _start(signals, study, home, storage, checkpoints, options)
        if code == EXIT_SUSPENDED:
            end_now(code)  # the forkserver may still import torch, and Python would wait for it
        return code


def _start(
    signals: Signals,
    study: str,
    home: str | None,
    storage: str | None,
    checkpoints: str | None,
    options: dict[str, Any],
) -> int:
    from petskin_tune.commands.start import start_worker

    places = _resolve(
        study,
        home,
        storage,
        checkpoints,
        ephemeral=options.pop("ephemeral"),
        local_checkpoints=options.pop("local_checkpoints"),
    )
    return start_worker(places, signals, **options)


# ---- everything else -------------------------------------------------------------------------------------------------


@click.group(name="petskin-tune")
@click.version_option(__version__, prog_name="petskin-tune")
def petskin_tune() -> None:
    """Look at a study, steer it, and use what it found. Work is done by tune-worker."""


@petskin_tune.command()
@_places
@click.option("--from", "source", metavar="OTHER", help="Offer the finished trials of this study as start points.")
@click.option("--data", metavar="FILE|ZIP|TAR", help="The data set on this machine, instead of the study's entry.")
@click.argument("file", required=False, type=click.Path())
@_one_sentence
def init(source: str | None, data: str | None, file: str | None, **places: Any) -> None:
    """Create tables and study, check everything, train nothing.

    With FILE, the study is made from that file under the name of --study.
    """
    from petskin_tune.commands.steering import init_study

    init_study(_resolve(**places, command="petskin-tune init"), click.echo, source=source, data=data, file=file)


@petskin_tune.command()
@_places
@_one_sentence
def show(**places: Any) -> None:
    """Print the study file in force; `> mine.yaml` makes it your own."""
    from petskin_tune.commands.steering import study_in_force

    click.echo(study_in_force(_resolve(**places, command="petskin-tune show")), nl=False)


@petskin_tune.command(name="try", context_settings={"ignore_unknown_options": True})
@_places
@click.argument("point", nargs=-1, required=True, metavar="NAME=VALUE ...")
@_one_sentence
def try_point(point: tuple[str, ...], **places: Any) -> None:
    """Enqueue a point of one's own; what is left out is drawn."""
    from petskin_tune.commands.steering import enqueue

    click.echo(enqueue(_resolve(**places, command="petskin-tune try"), point))


@petskin_tune.command()
@_places
@_one_sentence
def stop(**places: Any) -> None:
    """Let all workers of the study suspend after their next epoch."""
    from petskin_tune.commands.steering import request_stop

    click.echo(request_stop(_resolve(**places, command="petskin-tune stop")))


@petskin_tune.command()
@_places
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--watch", is_flag=True, help="Show it again every few seconds.")
@_one_sentence
def status(as_json: bool, watch: bool, **places: Any) -> None:
    """Say who works on what, and what a disconnect would cost."""
    from petskin_tune.commands.looking import show_status

    show_status(_resolve(**places, command="petskin-tune status"), click.echo, as_json=as_json, watch=watch)


@petskin_tune.command()
@_places
@click.option("-o", "--output", default="report.html", show_default=True, type=click.Path(dir_okay=False))
@_one_sentence
def report(output: str, **places: Any) -> None:
    """Write one HTML file with curves, importances and all trials."""
    from petskin_tune.commands.looking import write_report

    click.echo(write_report(_resolve(**places, command="petskin-tune report"), output))


@petskin_tune.command()
@click.option("--study", metavar="NAME|FILE", help=STUDY_HELP)
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="Only this trial of the study.")
@click.option("--home", metavar="DIR")
@click.option("--storage", metavar="URL")
@click.option("--checkpoints", metavar="URL")
@click.argument("path", required=False, type=click.Path())
@_one_sentence
def diagnose(path: str | None, trial: int | None, **places: Any) -> None:
    """Say what curves show, and what to try.

    Of a study, of one of its trials, or of any results.csv or run folder of Ultralytics.
    """
    from petskin_tune.commands.looking import diagnose as look

    if (path is None) == (places["study"] is None):
        raise UsageError("Name either --study, or the path of a results.csv or of a run's folder.")
    resolved = None if path else _resolve(**places, command="petskin-tune diagnose")
    click.echo(look(resolved, path, trial))


@petskin_tune.command()
@_places
@click.option("--yaml", "yaml_file", type=click.Path(dir_okay=False), help="Settings for `yolo train cfg=FILE`.")
@click.option("--weights", type=click.Path(dir_okay=False), help="The best weights, for `YOLO(FILE)`.")
@_one_sentence
def best(yaml_file: str | None, weights: str | None, **places: Any) -> None:
    """Print the best trial, and write its settings and weights."""
    from petskin_tune.commands.looking import show_best

    show_best(_resolve(**places, command="petskin-tune best"), click.echo, yaml_file, weights)


@petskin_tune.command()
@_places
@click.option("--epochs", required=True, type=click.IntRange(min=1), metavar="E", help="Length of the final run.")
@click.option("--trial", type=click.IntRange(min=0), metavar="N", help="This trial's settings instead of the best.")
@click.option("--top", type=click.IntRange(min=1), metavar="K", help="The K best trials, one after the other.")
@click.option("--imgsz", type=click.IntRange(min=32), metavar="N", help="Image size, instead of the study's.")
@click.option("--data", metavar="FILE|ZIP|TAR", help="The data set on this machine, instead of the study's entry.")
@click.option("--device", default="", metavar="D", help="cpu or a GPU.")
@click.option("--max-hours", type=HOURS, metavar="H", help="Suspend in time.")
@_on_this_machine
@_one_sentence
def train(**options: Any) -> int:
    """Train the best at length, on all data; resumable, too.

    Typed again, the same command goes on where it stood.
    """
    from petskin_tune.interrupts import Signals

    if options["trial"] is not None and options["top"] is not None:
        raise UsageError("Name either --trial or --top.")
    with Signals() as signals:
        from petskin_tune.commands.final import train as run

        keys = ("study", "home", "storage", "checkpoints")
        places = _resolve(**{key: options.pop(key) for key in keys}, command="petskin-tune train")
        return run(places, signals, **options)


@petskin_tune.command()
@_places
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@_one_sentence
def dashboard(port: int, **places: Any) -> None:
    """Serve the Optuna dashboard on this machine, for looking only."""
    from petskin_tune.commands.looking import serve_dashboard

    serve_dashboard(_resolve(**places, command="petskin-tune dashboard"), click.echo, port)


@petskin_tune.command()
@_places
@click.option("--data", metavar="FILE|ZIP|TAR", help="The data set on this machine, instead of the study's entry.")
@_one_sentence
def doctor(data: str | None, **places: Any) -> int:
    """Check whether the study can run here, and how long it takes.

    Exit code 2 when it cannot.
    """
    from petskin_tune.commands.doctor import examine

    return examine(_resolve(**places, command="petskin-tune doctor"), click.echo, data)


petskin_tune.add_command(data)


if __name__ == "__main__":
    petskin_tune()
