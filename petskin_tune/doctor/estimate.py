"""How long a study takes and how much room it needs, from what a few real batches took. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from petskin_tune import text as words
from petskin_tune.language import _, several
from petskin_tune.search.pruners import rungs
from petskin_tune.study.extent import Extent
from petskin_tune.study.spec import StudySpec

SESSION_SECONDS = 24 * 3600.0
FEWEST_TRIALS = 20  # of a session, below which a search learns little
BRACKETS_SEEN = 300  # trials over which Hyperband's brackets are averaged
LEAST_IMGSZ = 256
THAWED = 3  # freeze-thaw: about one in so many trials goes on at a rung (benchmarks/search.py: 540 epochs, 114 trials)
SNAPSHOTS = 3  # of one trial at a time: the two newest, and the one on its way


@dataclass(frozen=True)
class Measured:
    """What a few real batches of a trial took.

    Attributes:
        images_per_second: of training.
        validated_per_second: images validated in a second; None: not measured.
        set_up_seconds: from the start of a trial's process to its first batch.
        snapshot_seconds: that training lost to one snapshot.
        snapshot_bytes: of one snapshot.
        weights_bytes: of the best weights.
    """

    images_per_second: float
    validated_per_second: float | None = None
    set_up_seconds: float = 0.0
    snapshot_seconds: float = 0.0
    snapshot_bytes: int = 0
    weights_bytes: int = 0


@dataclass(frozen=True)
class Estimate:
    """What a study of these images will see; seconds and bytes."""

    set_up: float  # of a trial, before its first batch
    epoch: float
    full_trial: float
    epochs_of_a_trial: float  # on average, with this pruner
    a_trial: float  # on average, with this pruner
    trials: float  # in a session
    disk: int
    store: int
    written: int  # to the store, in a session


def estimate(spec: StudySpec, measured: Measured, train_images: int, val_images: int) -> Estimate:
    """The study's figures.

    Args:
        spec: the study.
        measured: on this machine.
        train_images: in force, of one epoch.
        val_images: in force.
    """
    # A forward pass alone is about a third of a training step.
    validated_per_second = measured.validated_per_second or 3 * measured.images_per_second
    epoch = train_images / measured.images_per_second + val_images / validated_per_second
    pauses = spec.snapshot_every or epoch
    share = measured.snapshot_seconds / pauses
    epochs, segments = expected_epochs(spec), expected_segments(spec)
    epoch_with_snapshots = epoch * (1 + share)
    a_trial = segments * measured.set_up_seconds + epochs * epoch_with_snapshots
    frozen = 0 if spec.sampler.name != "freeze-thaw" else spec.keep_frozen
    snapshots = SESSION_SECONDS / pauses + (SESSION_SECONDS / a_trial * segments if frozen else 0)
    one_trial_holds = SNAPSHOTS * measured.snapshot_bytes + 2 * measured.weights_bytes
    return Estimate(
        set_up=measured.set_up_seconds,
        epoch=epoch,
        full_trial=measured.set_up_seconds + spec.epochs * epoch_with_snapshots,
        epochs_of_a_trial=epochs,
        a_trial=a_trial,
        trials=SESSION_SECONDS / a_trial,
        disk=one_trial_holds,
        store=one_trial_holds
        + spec.keep_weights * measured.weights_bytes
        + frozen * (measured.snapshot_bytes + measured.weights_bytes),
        written=round(snapshots * measured.snapshot_bytes),
    )


def of_the_study(extent: Extent, figures: Estimate) -> str:
    """How long what is left of the study takes, and how many sessions see it, in a sentence."""
    whole = several(extent.of or 0, _("{count} trial"), _("{count} trials"))
    if extent.unit == "epoch":
        whole = several(extent.of or 0, _("{count} epoch"), _("{count} epochs"))
    if not extent.left:
        return _("this study: all of its {whole} are done").format(whole=whole)
    seconds = _seconds_left(extent, figures)
    sessions = _("one 24-hour session sees all of it")
    if not fits_a_session(extent, figures):
        sessions = _("that is {sessions:.1f} sessions of 24 hours").format(sessions=seconds / SESSION_SECONDS)
    return _("this study: {left} of {whole} left, about {time} here; {sessions}").format(
        left=extent.left, whole=whole, time=words.duration(seconds), sessions=sessions
    )


def fits_a_session(extent: Extent, figures: Estimate) -> bool:
    """Whether a session sees all that is left of the study."""
    return _seconds_left(extent, figures) <= SESSION_SECONDS


def _seconds_left(extent: Extent, figures: Estimate) -> float:
    each = figures.a_trial if extent.unit == "trial" else figures.a_trial / figures.epochs_of_a_trial
    return extent.left * each


def expected_epochs(spec: StudySpec) -> float:
    """Epochs of a trial on average, when trials come in random order: one in ``reduction_factor`` passes each rung.

    A sampler that learns draws trials that pass more often, so that they are fewer and longer. The median pruner ends
    half of them at its first verdict.
    """
    if spec.sampler.name == "freeze-thaw":
        return _passing((spec.sampler.rungs or ())[:-1], spec.epochs, THAWED)
    if spec.pruner.name == "median":
        first = min((spec.pruner.min_epochs or 0) + 1, spec.epochs)
        return first + (spec.epochs - first) / 2
    numbers = range(BRACKETS_SEEN) if spec.pruner.name == "hyperband" else range(1)
    return mean(_passing(rungs(spec, number), spec.epochs, spec.pruner.reduction_factor) for number in numbers)


def expected_segments(spec: StudySpec) -> float:
    """Segments of a trial on average: each begins with a process, and ends with a snapshot."""
    if spec.sampler.name != "freeze-thaw":
        return 1.0
    return sum(THAWED**-number for number in range(len(spec.sampler.rungs or (0,))))


def _passing(at: Sequence[int], epochs: int, factor: int) -> float:
    total, left, before = 0.0, 1.0, 0
    for rung in (*at, epochs):
        total += left * (rung - before)
        left, before = left / factor, rung
    return total


def suggestions(spec: StudySpec, figures: Estimate, train_images: int, val_images: int) -> list[str]:
    """What would make room for 20 trials in a session, each enough by itself; nothing where they fit.

    Work grows with the number of images and of epochs, and with the square of the image size.
    """
    if figures.trials >= FEWEST_TRIALS:
        return []
    allowed, takes = SESSION_SECONDS / FEWEST_TRIALS, SESSION_SECONDS / figures.trials
    share = (allowed - figures.set_up) / (takes - figures.set_up)
    train, val = _round_down(train_images * share), _round_down(val_images * share)
    found = [f"subset: {{train: {train}, val: {val}}}"] if train and val else []
    imgsz = int(spec.train.get("imgsz", 640))
    smaller = int(imgsz * share**0.5) // 32 * 32
    if smaller >= LEAST_IMGSZ:
        found.append(_("imgsz: {smaller} (now {now})").format(smaller=smaller, now=imgsz))
    epochs = int(spec.epochs * share)
    if epochs >= 1:
        fewer = _("epochs: {epochs} (now {now})")
        if spec.pruner.rungs:
            fewer = _("epochs: {epochs} with rungs in proportion (now {now})")
        found.append(fewer.format(epochs=epochs, now=spec.epochs))
    return found


def _round_down(count: float) -> int:
    """Two significant digits."""
    unit = 10 ** max(len(str(int(count))) - 2, 0)
    return int(count) // unit * unit
