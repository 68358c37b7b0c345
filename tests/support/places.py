"""Where things lie that tests read."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PROVOKED = Path(__file__).parent / "provoked"  # on PYTHONPATH it lets things go wrong, see its sitecustomize.py
# Photographs and labels that are not the project's to copy; tests that want them are skipped where they are absent.
SHARED = Path(os.environ.get("PETSKIN_TUNE_SHARED", PROJECT.parent / "shared"))
