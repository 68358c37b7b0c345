"""Pictures that were kept with the study: what the best trial's model does."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petskin_tune.files import regular
from petskin_tune.study.ranking import best
from petskin_tune.views.report.parts import missing, section

if TYPE_CHECKING:
    from optuna.study import Study

KINDS = ("image/jpeg", "image/png", "image/webp")
MOST = 12
LARGEST = 2 * 2**20  # bytes of a picture
ALTOGETHER = 8 * 2**20


@dataclass(frozen=True)
class Picture:
    """A picture and what it is called."""

    name: str
    mimetype: str
    content: bytes


def pictures(study: Study, folder: Path | None = None) -> list[Picture]:
    """The pictures among the Optuna artifacts of the best trial, then of the study; none where there are none.

    Args:
        study: of Optuna.
        folder: of its artifacts, as ``FileSystemArtifactStore`` keeps them; None: it has none.
    """
    if folder is None or not folder.is_dir():
        return []
    found: list[Picture] = []
    for picture in _stored(study, folder):
        if len(found) < MOST and sum(len(known.content) for known in found) + len(picture.content) <= ALTOGETHER:
            found.append(picture)
    return found


def _stored(study: Study, folder: Path) -> Iterator[Picture]:
    from optuna.artifacts import get_all_artifact_meta

    first = best(study.get_trials(deepcopy=False), study.user_attrs)
    owners: list[Any] = [first, study] if first is not None else [study]
    for owner in owners:
        for meta in get_all_artifact_meta(owner, storage=study._storage):
            if meta.mimetype not in KINDS or Path(meta.artifact_id).name != meta.artifact_id:
                continue
            try:
                content = regular.read_bytes(folder / meta.artifact_id, LARGEST)
            except OSError:  # deleted with its trial's weights
                continue
            yield Picture(meta.filename, meta.mimetype, content)


def picture_section(found: list[Picture]) -> str:
    """The pictures, each with its name."""
    if not found:
        return missing("Pictures", "None were kept.")
    shown = "".join(
        f'<figure><img alt="{escape(picture.name)}" loading="lazy" src="data:{picture.mimetype};base64,'
        f'{base64.b64encode(picture.content).decode()}"><figcaption>{escape(picture.name)}</figcaption></figure>'
        for picture in found
    )
    return section("Pictures", "What the best trial's model does.", f'<div class="grid">{shown}</div>')
