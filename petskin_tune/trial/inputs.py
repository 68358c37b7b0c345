"""What must lie on this machine before a trial can train: the data set in force and the model."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from petskin_tune.datasets import fingerprint as fingerprints
from petskin_tune.datasets import layout, source, subset
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import measure
from petskin_tune.files.paths import fitting_name
from petskin_tune.home.home import Home
from petskin_tune.retries import retrying
from petskin_tune.study import attributes
from petskin_tune.study.spec import StudySpec
from petskin_tune.study.study import Study
from petskin_tune.trial.model.files import find_model
from petskin_tune.trial.model.weights import fetch_weights, require_weights
from petskin_tune.trial.trainable import last_batch_warning, require_image_size, require_layers_to_train

MODEL_PATIENCE_SECONDS = 30.0  # a mounted Drive now and then refuses a read once


@dataclass(frozen=True)
class Prepared:
    """Everything that a trial of a study reads from this machine's disk.

    Attributes:
        data: YAML of the data set in force, subset applied.
        model: path of the weights or of the architecture; empty where nobody has asked for it yet.
        fingerprint: of the data set in force.
        classes: how many.
        train_images: of the whole data set, for the final run.
        taken: the fingerprint as it was taken here; None: nobody looks whether the data set stays as it is.
        warning: what will keep some trials from training, in a clause; empty where nothing is known to.
    """

    data: Path
    model: str
    fingerprint: fingerprints.Fingerprint
    classes: int
    train_images: int
    taken: fingerprints.Fingerprint | None = None
    warning: str = ""


def prepare(spec: StudySpec, home: Home, folders: Sequence[Path], data: str | None = None) -> Prepared:
    """Find, unpack, make or fetch what the study needs; weights last, which stay where they were fetched.

    Args:
        spec: of the study.
        home: its folder holds weights that were fetched; its work folder what is made of data sets.
        folders: where relative paths are looked up, before the current folder.
        data: what a person named with ``--data`` instead of the study's own entry.

    Raises:
        UsageError: the data set or the model is not there or cannot be used; says how to get it.
    """
    model = _find(spec, home, folders)
    prepared = prepare_data(spec, home, folders, model, data)
    return replace(prepared, model=_fetched(model, spec, home))


def warned(spec: StudySpec, prepared: Prepared) -> Prepared:
    """``prepared`` of a study that may begin, with what will keep some of its trials from training.

    Raises:
        UsageError: it will keep all of them.
    """
    return replace(prepared, warning=last_batch_warning(spec, prepared.data, Path(prepared.model)))


def prepare_model(spec: StudySpec, home: Home, folders: Sequence[Path]) -> str:
    """The path of the study's weights or architecture, fetched where Ultralytics publishes it.

    Raises:
        UsageError: it is not there and cannot be fetched, holds no weights, or no trial of the study can train it.
    """
    return _fetched(_find(spec, home, folders), spec, home)


def _find(spec: StudySpec, home: Home, folders: Sequence[Path]) -> str:
    """The path of the model, or the bare name of one that Ultralytics publishes."""
    model = find_model(spec.model, (*folders, home.folder, home.folder / "weights"))
    if model.endswith(".pt") and Path(model).is_file():
        require_weights(Path(model))
    return model


def _fetched(model: str, spec: StudySpec, home: Home) -> str:
    if model.endswith(".pt") and not Path(model).is_file():
        model = str(fetch_weights(model, home.folder / "weights"))
    require_layers_to_train(spec, Path(model))
    require_image_size(spec, Path(model))
    return model


def prepare_data(spec: StudySpec, home: Home, folders: Sequence[Path], model: str, data: str | None = None) -> Prepared:
    """What :func:`prepare` does for the data: the data set in force, with the model found before.

    Raises:
        UsageError: the data set is not there or cannot be used, or a label file is one that stops every training.
    """
    base = folders[0] if folders else Path.cwd()
    cache = home.work / "data"
    whole = source.prepare(data or spec.data, base=base, cache=cache, by_name=spec.images_by_name)
    in_force = whole
    if spec.subset is not None:
        wanted = (spec.subset.train, spec.subset.val)
        in_force = subset.write(whole, *wanted, spec.seed, subset_folder(spec.study, home))
    data_set = layout.read(whole)
    taken = fingerprints.fingerprint(in_force, cache, for_training=True)
    return Prepared(
        data=in_force,
        model=model,
        fingerprint=taken,
        classes=len(data_set.names),
        train_images=len(data_set.images["train"]),
        taken=taken,
    )


def subset_folder(study: str, home: Home) -> Path:
    """Where the subsets of the studies of this name lie, in whichever database they are."""
    return home.work / "data" / fitting_name(f"subset-{study}")


def require_unchanged(prepared: Prepared, home: Home) -> None:
    """Look at the data set again, before one more trial: a worker is at work for days. Costs a look at each file.

    Raises:
        UsageError: it is not what it was when this worker looked first; says what differs.
    """
    if prepared.taken is None:
        return
    now = fingerprints.fingerprint(prepared.data, home.work / "data")
    if difference := fingerprints.difference(prepared.taken, now):
        raise UsageError(
            f"The data set has changed since this worker began: {difference}. Put it back as it was and type the same "
            "command, or begin another study."
        )


def data_of(study: Study, home: Home, data: str | None = None) -> Prepared:
    """The study's data set on this machine, under the study's fingerprint; no model is looked for.

    Args:
        study: open.
        home: see :func:`prepare`.
        data: what a person named with ``--data`` instead of the study's own entry.

    Raises:
        UsageError: it is not there, cannot be used, or is not the study's.
    """
    return of_study(prepare_data(study.spec, home, study.folders, "", data), study)


def of_study(prepared: Prepared, study: Study) -> Prepared:
    """``prepared`` with the study's fingerprint; a subset is kept on this machine from now on, as long as the study is.

    Raises:
        UsageError: its data set is not the study's.
    """
    if study.spec.subset is not None:
        subset.mark(prepared.data, study.uid)
    stored = study.attributes.get(attributes.FINGERPRINT)
    if stored is None:
        return prepared
    return replace(prepared, fingerprint=require_same_data(stored, prepared.fingerprint))


def require_same_data(stored: dict, mine: fingerprints.Fingerprint) -> fingerprints.Fingerprint:
    """The study's fingerprint, by which its snapshots know their data; an older release may have taken it otherwise.

    Raises:
        UsageError: the data set is not the one the study's trials were trained on; says what differs.
    """
    studys = fingerprints.Fingerprint.from_json(stored)
    if difference := fingerprints.difference(studys, mine):
        raise UsageError(
            f"The data set here is not the one that this study was begun with: {difference}. Give the same data set "
            "with --data, or begin another study."
        )
    return studys


def model_identity(model: str) -> str:
    """What a model is: the name and the content of its file; Ultralytics' own, which is no file here, its name alone.

    Raises:
        UsageError: the file cannot be read.
    """
    path = Path(model)
    try:
        return retrying(MODEL_PATIENCE_SECONDS, OSError)(_identity, path)
    except OSError as error:
        raise UsageError(f"The model {model} cannot be read ({error.strerror}).") from error


def _identity(path: Path) -> str:
    if not path.is_file():
        return path.name
    status = path.stat()
    return f"{path.name} (SHA-256 {_sha256(path, status.st_mtime_ns, status.st_size)[:16]})"


@functools.lru_cache(maxsize=4)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    """The SHA-256 of a file, read once in each of its states: weights are up to 140 MB."""
    return measure(path)[1]
