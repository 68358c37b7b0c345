"""What must be in the environment before ultralytics is imported; importing this module puts it there.

Ultralytics reads these variables once, at its import: otherwise it would look for updates, install packages in the
middle of a training or wait for time-outs, and its loader of ``.pt`` files would run code that a file brings along.
"""

from __future__ import annotations

import os
import re
from functools import cache

from petskin_tune.printable import printable

_ENVIRONMENT = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",  # no progress bars; the logger's level is raised again in child.py
    "ULTRALYTICS_SAFE_LOAD": "true",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "MPLBACKEND": "Agg",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # torch's deterministic algorithms need it before CUDA starts
}

_asked_threads = os.environ.get("OMP_NUM_THREADS", "")  # a person's: Ultralytics sets it where nobody has

os.environ.update(_ENVIRONMENT)


def threads_asked_for() -> int | None:
    """Return the thread count that a person has set for this process; Ultralytics forgets it on a CPU."""
    found = re.match(r"\s*0*([1-9][0-9]{0,3})\s*(,|$)", _asked_threads)  # OpenMP takes one for each level: 4,2
    return int(found[1]) if found else None


def quiet_ultralytics() -> None:
    """Switch off in this process what Ultralytics does besides training; the user's settings file stays as it is.

    Its settings object writes every change to disk, so the dictionary is changed underneath. The check for fonts would
    import matplotlib and ask the network, and nothing is drawn here. Models are files that were found before: it would
    look for others where a path has an apostrophe, or speaks of an older release. It writes the arguments, paths among
    them, as YAML, which takes no name that is not UTF-8: such bytes are spelled out there.
    """
    import ultralytics.data.utils
    import ultralytics.utils.checks
    import ultralytics.utils.downloads
    from ultralytics.utils import SETTINGS, YAML

    YAML._get_instance().SafeDumper = _printable_dumper()

    loggers = ("clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "tensorboard", "wandb")
    dict.update(SETTINGS, {"sync": False, "api_key": "", **{name: False for name in loggers if name in SETTINGS}})
    os.environ.pop("ULTRALYTICS_API_KEY", None)
    ultralytics.data.utils.check_font = lambda font: None
    ultralytics.utils.downloads.attempt_download_asset = lambda file, *_, **__: str(file)
    ultralytics.utils.checks.check_yolov5u_filename = lambda file, *_, **__: file


@cache
def _printable_dumper() -> type:
    """A dumper of YAML that spells out what UTF-8 has not: the bytes of a file's name that stand for no character."""
    import yaml

    class PrintableDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        pass

    PrintableDumper.add_representer(str, lambda dumper, text: dumper.represent_str(printable(text)))
    return PrintableDumper
