"""What the models of the best trials do, in pictures; and what a person has added to the study with Optuna."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petskin_tune import text as words
from petskin_tune.checkpoints import artifacts
from petskin_tune.checkpoints.pictures import Picture
from petskin_tune.files import regular
from petskin_tune.printable import html_text
from petskin_tune.study.best.ranking import best
from petskin_tune.views.report.parts import missing, section

if TYPE_CHECKING:
    from optuna.study import Study

KINDS = ("image/jpeg", "image/png", "image/webp")
MOST = 12  # of a person's
LARGEST = 2 * 2**20  # bytes of one of them
ALTOGETHER = 8 * 2**20  # of all pictures of a page
TITLE = "Pictures"
SENTENCE = (
    "What the models of the best trials do with the same validation images: each class and hard ones are among them. "
    "Objects are shown from a confidence of 0.25 on. These are photographs of the data set: a page to pass on is made "
    "with --no-pictures."
)
NONE = "None were there when this was written."


@dataclass(frozen=True)
class Gallery:
    """The pictures of a trial: its number, its value, and they in their order."""

    number: int
    value: float | None
    pictures: Sequence[Picture]


def added(study: Study, folder: Path | None = None) -> list[Picture]:
    """The pictures among the Optuna artifacts that a person has added to the best trial, then to the study.

    Args:
        study: of Optuna.
        folder: of its artifacts, as ``FileSystemArtifactStore`` keeps them; None: it has none.
    """
    if folder is None or not folder.is_dir():
        return []
    return list(_bounded(_stored(study, folder), ALTOGETHER))[:MOST]


def _stored(study: Study, folder: Path) -> Iterator[Picture]:
    first = best(study.get_trials(deepcopy=False), study.user_attrs)
    owners: list[Any] = [] if first is None else [first.system_attrs]
    for kept in (*owners, study._storage.get_study_system_attrs(study._study_id)):
        for name, value in kept.items():
            row = artifacts.read_row(name, value) if name.startswith(artifacts.PREFIX) else None
            if row is None or row["mimetype"] not in KINDS:
                continue
            try:
                content = regular.read_bytes(folder / row["artifact_id"], LARGEST)
            except OSError:  # deleted
                continue
            yield Picture(row["filename"], row["mimetype"], content)


def picture_section(galleries: Sequence[Gallery], more: Sequence[Picture] = ()) -> str:
    """The pictures of the best trials, each trial in a part that opens, the first one open; then a person's own.

    Args:
        galleries: the best first; those that make the page too large are left out.
        more: what a person has added.
    """
    room, shown = ALTOGETHER - _size(more), []
    for gallery in galleries:
        room -= _size(gallery.pictures)
        if gallery.pictures and room >= 0:
            shown.append(gallery)
    if not shown and not more:
        return missing(TITLE, NONE)
    parts = [_gallery(gallery, is_open=place == 0) for place, gallery in enumerate(shown)]
    if more:
        parts.append(_figures(more))
    return section(TITLE, SENTENCE if shown else None, *parts)


def _gallery(gallery: Gallery, *, is_open: bool) -> str:
    title = f"Trial {gallery.number}, mask mAP {words.score(gallery.value)}"
    return (
        f'<details class="pictures"{" open" if is_open else ""}><summary>{html_text(title)}</summary>'
        f"{_figures(gallery.pictures, f'Trial {gallery.number}: ')}</details>"
    )


def _figures(pictures: Iterable[Picture], before: str = "") -> str:
    figures = "".join(
        f'<figure><img alt="{html_text(before + picture.title)}" loading="lazy" src="data:{picture.mimetype};base64,'
        f'{base64.b64encode(picture.content).decode()}"><figcaption>{html_text(picture.title)}</figcaption></figure>'
        for picture in pictures
    )
    return f'<div class="grid pictures">{figures}</div>'


def _size(pictures: Iterable[Picture]) -> int:
    return sum(len(picture.content) for picture in pictures)


def _bounded(pictures: Iterable[Picture], room: int) -> Iterator[Picture]:
    """The pictures that ``room`` bytes hold, in their order."""
    for picture in pictures:
        if len(picture.content) <= room:
            room -= len(picture.content)
            yield picture
