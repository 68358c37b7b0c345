"""StudySpec: what a study file says, as the rest of the program sees it. Its rules are in ``study_file/``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

# Since 2 a study file that names neither sampler nor pruner has the sampler `freeze-thaw`.
# Since 3 images are trained in the order of their names, see `StudySpec.images_by_name`.
SPEC_VERSION = 3

Scalar = bool | int | float | str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_Frozen):
    """A searched number: ``low`` to ``high``, both included; ``integer`` when both bounds and the argument are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    integer: bool = False


class Choices(_Frozen):
    """A searched choice between plain values."""

    choices: tuple[Scalar | None, ...]


class Subset(_Frozen):
    """How many images of each split a trial sees; None: all of them."""

    train: int | None = None
    val: int | None = None


class SamplerSpec(_Frozen):
    """``name`` and the options that the sampler of that name takes."""

    name: Literal["freeze-thaw", "tpe", "gp", "random"] = "tpe"
    startup_trials: int | None = None  # random draws before the model takes over; None: the sampler's own default
    rungs: tuple[int, ...] | None = None  # freeze-thaw: epochs after which a trial may pause; the last one is the end


class PrunerSpec(_Frozen):
    """``name`` and the options that the pruner of that name takes; epochs are 1-based steps."""

    name: Literal["asha", "hyperband", "median", "none"] = "asha"
    rungs: tuple[int, ...] | None = None  # asha: epochs at which a verdict is given
    reduction_factor: int = 3  # asha, hyperband: one in so many goes on
    min_epochs: int | None = None  # hyperband: the first rung of the most aggressive bracket; median: epochs in peace
    startup_trials: int = 5  # median: trials that are not judged yet

    @property
    def first_verdict(self) -> int | None:
        """The epoch (1-based) after which a trial may be pruned first; None: never."""
        if self.rungs:
            return self.rungs[0]
        return None if self.min_epochs is None else self.min_epochs + (self.name == "median")


class StudySpec(_Frozen):
    """A study file in force: every key of it, resolved to plain numbers.

    Units: ``snapshot_every`` and ``lease`` in seconds, ``store_limit`` in bytes, the rest as in the study file.
    """

    version: int = SPEC_VERSION
    study: str
    model: str
    data: str
    subset: Subset | None = None
    epochs: int
    train: Mapping[str, Any] = {}
    search: Mapping[str, Range | Choices] = {}
    start: tuple[Literal["defaults"] | Mapping[str, Scalar | None], ...] = ()  # points: `start_points.start_points(…)`
    sampler: SamplerSpec = SamplerSpec()
    pruner: PrunerSpec = PrunerSpec()
    target_trials: int = 60
    budget: int | None = None  # freeze-thaw: epochs of training, over all trials
    stop_at: float | None = None
    stop_when: float | None = None  # freeze-thaw: the chance of more within a day below which the study ends
    snapshot_every: float = 300.0
    lease: float = 90.0
    keep_weights: int = 3
    keep_frozen: int = 8  # freeze-thaw: frozen trials whose snapshots are kept
    store_limit: int | None = None
    seed: int = 0
    on_oom: Literal["split", "prune"] = "split"
    patience_epochs: int | None = None
    max_identical_failures: int = 5

    @property
    def images_by_name(self) -> bool:
        """By which rule the study reads its data: :func:`petskin_tune.datasets.layout.by_name`, or by path as before.

        A study that was begun before goes on by path, and an older release takes none that was begun since.
        """
        return self.version >= 3


# The newest value wins; a difference in any other key is another study.
CHANGEABLE = (
    "target_trials",
    "budget",
    "stop_at",
    "stop_when",
    "snapshot_every",
    "lease",
    "keep_weights",
    "keep_frozen",
    "store_limit",
)
