"""From the entries of a study file to a StudySpec: each key read, checked and refused where it stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from petskin_tune.errors import UsageError
from petskin_tune.study.spec import SPEC_VERSION, StudySpec, Subset
from petskin_tune.study.study_file.choosers import budget_of, pruner_beside, sampler_of
from petskin_tune.study.study_file.published import PUBLISHED
from petskin_tune.study.study_file.searched import (
    fixed_arguments,
    longest_warm_up,
    refuse_automatic_optimizer,
    search_warnings,
    searched_arguments,
    start_of,
)
from petskin_tune.study.study_file.units import parse_duration, parse_share, parse_size
from petskin_tune.study.study_file.yaml_lines import Entry

REQUIRED = ("study", "model", "data", "epochs", "search")
_KEYS = ("version", *(key for key in StudySpec.model_fields if key != "version"))
_WHOLE_NUMBERS = {  # to the least that each may be
    "target_trials": 1,
    "keep_weights": 0,
    "keep_frozen": 1,
    "max_identical_failures": 1,
    "patience_epochs": 1,
}
_SHORTEST_LEASE = 1.0  # seconds
_NAME = re.compile(r"\w[\w.-]{0,99}")
_LONGEST_NAME = 180  # bytes; folders called after a study, or after its final run, have at most 255


@dataclass(frozen=True)
class ParsedStudy:
    """A study file that can run, and what its author may want to know about it."""

    spec: StudySpec
    warnings: tuple[str, ...] = ()


def read_study(root: Entry, version: int = SPEC_VERSION) -> ParsedStudy:
    """The study that a file's entries describe.

    Args:
        root: of the file.
        version: whose defaults apply, where the file does not say so itself.

    Raises:
        UsageError: anything unknown, contradictory or missing, with file, line and the way on.
    """
    if "notify" in root.mapping():
        raise root.mapping()["notify"].refused(
            "cannot be a key of a study, which others read, because the address is a secret: "
            "give it by --notify or TUNE_NOTIFY"
        )
    # An empty value is a key left out; one that is needed is refused where it stands.
    keys = {key: entry for key, entry in root.mapping(_KEYS).items() if entry.value is not None or key in REQUIRED}
    version = _version(keys, version)
    for key in REQUIRED:
        if key not in keys:
            raise root.refused(f"the key `{key}` is missing")
    epochs = keys["epochs"].whole(1)
    train = fixed_arguments(keys.get("train"))
    search = searched_arguments(keys["search"], train)
    refuse_automatic_optimizer(keys, train, search)
    warm_up = longest_warm_up(train, search)
    sampler = sampler_of(keys, epochs, warm_up, version)
    pruner, warnings = pruner_beside(sampler, keys.get("pruner"), epochs, warm_up)
    plain = {**_plain(keys), **budget_of(keys, sampler, epochs)}
    spec = StudySpec(
        study=keys["study"].text(),
        model=_model(keys["model"]),
        data=keys["data"].text(),
        subset=_subset(keys.get("subset")),
        epochs=epochs,
        train=train,
        search=search,
        start=start_of(keys.get("start"), search, sampler.rungs[0] if sampler.rungs else pruner.first_verdict),
        sampler=sampler,
        pruner=pruner,
        **plain,
        version=version,
    )
    return ParsedStudy(spec, (*warnings, *search_warnings(spec)))


def _version(keys: Mapping[str, Entry], version: int) -> int:
    if "version" in keys and (version := keys["version"].whole(1)) > SPEC_VERSION:
        raise keys["version"].refused(f"is newer than this petskin-tune knows ({SPEC_VERSION}); upgrade petskin-tune")
    return version


def check_study_name(name: str) -> None:
    """Refuse a name for a new study that files cannot be called after, or that would be taken for a file.

    Raises:
        UsageError: says why.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "`study` must be a name of at most 100 letters, digits, `.`, `_` and `-`, the first a letter or a digit, "
            "because files are called after it"
        )
    if name.lower().endswith((".yaml", ".yml")):
        raise UsageError(f"`study` must be a name, and {name!r} would be taken for a file: leave out the ending")
    if (size := len(name.encode())) > _LONGEST_NAME:
        raise UsageError(
            f"`study` must be a shorter name: it has {size} bytes, and files that are called after it at most "
            f"{_LONGEST_NAME} (a Korean letter has 3)"
        )


def _model(entry: Entry) -> str:
    model = entry.text()
    if not model.endswith((".pt", ".yaml", ".yml")):
        raise entry.refused(f"must be weights (.pt) or an architecture (.yaml), not {model!r}")
    official = re.fullmatch(r"(yolo(?:v8|11|12|26)[nslmx])(-\w+)?(\.pt|\.yaml)", model)
    if official and official[2] != "-seg":
        meant = f"{official[1]}-seg{official[3]}"
        if official[3] == ".pt" and meant not in PUBLISHED:
            meant = f"{official[1]}-seg.yaml"
        raise entry.refused(f"is no segmentation model: did you mean `{meant}`?")
    return model


def _subset(entry: Entry | None) -> Subset | None:
    if entry is None:
        return None
    return Subset(**{key: part.whole(1) for key, part in entry.mapping(("train", "val")).items()})


def _plain(keys: Mapping[str, Entry]) -> dict[str, Any]:
    """The keys that are one number or word each; those left out keep StudySpec's defaults."""
    found: dict[str, Any] = {}
    for key, low in _WHOLE_NUMBERS.items():
        if key in keys:
            found[key] = keys[key].whole(low)
    if "seed" in keys:
        found["seed"] = keys["seed"].whole(0, 2**31 - 1)
    if "stop_at" in keys:
        found["stop_at"] = keys["stop_at"].number(0, 1)
    if "on_oom" in keys:
        found["on_oom"] = keys["on_oom"].text()
        if found["on_oom"] not in ("split", "prune"):
            raise keys["on_oom"].refused(f"must be split or prune, not {found['on_oom']!r}")
    parsers: Mapping[str, Callable[[object], float]] = {
        "snapshot_every": parse_duration,
        "lease": parse_duration,
        "store_limit": parse_size,
        "stop_when": parse_share,
    }
    for key, parse in parsers.items():
        if key in keys:
            try:
                found[key] = parse(keys[key].value)
            except ValueError as error:
                raise keys[key].refused(str(error)) from error
    if found.get("lease", _SHORTEST_LEASE) < _SHORTEST_LEASE:
        raise keys["lease"].refused(f"must be at least {_SHORTEST_LEASE:g} s, a worker has to renew it in time")
    return found
