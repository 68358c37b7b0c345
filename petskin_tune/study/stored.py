"""What a database says of a study and its trials, checked where it is read.

The database is plain Optuna's and open to other programs: a notebook adds trials of its own, a script or a damaged copy
changes a row. Of a trial that none of our workers made, nothing is read under our names. An attribute of one of ours
that is not of the kind we write counts as not there. A study (or a lease) that is not as we write it is refused in one
sentence, because names and numbers in it become paths and trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from petskin_tune.errors import UsageError
from petskin_tune.packages import UPGRADE
from petskin_tune.study import attributes
from petskin_tune.study.best.gain import Gain, Repeats
from petskin_tune.study.spec import SPEC_VERSION, Scalar, StudySpec
from petskin_tune.study.study_file.file import as_written
from petskin_tune.study.study_file.parser import read_study
from petskin_tune.study.study_file.yaml_lines import entry_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

OTHERWISE = "Put a copy of the database in its place, or begin a study of another name."
Count = Annotated[int, Field(ge=0, lt=2**31)]
Seconds = Annotated[float, Field(ge=0, le=1e10)]  # three hundred years
Key = Annotated[str, Field(pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$", max_length=1000)]  # in a store: no root, no `..`


class _Environment(BaseModel):
    """See :mod:`petskin_tune.packages`."""

    versions: dict[str, str]
    snapshot_format: int = 1
    cuda: str | None = None
    device_model: str | None = None


class _Recommended(BaseModel):
    """The trial that the search's model expects to be the best, when a study ended."""

    trial: Count
    ended: Count
    reason: str


class _LastRun(BaseModel):
    """The recommended trial, which is trained to its end once the budget is used up."""

    trial: Count
    epochs: Count


class _Outlook(BaseModel):
    """See :class:`petskin_tune.search.freeze_thaw.state.Outlook`."""

    chance: Annotated[float, Field(ge=0, le=1)]
    noise: Annotated[float, Field(ge=0, le=1e6)]
    epochs: Count


def _fingerprint(value: dict[str, Any]) -> dict[str, Any]:
    from petskin_tune.datasets.fingerprint import Fingerprint

    splits = TypeAdapter(Fingerprint).validate_python(value).splits
    if not {"train", "val"} <= set(splits):
        raise ValueError("a split is missing")
    return value


_ORIGINS = ("start point", "person", "search", "repeat")
_OF_A_TRIAL: Mapping[str, Any] = {
    attributes.WORKER: str,
    attributes.DEVICE: str,
    attributes.DEVICE_MODEL: str | None,
    attributes.VERSIONS: dict[str, str],
    attributes.CUDA: str | None,
    attributes.THREADS: Annotated[int, Field(ge=1, le=4096)],
    attributes.SECONDS: Seconds,
    attributes.EPOCHS: Count,
    attributes.BEST_EPOCH: Count,
    attributes.METRICS: dict[str, float],
    attributes.HISTORY: dict[str, list[float]],
    attributes.ARGUMENTS: dict[str, Any],
    attributes.BATCH: Count,
    attributes.RESUMES: Count,
    attributes.FAILURE: dict[str, str],
    attributes.GIVEN_BACK: dict[str, str] | None,
    attributes.NOTES: list[str],
    attributes.FINDINGS: dict[str, str],
    attributes.WEIGHTS: Annotated[str, Field(pattern=r"^[\w-]+/trial-\d+/best-\d+-[0-9a-f]{16}\.pt$")] | None,
    attributes.FIXED: dict[str, Scalar],
    attributes.ORIGIN: Literal[_ORIGINS],
    attributes.SEED: Count,
    attributes.ROLE: Literal["best", "defaults"],
}
_OF_A_STUDY: Mapping[str, Any] = {
    attributes.UID: Annotated[str, Field(pattern="^[0-9a-f]{12}$")],
    attributes.SPEC: dict[str, Any],  # more in :func:`read_spec`
    attributes.BASE: str,
    attributes.FILE: dict[str, Any],
    attributes.STORE: str,
    attributes.FINGERPRINT: Annotated[dict[str, Any], AfterValidator(_fingerprint)],
    attributes.MODEL: str,
    attributes.ENVIRONMENT: _Environment,
    attributes.OTHER_RELEASES: list[str],
    attributes.RECOMMENDED: _Recommended,
    attributes.LAST_RUN: _LastRun,
    attributes.OUTLOOK: _Outlook,
    attributes.REPEATS: Repeats,
    attributes.GAIN: Gain,
    attributes.STOP_REQUESTED: Count,
    attributes.DELETING: bool,
}

_DISPENSABLE = frozenset(
    {attributes.RECOMMENDED, attributes.OUTLOOK, attributes.GAIN}
)  # or done without, where cut short


@cache
def _kind(name: str, of_a_trial: bool) -> TypeAdapter[Any]:
    return TypeAdapter((_OF_A_TRIAL if of_a_trial else _OF_A_STUDY)[name])


# ---- a trial ---------------------------------------------------------------------------------------------------------


def is_ours(trial: FrozenTrial) -> bool:
    """Whether one of our workers has made or taken this trial, or one of our commands enqueued it."""
    return attributes.MARK in trial.system_attrs or attributes.ENQUEUED in trial.system_attrs


def recorded(trial: FrozenTrial) -> Mapping[str, Any]:
    """What our workers keep with a trial, by the names in ``attributes.py``; nothing of a trial that is not ours."""
    return _Recorded(trial.user_attrs) if is_ours(trial) else {}


def enqueued_params(trial: FrozenTrial) -> Mapping[str, Any]:
    """The parameters with which somebody enqueued a trial, ours or a person's, as Optuna keeps them."""
    kept = trial.system_attrs.get(attributes.POINT, {})
    return kept if isinstance(kept, Mapping) else {}


def _bare(name: str) -> str:
    return name.removeprefix(attributes.PREFIX)


class _Recorded(Mapping[str, Any]):
    """The user attributes of a trial of ours that are of the kind we write.

    A trial that was begun before our names had a prefix is told by its origin, which every trial of ours has from its
    draw on, and is read under the bare names, too. On all others, what stands under a bare name is a person's.
    """

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self._kept = kept
        self._is_old = attributes.ORIGIN not in kept and kept.get(_bare(attributes.ORIGIN)) in _ORIGINS

    def __getitem__(self, name: str) -> Any:
        key = name
        if name not in self._kept and self._is_old:
            key = _bare(name)
        value = self._kept[key]
        try:
            _kind(name, True).validate_python(value, strict=True)
        except ValidationError:
            raise KeyError(name) from None
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in _OF_A_TRIAL if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


# ---- a study ---------------------------------------------------------------------------------------------------------


def study_attributes(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """The user attributes of a study that is ours, as they are.

    Raises:
        UsageError: one of ours is not as we write it.
    """
    for name in _OF_A_STUDY.keys() & stored.keys():
        if stored[name] is None and name in _DISPENSABLE:
            continue
        try:
            _kind(name, False).validate_python(stored[name], strict=True)
        except ValidationError as error:
            raise refusal(f"The study's attribute `{name}`", error) from error
    return stored


def read_spec(stored: Mapping[str, Any]) -> StudySpec:
    """The spec in force among the user attributes of a study that is ours: it keeps the rules of a study file.

    Raises:
        UsageError: a newer petskin-tune wrote it, or it breaks a rule.
    """
    content = study_attributes(stored)[attributes.SPEC]
    version = content.get("version", 1)
    if isinstance(version, int) and version > SPEC_VERSION:
        raise UsageError(f"The study was made by a newer petskin-tune; upgrade with: {UPGRADE}")
    try:
        return checked(StudySpec.model_validate(content), "The study's stored spec")
    except ValidationError as error:
        raise refusal("The study's stored spec", error) from error


def checked(spec: StudySpec, where: str) -> StudySpec:
    """``spec``, read by the code that reads a study file.

    Raises:
        UsageError: it breaks a rule; ``where`` is how a person knows what it was made from.
    """
    return read_study(entry_of(as_written(spec), where), spec.version).spec


def refusal(what: str, error: ValidationError) -> UsageError:
    """The refusal of something stored that is not as we write it."""
    first = error.errors()[0]
    where = "".join(f" `{part}`" for part in first["loc"] if isinstance(part, str))[:200]
    return UsageError(
        f"{what} in the database is not as petskin-tune writes it:{where} {first['msg'].lower()}. {OTHERWISE}"
    )
