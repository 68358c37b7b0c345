"""``petskin-tune delete STUDY``: a study with all that it has in the database, in the store and on this machine's disk.

First the study is marked, so that no worker and no other command opens it any more; then its files go, at last its
rows, which say where the files are. Killed at any instant, it can be typed again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from petskin_tune.commands.options import in_places, one_sentence
from petskin_tune.errors import EXIT_DONE, EXIT_USAGE, UsageError
from petskin_tune.opening.places import Places
from petskin_tune.printable import quoted
from petskin_tune.text import counted, duration, place, score, size

if TYPE_CHECKING:
    from petskin_tune.checkpoints.base import Entry, Store
    from petskin_tune.home.home import Home
    from petskin_tune.study.study import Study


@click.command()
@click.argument("study")
@in_places
@click.option("--yes", is_flag=True, help="Do not ask.")
@one_sentence
def delete(study: str, home: str | None, storage: str | None, checkpoints: str | None, yes: bool) -> int:
    """Delete a study: its trials, snapshots and weights, repetitions of its trials; never files of yours.

    Refused while workers are at work on it.
    """
    places = Places(study, home, storage, checkpoints, command="petskin-tune delete")
    return delete_study(places, click.echo, (lambda _: True) if yes else _confirmed)


def _confirmed(question: str) -> bool:
    try:
        return click.confirm(question)
    except click.Abort:  # nobody is there to answer
        click.echo()
        return False


def delete_study(places: Places, say: Callable[[str], None], may: Callable[[str], bool]) -> int:
    """Delete the study that ``places`` names. Returns the exit code.

    Args:
        places: where; its ``study`` is a name, never a file.
        say: prints a line.
        may: asks a person.

    Raises:
        UsageError: there is no such study, somebody works on it, or the store does not answer; then the study is either
            untouched or marked, and the same command goes on.
    """
    from petskin_tune.nearest import did_you_mean
    from petskin_tune.opening.lookup import find_existing, names, open_places

    with open_places(places, "guest", say) as (home, _):
        study = find_existing(home, places.study, mode="guest")
        if study is None:
            known = names(home)
            hint = did_you_mean(places.study, known) or (f"; known are {', '.join(known[:20])}" if known else "")
            raise UsageError(f"there is no study `{places.study}` in this database{hint}")
        doomed = [*_repetitions(study), study]  # the study itself last: it is by which the others are found
        for one in doomed:
            _refuse_shared_uid(one)
            _refuse_workers(one, places)
        holdings = [_holding(one, home) for one in doomed]
        if not may(f"Delete {'; '.join(map(str, reversed(holdings)))}?"):
            say("nothing is deleted")
            return EXIT_USAGE
        for one in doomed:
            one.mark_for_deletion()
        _refuse_workers_again(doomed, places)
        holdings = [_holding(one, home) for one in doomed]  # somebody may have trained while a person thought
        home.save()
        for one, holding in zip(doomed, holdings, strict=True):
            holding.delete()
            _delete_rows(one)
        home.save()
    for holding in reversed(holdings):
        say(f"deleted: {holding}")
        for left in holding.left:
            say(f"left, because it is not the study's: {left}")
    return EXIT_DONE


def _repetitions(study: Study) -> list[Study]:
    """The studies that repeat trials of this one."""
    from petskin_tune.study.best.repeats import studies_about
    from petskin_tune.study.study import find_study

    found = (find_study(study.storage, name) for name in studies_about(study))
    return [one for one in found if one is not None]


def _refuse_shared_uid(study: Study) -> None:
    """Refuse a study whose files cannot be told from those of another one.

    Raises:
        UsageError: names both.
    """
    from petskin_tune.study import attributes

    kept = ((one.study_name, one.user_attrs.get(attributes.UID)) for one in study.storage.get_all_studies())
    named = sorted(quoted(name) for name, uid in kept if uid == study.uid)
    if len(named) > 1:
        raise UsageError(
            f"The studies {' and '.join(named)} have one uid in this database: nothing tells their files apart, and "
            "nothing is deleted."
        )


def _delete_rows(study: Study) -> None:
    from petskin_tune.study.study import delete_rows

    delete_rows(study)


def _refuse_workers(study: Study, places: Places) -> None:
    """Refuse while somebody works on the study.

    Raises:
        UsageError: says who, and how to stop them.
    """
    from petskin_tune.leases.lease import read_leases
    from petskin_tune.views.holds import hold_of

    leases = read_leases(study.storage, study.id, only_unfinished=True)
    at_work = [lease for lease in leases if lease.state == "running" and lease.identity.is_alive()]
    at_work += [lease for lease in leases if hold_of(lease) == "training" and lease not in at_work]
    if at_work:
        first = at_work[0]
        elsewhere = first.identity.is_alive() is None
        wait = f" If it is gone already, wait {duration(max(1.0, first.expires_in))}." if elsewhere else ""
        raise UsageError(
            f"{counted(len(at_work), 'worker')} at work on {study.name}: {first.worker} trains trial {first.number}. "
            f"Stop first: {replace(places, study=study.name).to_type('petskin-tune stop')}{'.' if wait else ''}{wait}"
        )


def _refuse_workers_again(studies: Sequence[Study], places: Places) -> None:
    """As before, once no other worker can begin any more; one that was faster keeps its study, and all stay."""
    try:
        for study in studies:
            _refuse_workers(study, places)
    except UsageError:
        for study in studies:
            study.mark_for_deletion(False)
        raise


# ---- what a study has ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Holding:
    """What is deleted with a study.

    Attributes:
        study: its name and how much it is, in words.
        files: in the store.
        paths: files and folders of its runs on this machine.
        subsets: those on this machine from which no other study trains.
        shared: the folder in which they lie, with those of studies of this name in other databases.
        left: what lies among the study's files and is not, or not only, the study's.
    """

    study: str
    uid: str
    store: Store
    files: tuple[Entry, ...]
    paths: tuple[Path, ...]
    subsets: tuple[Path, ...]
    shared: Path
    left: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.paths) + len(self.subsets)
        stored = f"{counted(len(self.files), 'file')} ({size(sum(entry.size for entry in self.files))})"
        here = f", {counted(count, 'folder or file', 'folders or files')} of its runs here" if count else ""
        return f"{self.study}, {stored} on {place(self.store.url)}{here}"

    def delete(self) -> None:
        """Delete the files, the store's first."""
        from petskin_tune.datasets.subset import give_up

        for entry in self.files:
            self.store.delete(entry.key)
        self.store.remove_empty_folders(self.uid)
        for path in self.paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        give_up(self.shared, self.uid)


def _holding(study: Study, home: Home) -> _Holding:
    from petskin_tune.checkpoints.keys import is_of_a_trial
    from petskin_tune.datasets.subset import only_of, others_than
    from petskin_tune.study.best.repeats import repeats_of
    from petskin_tune.trial.inputs import subset_folder

    repeats = repeats_of(study.attributes)
    about = f" ({repeats})" if repeats else ""
    store = home.open_store(study.store, study.uid)
    entries = store.entries(study.uid)
    best = None if repeats else study.best()
    shared = subset_folder(study.name, home)
    foreign = (f"{store.url}/{entry.key}" for entry in entries if not is_of_a_trial(entry.key))
    value = f", best mask mAP {score(best.value)}" if best else ""
    return _Holding(
        f"study {study.name}{about}: {counted(len(study.trials()), 'trial')}{value}",
        study.uid,
        store,
        tuple(entry for entry in entries if is_of_a_trial(entry.key)),
        tuple(_paths(study, home)),
        tuple(only_of(shared, study.uid)),
        shared,
        (*foreign, *map(str, others_than(shared, study.uid))),
    )


def _paths(study: Study, home: Home) -> list[Path]:
    """The study's own files on this machine: run folders and outboxes; no links."""
    from petskin_tune.trial.pictures import FOLDER

    own = re.compile(rf"{re.escape(study.uid)}-\d{{6,}}(-\d+|\.jsonl)?")
    found = [
        path
        for folder in ("trials", "outbox", FOLDER)
        for path in _listed(home.work / folder)
        if own.fullmatch(path.name)
    ]
    return [path for path in found if path.exists() and not path.is_symlink()]


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
