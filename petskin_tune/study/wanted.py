"""What a person names with ``--study``, and what becomes of a study whose file says something else."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from petskin_tune.errors import UsageError
from petskin_tune.printable import raw
from petskin_tune.study.creation import is_untouched
from petskin_tune.study.spec import SPEC_VERSION, StudySpec
from petskin_tune.study.study import Study
from petskin_tune.study.study_file import file as study_file
from petskin_tune.text import operand


@dataclass(frozen=True)
class Wanted:
    """What a person named with ``--study``: a name, and the file behind it where there is one."""

    name: str
    spec: StudySpec | None = None
    file: study_file.FoundFile | None = None
    folder: Path | None = None  # of the study file
    shipped: bool = False
    warnings: tuple[str, ...] = ()
    frozen: bool = False  # the study in the database stands, whatever this spec says
    named: str | None = None  # the study file, as a person types it

    @property
    def is_compared(self) -> bool:
        """Whether the file has a say once the study is in the database."""
        return self.spec is not None and not (self.shipped or self.frozen)

    def beside(self, stored: StudySpec) -> StudySpec | None:
        """The spec to compare with ``stored``: with the defaults of the version that the study was begun with."""
        if self.file is None or stored.version == SPEC_VERSION:
            return self.spec
        return self.file.read(stored.version).spec


def wanted(name_or_path: str) -> Wanted:
    """Find and parse the study file, if there is one.

    Raises:
        UsageError: a path that is not there, or a file that is broken or contradictory.
    """
    found = study_file.find(name_or_path)
    if found is None:
        is_name = raw(name_or_path).decode(errors="replace") == name_or_path  # no database holds another
        if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")) or not is_name:
            raise study_file.not_found(name_or_path)
        return Wanted(name_or_path)
    parsed = found.read()
    folder, warnings = found.path.absolute().parent, tuple(parsed.warnings)
    return Wanted(parsed.spec.study, parsed.spec, found, folder, found.shipped, warnings, named=name_or_path)


def refuse_differences(study: Study, asked: Wanted, typed: str = "") -> None:
    """Refuse a study file that differs from the study in what may not change.

    Args:
        study: in the database.
        asked: what a person named.
        typed: the options that a person types again to mean the same places.

    Raises:
        UsageError: says what differs, and the way on.
    """
    if not (lines := _differences(study, asked)):
        return
    file = asked.named or asked.name
    if is_untouched(study):
        raise UsageError(
            f"The study {study.name!r} was made of another study file, and no trial of it has begun: "
            f"{'; '.join(lines)}. To let it take this file, type: petskin-tune init --study {shlex.quote(file)}{typed}"
        )
    raise UsageError(
        f"The study {study.name!r} was begun with another study file: {'; '.join(lines)}. To begin another study "
        f"with this file, type: petskin-tune init --study {shlex.quote(f'{study.name}2')} --from "
        f"{shlex.quote(study.name)} {operand(file)}{typed}"
    )


def _differences(study: Study, asked: Wanted) -> list[str]:
    mine = asked.beside(study.spec) if asked.is_compared else None
    return study_file.differences(study.spec, mine) if mine is not None else []


def may_take_the_file(study: Study, asked: Wanted) -> bool:
    """Whether the study differs from a person's file, and can be made of it anew because nothing was done for it."""
    return bool(_differences(study, asked)) and is_untouched(study)


def take_changes(study: Study, asked: Wanted) -> None:
    """Of what may change at any time, take what has changed in the study file that a person named: the newest wins."""
    if asked.is_compared and (mine := asked.beside(study.spec)) is not None:
        study.take_file(mine)
