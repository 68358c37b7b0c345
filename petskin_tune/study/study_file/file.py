"""A study file: found by name, parsed and checked, written out again, compared with the one that a study began with."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from petskin_tune.errors import UsageError
from petskin_tune.files import regular
from petskin_tune.files.paths import is_file, resolved, typed
from petskin_tune.nearest import did_you_mean
from petskin_tune.study.spec import CHANGEABLE, SPEC_VERSION, Choices, PrunerSpec, Range, StudySpec
from petskin_tune.study.study_file.choosers import PRUNER_OPTIONS
from petskin_tune.study.study_file.parser import ParsedStudy, check_study_name, read_study
from petskin_tune.study.study_file.units import format_duration, format_share, format_size
from petskin_tune.study.study_file.yaml_lines import read

__all__ = [
    "FoundFile",
    "ParsedStudy",
    "as_written",
    "differences",
    "dump",
    "find",
    "not_found",
    "parse",
    "shipped",
    "shipped_folder",
    "text_of",
]

_SUFFIXES = (".yaml", ".yml")
LARGEST = 2**20  # bytes of a study file
_MISSING = "nothing"
MOST_NAMED = 20  # studies in a sentence


@dataclass(frozen=True)
class FoundFile:
    """A study file on this machine."""

    path: Path
    shipped: bool  # part of the package: copied into the database once, never compared with a newer package's

    def read(self, version: int = SPEC_VERSION) -> ParsedStudy:
        """The study that it describes.

        Args:
            version: whose defaults apply, where the file does not say so itself.

        Raises:
            UsageError: it cannot be read, or see :func:`parse`.
        """
        return parse(self.text(), where=_short(self.path), version=version)

    def text(self) -> str:
        """What is written in it.

        Raises:
            UsageError: it cannot be read.
        """
        try:
            return regular.read_text(self.path, LARGEST)
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.path} is no UTF-8 text: save it as UTF-8.") from error
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error}") from error


def find(name_or_path: str) -> FoundFile | None:
    """The study file that a person means: a path, a name in ./studies, a name among the studies of the package.

    Raises:
        UsageError: a folder on the way to it may not be entered.
    """
    path = typed(name_or_path)
    if path.suffix in _SUFFIXES and is_file(path):
        return FoundFile(path, shipped=False)
    if os.sep in name_or_path:
        return None
    for folder in (Path("studies"), shipped_folder()):
        for suffix in ("", *_SUFFIXES):
            found = folder / f"{name_or_path}{suffix}"
            # An empty one was made by the shell for what `petskin-tune show > studies/NAME.yaml` is about to write.
            if found.suffix in _SUFFIXES and os.path.isfile(found) and (suffix == "" or found.stat().st_size):
                return FoundFile(found, shipped=resolved(found.parent) == resolved(shipped_folder()))
    return None


def text_of(name_or_path: str, spec: StudySpec | None = None) -> str:
    """The text of the study file that a person means, its comments included; "" where it does not say ``spec``.

    Raises:
        UsageError: it cannot be read, or see :func:`parse`.
    """
    found = find(name_or_path)
    if found is None or (spec is not None and found.read().spec != spec):
        return ""
    return found.text()


def not_found(name_or_path: str, in_database: Iterable[str] = ()) -> UsageError:
    """The refusal of a study that is neither a file nor in the database, with the names that would be.

    Args:
        name_or_path: as it was typed.
        in_database: the names of the studies there.
    """
    files = {found.stem for folder in (Path("studies"), shipped_folder()) for found in folder.glob("*.y*ml")}
    known = sorted(files | set(in_database))
    beside = [f"{name_or_path}{suffix}" for suffix in _SUFFIXES if _is_beside(f"{name_or_path}{suffix}")]
    if beside:
        hint = f"; to mean the file {beside[0]} of this folder, type: --study {shlex.quote(beside[0])}"
    else:
        hint = did_you_mean(name_or_path, known) or f"; known are {', '.join(known[:MOST_NAMED])}"
    return UsageError(f"there is no study `{name_or_path}`, neither as a file nor in this database{hint}")


def _is_beside(name: str) -> bool:
    """Whether a file of that name lies in the current folder."""
    try:
        return os.path.isfile(name)
    except ValueError:  # a NUL in the name
        return False


def shipped() -> list[str]:
    """The names of the studies that come with the package."""
    return sorted(found.stem for found in shipped_folder().glob("*.y*ml"))


def shipped_folder() -> Path:
    """The studies that come with the package: inside of it in a wheel, beside it in a source checkout."""
    package = Path(__file__).parents[2]
    inside = package / "studies"
    return inside if inside.is_dir() else package.parent / "studies"


def parse(text: str, *, where: str, version: int = SPEC_VERSION) -> ParsedStudy:
    """The study that ``text`` describes; ``where`` is how a person knows the file.

    Raises:
        UsageError: broken YAML, or anything unknown, contradictory or missing: one sentence with file and line.
    """
    root = read(text, where)
    parsed = read_study(root, version)
    with root.mapping()["study"].located():
        check_study_name(parsed.spec.study)
    return parsed


def dump(spec: StudySpec) -> str:
    """The study file of ``spec``, every key written out; :func:`parse` reads the same spec back."""
    return yaml.safe_dump(as_written(spec), sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)


def differences(stored: StudySpec, mine: StudySpec) -> list[str]:
    """What ``mine`` says otherwise than ``stored``, in plain words; keys that may change at any time are left out."""
    old, new = as_written(stored), as_written(mine)
    keys = dict.fromkeys([*old, *new])
    return [line for key in keys if key not in CHANGEABLE for line in _compare(key, old.get(key), new.get(key))]


def _compare(name: str, old: Any, new: Any) -> Iterator[str]:
    if old == new and type(old) is type(new):
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping) and not _is_leaf(old) and not _is_leaf(new):
        for key in dict.fromkeys([*old, *new]):
            yield from _compare(f"{name}.{key}", old.get(key), new.get(key))
    else:
        yield f"`{name}`: the study has {_inline(old)}, here it is {_inline(new)}"


def _is_leaf(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is one searched range or choice: such a thing is compared as a whole."""
    return "low" in value or "choices" in value


def _inline(value: Any) -> str:
    if value is None:
        return _MISSING
    return (
        yaml.safe_dump(value, sort_keys=False, default_flow_style=True, allow_unicode=True, width=10**6)
        .removesuffix("...\n")
        .strip()
    )


def as_written(spec: StudySpec) -> dict[str, Any]:
    """The spec as a person would write it: without what is left out or does not apply."""
    plain: dict[str, Any] = {"study": spec.study, "model": spec.model, "data": spec.data}
    if spec.subset is not None:
        plain["subset"] = spec.subset.model_dump(exclude_none=True)
    plain["epochs"] = spec.epochs
    plain["train"] = dict(spec.train)
    plain["search"] = {name: _searched(searched) for name, searched in spec.search.items()}
    plain["start"] = [point if isinstance(point, str) else dict(point) for point in spec.start]
    sampler = spec.sampler.model_dump(exclude_none=True)
    plain["sampler"] = {name: list(value) if isinstance(value, tuple) else value for name, value in sampler.items()}
    plain["pruner"] = _pruner(spec.pruner)
    plain["budget"] = None if spec.budget is None else f"{spec.budget} epochs"
    plain["target_trials"] = spec.target_trials
    plain["stop_at"] = spec.stop_at
    plain["stop_when"] = None if spec.stop_when is None else format_share(spec.stop_when)
    plain["snapshot_every"] = format_duration(spec.snapshot_every)
    plain["lease"] = format_duration(spec.lease)
    plain["keep_weights"] = spec.keep_weights
    plain["keep_frozen"] = spec.keep_frozen if spec.sampler.name == "freeze-thaw" else None
    plain["store_limit"] = None if spec.store_limit is None else format_size(spec.store_limit)
    plain["seed"] = spec.seed
    plain["on_oom"] = spec.on_oom
    plain["patience_epochs"] = spec.patience_epochs
    plain["max_identical_failures"] = spec.max_identical_failures
    return {key: value for key, value in plain.items() if value is not None and value != {} and value != []}


def _searched(searched: Range | Choices) -> dict[str, Any]:
    if isinstance(searched, Choices):
        return {"choices": list(searched.choices)}
    number = int if searched.integer else float
    plain: dict[str, Any] = {"low": number(searched.low), "high": number(searched.high)}
    if searched.log:
        plain["log"] = True
    if searched.step is not None:
        plain["step"] = number(searched.step)
    return plain


def _pruner(pruner: PrunerSpec) -> dict[str, Any]:
    """The options that the pruner of this name takes."""
    plain: dict[str, Any] = {"name": pruner.name}
    for option in PRUNER_OPTIONS[pruner.name]:
        value = getattr(pruner, option)
        if value is not None:
            plain[option] = list(value) if isinstance(value, tuple) else value
    return plain


def _short(path: Path) -> str:
    """``path`` as seen from the working folder, where it lies below it."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(path)
