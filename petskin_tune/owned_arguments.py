"""Ultralytics' training arguments that neither a study nor a trial may set, in one table.

A study file is refused by it in milliseconds, before a trial is spent; a trial's process is refused by it as well,
because whoever may write to the database may write arguments there that no study file has been checked for.
"""

from __future__ import annotations

# What the tool decides on, or says elsewhere: name -> the way on.
OWNED: dict[str, str] = {
    "task": "every study here is segmentation",
    "mode": "every trial here is a training",
    "model": "`model` is a key of its own",
    "data": "`data` is a key of its own",
    "epochs": "`epochs` is a key of its own, and the same for all trials",
    "seed": "`seed` is a key of its own",
    "fraction": "it takes a prefix of the sorted file names, whole classes may be missing; use the key `subset`",
    "patience": "use the key `patience_epochs`",
    "time": "it re-plans epochs and learning rate from the wall clock; use `--max-hours`",
    "device": "use `--device`",
    "project": "the tool keeps runs in its home (`--home`)",
    "name": "the tool names runs after their trials",
    "exist_ok": "the tool names runs after their trials",
    "resume": "the tool resumes by itself, exactly",
    "save": "the tool keeps snapshots and the best weights",
    "save_period": "use the key `snapshot_every`",
    "pretrained": "say it in `model`: weights (.pt) or an architecture (.yaml)",
    "val": "a trial is judged by its validation after every epoch",
    "split": "a trial is judged by the data set's `val` split",
    "plots": "the tool draws the curves itself",
    "verbose": "the log lies in the run's folder",
    "profile": "the tool measures its own time",
    "deterministic": "an exact resume needs it on, and it is",
    "rect": "the tool draws its own seeded order of images, which rectangular batches would break",
    "compile": "a compiled model cannot be resumed exactly",
    "quantize": "quantization-aware training cannot be resumed exactly",
    "distill_model": "a teacher model is not part of a snapshot",
    "dis": "a teacher model is not part of a snapshot",
    "classes": "make a data set with these classes instead",
    "cfg": "write the arguments under `train`",
    "single_cls": "merge the classes in the data set instead",
    "augmentations": "Albumentations draws random numbers of its own, which cannot be resumed",
    "save_json": "the tool evaluates mask mAP itself",
}
