"""``petskin-tune import``: finished runs of elsewhere as trials of a study, for its search to learn from."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from petskin_tune.commands.options import on_a_study, one_sentence
from petskin_tune.errors import UsageError
from petskin_tune.opening.places import Places
from petskin_tune.text import counted, page, parameter

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from petskin_tune.imports.fitting import Terms
    from petskin_tune.imports.runs import Run
    from petskin_tune.study.study import Study

_DEFAULTS = "defaults"


@click.command(name="import")
@on_a_study()
@click.option("--from-storage", metavar="URL", help="Database in which RUN names studies, instead of this study's.")
@click.option("--assume", multiple=True, metavar="NAME=VALUE|defaults", help="What the runs do not say of themselves.")
@click.option("--same-data", is_flag=True, help="They had the study's data set, whatever their paths say.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@one_sentence
def import_runs(
    places: Places, from_storage: str | None, assume: tuple[str, ...], same_data: bool, runs: tuple[str, ...]
) -> None:
    """Let the search learn from finished runs of elsewhere.

    RUN is a run folder or results.csv of Ultralytics, a tune_results.csv or .ndjson, a folder of these, or the name of
    another study.
    """
    import_all(places, click.echo, runs, from_storage=from_storage, assume=assume, same_data=same_data)


def import_all(
    places: Places,
    say: Callable[[str], None],
    runs: Sequence[str],
    *,
    from_storage: str | None = None,
    assume: Sequence[str] = (),
    same_data: bool = False,
) -> None:
    """Read runs, add those that fit to the study, and say what the search makes of them.

    Args:
        places: where the study is.
        say: prints a line.
        runs: paths, or names of studies.
        from_storage: URL of the database of those studies; None: the study's.
        assume: ``NAME=VALUE`` words, or ``defaults``.
        same_data: see :class:`petskin_tune.imports.fitting.Terms`.

    Raises:
        UsageError: one of them cannot be read, and nothing was imported; or none of them fits.
    """
    from petskin_tune.imports.expectation import best_of, expectation
    from petskin_tune.imports.outcome import lines, outcome
    from petskin_tune.imports.storing import add
    from petskin_tune.leases.lease import read_leases
    from petskin_tune.opening.study import open_study

    found = [source for name in runs for source in _read(name, places, from_storage)]
    with open_study(places, "guest") as (_, study):
        terms = _terms(study, assume, same_data)
        outcomes = [outcome(source, of_it, terms) for source, of_it in found]
        if not any(one.trials for one in outcomes):
            raise UsageError(f"Nothing can be imported. {_why(outcomes)}")
        added = add(study, [trial for one in outcomes for trial in one.trials])
        trials = study.trials()
        said = lines(outcomes, added.trials, added.more)
        said += expectation(trials, read_leases(study.storage, study.id), study.spec)
        if first := best_of(trials):
            said.append(_way_on(places, study, first))
    say(page(said).rstrip("\n"))


def _way_on(places: Places, study: Study, first: FrozenTrial) -> str:
    command = places.to_type("petskin-tune try", study.name)
    point = " ".join(shlex.quote(f"{name}={parameter(value)}") for name, value in first.params.items())
    return f"their weights are not here; to train the best of them in this study, type: {command} {point}"


def _why(outcomes: Sequence[Any]) -> str:
    first = outcomes[0]
    more = f" (and {counted(len(outcomes) - 1, 'more source')})" if len(outcomes) > 1 else ""
    return f"{first.source}: {first.reasons}{more}."


# ---- what is read ----------------------------------------------------------------------------------------------------


def _read(name: str, places: Places, from_storage: str | None) -> list[tuple[str, list[Run]]]:
    from petskin_tune.files.paths import is_there, typed
    from petskin_tune.imports.sources import read_path

    path = typed(name)
    may_be_a_study = not _is_path(name, path)
    if may_be_a_study and (from_storage is not None or not is_there(path)):
        return [_of_study(name, places, from_storage)]
    if not is_there(path):
        raise UsageError(f"There is no {path}; give a run folder, a results.csv, a log of tune or a study's name.")
    try:
        return [(str(source), runs) for source, runs in read_path(path)]
    except UsageError as refusal:
        if not (may_be_a_study and path.is_dir()):
            raise
        with contextlib.suppress(UsageError):  # a study's home may be called as the study
            return [_of_study(name, places, from_storage)]
        raise refusal


def _is_path(name: str, path: Path) -> bool:
    return "/" in name or path.suffix.lower() in (".csv", ".ndjson", ".jsonl", ".yaml", ".yml")


def _of_study(name: str, places: Places, from_storage: str | None) -> tuple[str, list[Run]]:
    from petskin_tune.imports.studies import runs_of
    from petskin_tune.opening.study import open_study
    from petskin_tune.study.wanted import Wanted

    there = replace(places, study=name, asked=Wanted(name), storage=from_storage or places.storage)
    with open_study(places, "guest") as (_, study):
        into = study.uid
    with open_study(there) as (_, other):
        if other.uid == into:
            raise UsageError(f"{name} is the study itself; name another one.")
        runs = runs_of(other.spec, other.attributes, other.trials())
    if not runs:
        raise UsageError(f"The study {name} has no finished trial yet.")
    return f"study {name}", runs


# ---- what they are held against --------------------------------------------------------------------------------------


def _terms(study: Study, assume: Sequence[str], same_data: bool) -> Terms:
    from petskin_tune.imports.fitting import Terms
    from petskin_tune.study import attributes

    words = [word for word in assume if word != _DEFAULTS]
    return Terms(
        spec=study.spec,
        data=(study.attributes.get(attributes.FINGERPRINT) or {}).get("digest"),
        assumed=dict(map(_assumed, words)),
        defaults=_DEFAULTS in assume,
        same_data=same_data,
    )


def _assumed(word: str) -> tuple[str, Any]:
    """``NAME=VALUE``, checked.

    Raises:
        UsageError: it is no such pair, or Ultralytics knows no such argument or value.
    """
    from petskin_tune.study.space.arguments import check_name, check_value
    from petskin_tune.study.study_file.yaml_lines import read

    name, equals, text = word.partition("=")
    if not equals:
        raise UsageError(f"write --assume NAME=VALUE, for example optimizer=AdamW, or --assume defaults, not {word!r}")
    value = read(text, f"--assume {name}").value
    if name in ("model", "data"):
        return name, str(value)
    if name == "epochs":
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"`epochs` must be a whole number from 1 on, not {value!r}")
        return name, value
    check_name(name, searched=False)
    return name, check_value(name, value)
