"""``petskin-tune data …``: make, import, resize and check data sets."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from petskin_tune.errors import EXIT_DONE, EXIT_SUSPENDED, EXIT_UNFORESEEN, EXIT_USAGE, UsageError
from petskin_tune.files.paths import require_current_folder
from petskin_tune.printable import printable
from petskin_tune.text import operand

_MOST_JOBS = max(256, os.cpu_count() or 1)
_PLAIN_LINES_EVERY = 10.0  # seconds, where there is no terminal

Show = Callable[[str, int, int], None]


class _DataGroup(click.Group):
    """Answers what a person can mend with one sentence, and Ctrl-C with how to go on."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            require_current_folder()
            return super().invoke(ctx)
        except UsageError as error:
            _refuse(error)
        except BrokenPipeError:
            raise  # click's own to answer
        except OSError as error:  # a folder that may not be written to, a disk that is full
            _refuse(UsageError(f"{error.filename or 'a file'}: {error.strerror or error}"))
        except KeyboardInterrupt:
            click.echo("Stopped. Type the same command again to go on.", err=True)
            sys.exit(EXIT_SUSPENDED)


def _refuse(error: UsageError) -> NoReturn:
    click.echo(f"error: {error}", err=True)
    sys.exit(EXIT_USAGE)


class _Path(click.Path):
    """An absolute path; ``~`` is the home folder, and ``~nobody`` a name like any other."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return Path(os.path.abspath(os.path.expanduser(os.fsdecode(super().convert(value, param, ctx)))))


@click.group(cls=_DataGroup)
def data() -> None:
    """Make, import, resize and check data sets."""


_jobs = click.option(
    "--jobs",
    type=click.IntRange(1, _MOST_JOBS),
    default=os.cpu_count() or 1,
    show_default="CPU cores",
    help="Processes.",
)


@data.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=_Path())
@click.argument("dest", metavar="DEST", type=_Path())
@click.option(
    "--species",
    type=click.Choice(["dog", "cat", "both"]),
    default="both",
    show_default=True,
    help="Whose photographs.",
)
@click.option("--classes", metavar="A1,A4,…", default="", help="Lesions to learn, by code or name.  [all]")
@click.option(
    "--synthetic",
    type=click.Choice(["include", "exclude", "only"]),
    default="include",
    show_default=True,
    help="What becomes of images that AI-Hub calls synthetic.",
)
@click.option("--background", type=float, default=0, metavar="N", help="Asymptomatic images; below 1: a share.  [0]")
@click.option("--max-per-class", type=int, metavar="N", help="Images that show a class, at most.")
@click.option("--imgsz", type=int, metavar="N", help="Make images smaller, to a long side of N pixels.")
@click.option("--crop", type=float, metavar="MARGIN", help="Cut to the lesions and MARGIN of their size around.")
@click.option(
    "--boxes",
    type=click.Choice(["drop", "polygon"]),
    default="drop",
    show_default=True,
    help="What becomes of a box without an outline.",
)
@click.option("--min-area", type=float, default=16.0, show_default=True, help="Smaller lesions are left out, px².")
@click.option("--val", type=float, default=0.1, show_default=True, help="Share of the images for validation.")
@click.option("--test", type=float, default=0.0, show_default=True, help="Share of the images for test.")
@click.option("--keep-split", is_flag=True, help="AI-Hub's own Training and Validation; their leaks are reported.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every draw.")
@click.option("--archive", type=_Path(), metavar="OUT.tar", help="Also write one file, for Drive.")
@_jobs
def aihub(
    sources: tuple[Path, ...], dest: Path, species: str, classes: str, jobs: int, archive: Path | None, **chosen: Any
) -> None:
    """Import AI-Hub 561 (pet skin disease) from SOURCE, folders or zips, to DEST.

    Zips are read in place. Typed again after an interruption, the same command goes on.
    """
    from petskin_tune.datasets.aihub.importing import import_aihub
    from petskin_tune.datasets.aihub.options import Options, codes_of

    letters = {"dog": "D", "cat": "C", "both": "DC"}[species]
    codes = codes_of([name for name in classes.split(",") if name.strip()])
    options = Options(species=letters, classes=codes, **chosen)
    with _shown() as show:
        imported = import_aihub(sources, dest, options, jobs=jobs, archive=archive, progress=show)
    click.echo(printable(imported.summary), nl=False)
    click.echo(printable(f"{imported.data_yaml}{' (was complete already)' if imported.already_there else ''}"))
    shown = operand(str(imported.data_yaml))
    click.echo(printable(f"Look at it: petskin-tune data check {shown} --sheet sheet.html"))


@data.command()
@click.argument("dest", metavar="DEST", type=_Path())
@click.option("--train", type=int, default=128, show_default=True, help="Training images.")
@click.option("--val", type=int, default=48, show_default=True, help="Validation images.")
@click.option("--imgsz", type=int, default=64, show_default=True, help="Side of the images, pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every draw.")
def demo(dest: Path, **numbers: int) -> None:
    """Make a small data set of lesion-like blobs on fur-like texture in DEST."""
    from petskin_tune.datasets.demo import make

    click.echo(printable(make(dest, **numbers)))


@data.command()
@click.argument("source", metavar="DATA")
@click.argument("dest", metavar="DEST", type=_Path())
@click.option("--imgsz", type=int, required=True, metavar="N", help="Long side of the images, pixels, at most.")
@_jobs
def resize(source: str, dest: Path, imgsz: int, jobs: int) -> None:
    """Copy the data set DATA to DEST with smaller images, which load several times faster."""
    from petskin_tune.datasets.resize import resize as resize_data

    with _shown() as show:
        resized = resize_data(_prepared(source), dest, imgsz, jobs=jobs, progress=show)
    for image, reason in resized.skipped:
        click.echo(printable(f"left out: {image} ({reason})"), err=True)
    click.echo(printable(f"{resized.images} images in {resized.data_yaml}, {len(resized.skipped)} left out"))


@data.command()
@click.argument("source", metavar="DATA")
@click.option("--sheet", type=_Path(), metavar="FILE", help="Contact sheet to write, .png or .html.")
@click.option("--per-class", type=click.IntRange(min=1), default=12, show_default=True, help="Images on it a class.")
@click.option("--json", "as_json", is_flag=True, help="Everything found, every file named.")
@_jobs
def check(source: str, sheet: Path | None, per_class: int, as_json: bool, jobs: int) -> None:
    """Look at every file of the data set DATA: damage, leaks, class counts, lesion sizes.

    Exit code 1 where something is found that spoils a training or its result.
    """
    import json

    from petskin_tune.datasets.check import check as check_data
    from petskin_tune.datasets.pictures.contact_sheet import contact_sheet, require_drawable

    if sheet is not None:
        require_drawable(sheet)
    data_yaml = _prepared(source)
    with _shown() as show:
        found = check_data(data_yaml, jobs=jobs, progress=show)
    click.echo(json.dumps(found.to_json()) if as_json else found.summary(), nl=as_json)
    if sheet is not None:
        drawn = contact_sheet(data_yaml, sheet, per_class=per_class)
        click.echo(printable(f"contact sheet: {drawn}"), err=as_json)
    sys.exit(EXIT_UNFORESEEN if found.problems else EXIT_DONE)


def _prepared(source: str) -> Path:
    """The data set that an argument means; what must be unpacked or made lies in the user's cache."""
    from petskin_tune.datasets.source import prepare
    from petskin_tune.files.disks import local_folder

    return prepare(source, base=Path.cwd(), cache=local_folder(os.environ))


@contextmanager
def _shown() -> Iterator[Show]:
    """A bar with rate and time left on a terminal, a line now and then elsewhere; both on stderr."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        rows: dict[str, tuple[Any, float, int]] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = (bar.add_task(what, total=total, rate=""), time.monotonic(), done)
            row, since, before = rows[what]
            bar.update(row, completed=done, total=total, rate=_rate(done - before, time.monotonic() - since))

        yield show


def _plain_lines() -> Show:
    since: dict[str, tuple[float, int]] = {}
    said = [float("-inf")]

    def show(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        begun, before = since.setdefault(what, (now, done))
        if now - said[0] >= _PLAIN_LINES_EVERY or done == total:
            said[0] = now
            left = (now - begun) / (done - before) * (total - done) if done > before else 0.0
            rest = f", {left / 60:.0f} min left" if left >= 60 else ""
            click.echo(f"{what}: {done} of {total} {_rate(done - before, now - begun)}{rest}", err=True)

    return show


def _rate(done: int, seconds: float) -> str:
    return f"{done / seconds:.0f}/s" if done and seconds > 0 else ""
