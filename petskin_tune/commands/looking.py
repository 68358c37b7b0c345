"""The commands that only look: each opens the study, lets a view say what it shows, and writes nothing to the study."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from petskin_tune.commands.opening import Places, open_study
from petskin_tune.errors import UsageError
from petskin_tune.files.durable import StoreError
from petskin_tune.files.paths import require_folder
from petskin_tune.home.home import Home
from petskin_tune.leases.lease import read_leases
from petskin_tune.study.study import Study
from petskin_tune.views import status as statuses


def show_status(places: Places, say: Callable[[str], None], *, as_json: bool, watch: bool) -> None:
    """Say where the study stands, once or again and again."""
    with open_study(places) as (home, study):

        def read() -> statuses.Status:
            leases = read_leases(study.storage, study.id)
            options = places.typed.strip()
            return statuses.collect(study.optuna, leases, time.time(), options=options, home=home.folder)

        if watch:
            study.storage.patience.seconds = None  # whoever watches sees it come back
            statuses.watch(read, sys.stdout)
        elif as_json:
            say(json.dumps(read().to_json(), indent=2, ensure_ascii=False))
        else:
            say(statuses.render(read()).rstrip("\n"))


def write_report(places: Places, output: str) -> str:
    """Write the report of a study; what to tell the person."""
    from petskin_tune.views import report

    with open_study(places) as (_, study):
        report.write(study.optuna, Path(output))
    return f"{output} shows the study {study.name}; open it in a browser"


def diagnose(places: Places | None, path: str | None, trial: int | None) -> str:
    """What the curves of a study (or one of its trials), of a results.csv or of a run's folder show."""
    from petskin_tune.diagnosis import explain as diagnoses

    if path is not None:
        return diagnoses.of_run(Path(path))
    assert places is not None
    with open_study(places) as (_, study):
        return diagnoses.of_study(study.optuna, trial)


def show_best(places: Places, say: Callable[[str], None], yaml_file: str | None, weights: str | None) -> None:
    """Print the best trial, or write its settings and weights where they are wanted."""
    from petskin_tune.views import export

    for file in (yaml_file, weights):
        if file is not None:
            require_folder(Path(file))
    with open_study(places) as (home, study):
        if yaml_file is None and weights is None:
            say(export.render(study.optuna, options=places.typed.strip()).rstrip("\n"))
        if yaml_file is not None:
            trial = export.write_yaml(study.optuna, Path(yaml_file), **_found_here(study, home))
            say(f"{yaml_file} has the settings of trial {trial.number}; type: yolo train cfg={yaml_file}")
        if weights is not None:
            store = home.open_store(study.store, study.uid)
            try:
                trial = export.write_weights(study.optuna, Path(weights), store.fetch)
            except StoreError as error:
                raise UsageError(f"The weights cannot be fetched from {store.url}: {error}.") from error
            say(f"{weights} has the best weights of trial {trial.number}; load them with YOLO({weights!r})")


def _found_here(study: Study, home: Home) -> dict[str, Any]:
    """Model and data set as paths of this machine, as far as they are here: `yolo train` knows nothing of studies."""
    from petskin_tune.datasets import source
    from petskin_tune.trial.model_files import find_model

    found: dict[str, Any] = {}
    base = study.folders[0] if study.folders else Path.cwd()
    try:
        found["model"] = find_model(study.spec.model, (*study.folders, home.folder, home.folder / "weights"))
        found["data"] = str(source.prepare(study.spec.data, base=base, cache=home.work / "data"))
    except UsageError:
        pass  # the study's own words then, which are right where the files are
    return found


def serve_dashboard(places: Places, say: Callable[[str], None], port: int) -> None:
    """Serve the dashboard until Ctrl-C."""
    from petskin_tune.views import dashboard

    with open_study(places) as (_, study):
        dashboard.serve(study.storage, study.optuna, port, say=say)
