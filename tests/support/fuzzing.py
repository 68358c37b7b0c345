"""How many cases a property is tried with: a few in the suite, as many as wanted by hand, and then others each time::

    PETSKIN_TUNE_FUZZING=10000 pytest -n 0 -o timeout=0 tests/integration/datasets/test_property.py

The properties that take it are those of commands (tests/integration/test_fuzzing.py) and of all who read what others
wrote: in tests/integration datasets/test_property.py (data.yaml, labels, pictures) and study/test_stored.py (what is
stored with a study and its trials); in tests/unit datasets/test_aihub.py (its records),
study/study_file/test_parser.py (study files), database/test_urls.py, files/test_yaml_guard.py,
diagnosis/test_run_files.py (results.csv and args.yaml).
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

_BY_HAND = os.environ.get("PETSKIN_TUNE_FUZZING")


def cases(usual: int, **more: Any) -> settings:
    """Settings of a property that is tried with ``usual`` cases in the suite."""
    if _BY_HAND:
        more.update(derandomize=False, database=None)  # the suite shall not begin with what was found by hand
    return settings(max_examples=int(_BY_HAND or usual), deadline=None, suppress_health_check=list(HealthCheck), **more)
