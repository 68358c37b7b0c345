"""A study that is new: all that can refuse it, and then, in one transaction, its birth."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petskin_tune.checkpoints.opening import check_store
from petskin_tune.database.storage import open_storage
from petskin_tune.errors import UsageError
from petskin_tune.home.home import DATABASE, Home
from petskin_tune.opening.lookup import names
from petskin_tune.opening.patience import Say
from petskin_tune.opening.places import Places
from petskin_tune.study import attributes
from petskin_tune.study.creation import create_study
from petskin_tune.study.rows import changeable
from petskin_tune.study.space.parameters import fit_point
from petskin_tune.study.space.start_points import start_points
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.study import Study
from petskin_tune.study.study_file.file import not_found
from petskin_tune.study.wanted import Wanted, refuse_differences
from petskin_tune.text import counted, operand

if TYPE_CHECKING:
    from petskin_tune.trial.inputs import Prepared


def require_writable_folder(folder: Path) -> None:
    """Refuse a folder that this user cannot make, or not write to.

    Raises:
        UsageError: names the folder that is there.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UsageError(f"Nothing can be written to {existing}: choose another folder with --home.")


def _prepare_or_leave_nothing(spec: StudySpec, home: Home, folders: list[Path], data: str | None) -> Prepared:
    """Data set, model and store of a new study.

    Raises:
        UsageError: one of them cannot be used; what was made on the way is deleted, and no folder that was there.
    """
    # Only here: whoever opens a study that is there needs no pictures.
    from petskin_tune.trial.inputs import prepare, warned

    new, folder_is_new = not home.work.exists(), not home.folder.exists()
    try:
        prepared = warned(spec, prepare(spec, home, folders, data))
        store = home.open_store(None)
        if home.asked_store is not None:
            check_store(store)
        return prepared
    except UsageError:
        if new and not _is_in_use(home):
            shutil.rmtree(home.work, ignore_errors=True)
            with contextlib.suppress(OSError):
                if folder_is_new:
                    home.folder.rmdir()
        raise


def _is_in_use(home: Home) -> bool:
    """Whether another study has begun in this home meanwhile: a large data set takes minutes to look at."""
    left = (home.work / "trials", home.work / "outbox", home.logs, home.work.parent / DATABASE)
    return any(path.exists() for path in left)


@dataclass(frozen=True)
class Draft:
    """A new study that nothing refuses; ``points`` are its start points."""

    asked: Wanted
    spec: StudySpec
    prepared: Prepared
    points: tuple[Mapping[str, Any], ...]


def draft_study(
    asked: Wanted, home: Home, places: Places, say: Say, data: str | None, more_points: Sequence[Mapping[str, Any]]
) -> Draft:
    """A new study of ``asked``, after everything that can refuse one; see :func:`.study.open_or_create`.

    Raises:
        UsageError: its file, the home, the data set, the model or the store cannot be used; nothing is left behind.
    """
    if asked.spec is None:
        raise not_found(places.study, names(home))
    for warning in asked.warnings:
        say(f"warning: {warning}")
    folders = [asked.folder] if asked.folder else []
    require_writable_folder(home.folder)
    prepared = _prepare_or_leave_nothing(asked.spec, home, folders, data)
    if prepared.warning:
        say(f"warning: {prepared.warning}")
    points = start_points(asked.spec, classes=prepared.classes, train_images=prepared.train_images)
    for note in (*_of_background(prepared), *points.notes):
        say(f"note: {note}")
    offered = [fit_point(point, asked.spec.search) for point in more_points]
    for sentence in dict.fromkeys(sentence for _, misfits in offered for sentence in misfits):
        say(f"note: offered trials: {sentence}")
    return Draft(asked, asked.spec, prepared, (*points.points, *(point for point, _ in offered)))


def _of_background(prepared: Prepared) -> Iterator[str]:
    from petskin_tune.datasets.trainable import without_labels

    if images := without_labels(prepared.data):
        yield (
            f"{counted(len(images), 'image')} without a label file, trained as background, the first {images[0]}; to "
            f"see all of them, type: petskin-tune data check {operand(str(prepared.data))}"
        )


def begin_study(draft: Draft, home: Home, before: Study | None) -> Study:
    """Create the study, instead of ``before``, whose trials have not begun, where there is one.

    Raises:
        UsageError: meanwhile another worker has created it, from another file or other data.
    """
    from petskin_tune.trial.inputs import of_study

    asked = draft.asked
    study = create_study(
        open_storage(home.storage_url),
        draft.spec,
        points=draft.points,
        attributes_of_study={
            attributes.BASE: str(asked.folder) if asked.folder and not asked.shipped else "",
            attributes.FILE: changeable(draft.spec),
            attributes.STORE: home.to_record,
            attributes.FINGERPRINT: draft.prepared.fingerprint.to_json(),
        },
        instead_of=before,
    )
    refuse_differences(study, asked)
    of_study(draft.prepared, study)
    return study
