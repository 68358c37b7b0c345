"""A small study file whose keys can be changed."""

from __future__ import annotations

REQUIRED = {
    "study": "nasty",
    "model": "m.yaml",
    "data": "d.yaml",
    "epochs": "9",
    "train": "{optimizer: SGD, warmup_epochs: 1}",
    "search": "{lr0: [0.001, 0.01]}",
}


def study(**changes: str) -> str:
    """The text of the file; a key that it has not is added at its end."""
    return "".join(f"{key}: {value}\n" for key, value in {**REQUIRED, **changes}.items())
