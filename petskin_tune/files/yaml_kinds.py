"""What a YAML file describes, told by its keys: people call studies, models and data sets alike.

A study file ``yolov8n-seg.yaml`` that names its model so means Ultralytics' architecture, not itself.
"""

from __future__ import annotations

from pathlib import Path

from petskin_tune.files.yaml_guard import BadYaml, load_yaml

SUFFIXES = (".yaml", ".yml")


def is_study(path: Path) -> bool:
    """Whether the file is a study file; not so for what cannot be read."""
    return {"study", "search"} <= _keys(path)


def is_architecture(path: Path) -> bool:
    """Whether the file describes a model that Ultralytics builds; not so for what cannot be read."""
    return {"backbone", "head"} <= _keys(path)


def _keys(path: Path) -> set[str]:
    """The keys at the top of the file; archives are not looked into."""
    if path.suffix.lower() not in SUFFIXES:
        return set()
    try:
        content = load_yaml(path)
    except (OSError, BadYaml):
        return set()
    return {key for key in content if isinstance(key, str)} if isinstance(content, dict) else set()
