"""The reference of the study file, made from the rules that refuse one.

``python docs/study_file_reference.py > docs/study-file.md`` writes it.

What a key means is said here; its default, whether it may change later, and what its options are come from
``spec.py``, ``choosers.py`` and ``arguments.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from petskin_tune.owned_arguments import OWNED
from petskin_tune.study.space.arguments import FIXED_ONLY, FREE, LIMITS, TUNER_BOUNDS, WORDS, arguments
from petskin_tune.study.spec import CHANGEABLE, PrunerSpec, StudySpec
from petskin_tune.study.study_file.choosers import PRUNER_OPTIONS, RUNS, SAMPLER_OPTIONS
from petskin_tune.study.study_file.parser import REQUIRED
from petskin_tune.study.study_file.units import format_duration

KEYS = {
    "study": "Name of the study: letters, digits, `.`, `_`, `-`. Files are called after it.",
    "model": "What every trial starts from: weights (`yolov8l-seg.pt`, your own `best.pt`) or an architecture "
    "(`yolov8l-seg.yaml`), looked up beside the study file. YOLOv8, YOLO11 or YOLO26, segmentation.",
    "data": "The data set: its YAML, a folder that holds one, or a .zip, .tar or .tar.gz of it; relative to the study "
    "file. `--data` names another place on one machine.",
    "subset": "How many images of each split a trial sees, `{train: 4000, val: 800}`: drawn with the seed, with the "
    "classes in proportion, and whole groups where the data set says what belongs together.",
    "epochs": "Length of a full trial.",
    "train": "Arguments of Ultralytics that are the same for all trials; see [below](#train-and-search).",
    "search": "Arguments of Ultralytics that are searched, and where; see [below](#train-and-search).",
    "start": "Points that are tried first: `defaults` (Ultralytics' own, with `optimizer: auto` written out), or a "
    "mapping of names to values. Searched arguments that a point leaves out are sampled; others that it names hold "
    "for that trial only.",
    "sampler": "Who chooses the next settings; see [below](#sampler).",
    "pruner": "Who ends hopeless trials, beside another sampler than `freeze-thaw`; see [below](#pruner).",
    "target_trials": "Configurations of the study in all, over all workers and restarts.",
    "budget": "For `freeze-thaw`: what the study may cost in all, in full runs (`20`) or in epochs (`540 epochs`). If "
    "the recommended trial is not complete then, it is trained to its end.",
    "stop_when": "For `freeze-thaw`: the study ends when the estimated chance that 24 more hours improve the best by "
    "more than the noise is below this share (`5%`); `status` says how large it is.",
    "keep_frozen": "For `freeze-thaw`: the snapshots of so many frozen trials stay in the store. The other frozen "
    "trials end; what they taught stays.",
    "stop_at": "The study ends when a trial has reached this mask mAP50-95, from 0 to 1.",
    "snapshot_every": "How often the training's state is written (`5m`, `90s`, `1h30m`); `0`: at every epoch's end. A "
    "lost machine costs at most this much training and one upload.",
    "lease": "How long a worker that is silent still owns its trial.",
    "keep_weights": "The best weights of so many trials stay in the store, and pictures of what they do; the weights "
    "of all complete ones until a `freeze-thaw` study ends.",
    "store_limit": "Bytes that the study's store may hold (`6GB`, `500MiB`); snapshots that can be spared go first.",
    "seed": "Of the sampler, the subset and every training.",
    "on_oom": "Out of memory: `split` the batch into smaller ones that add up to it, or `prune` the trial.",
    "patience_epochs": "A trial ends when its best epoch is so many epochs back.",
    "max_identical_failures": "The worker stops when so many trials in a row failed alike.",
    "version": "Of the study file's own format; leave it out.",
}
SAMPLERS = {
    "freeze-thaw": "Trials pause at rungs and the promising ones go on; a Gaussian process over settings and epochs "
    "chooses.",
    "tpe": "Optuna's TPE.",
    "gp": "Optuna's Gaussian process.",
    "random": "Random sampling.",
}
PRUNERS = {
    "asha": "At each rung the best of the trials that got there go on.",
    "hyperband": "Brackets of ASHA with different first rungs.",
    "median": "A trial ends when it is below the median of the others at its epoch.",
    "none": "Every trial runs to its end.",
}
OPTIONS = {
    "rungs": "epochs, `[3, 9]`; for `freeze-thaw` also a number: every so many epochs, by default a ninth of `epochs`",
    "startup_trials": "sampler: random trials first; pruner: trials before it ends any",
    "reduction_factor": "one trial in so many goes on",
    "min_epochs": "epochs before the first verdict",
}
_TITLE = """# The study file

<!-- Made by `python docs/study_file_reference.py > docs/study-file.md`. -->

A study file says what is trained, what is searched and for how long. `petskin-tune show --study petskin > mine.yaml`
writes one to start from; [`studies/petskin.yaml`](../studies/petskin.yaml) argues for each of its choices. What a file
says wrongly is refused with its line and the nearest right name, and `petskin-tune init --study mine.yaml` checks
everything without training.

A key marked *yes* may be changed at any time: what has changed in the file is in force when `tune-worker` or
`petskin-tune init` is typed with it, and what `--budget` or `--target-trials` said stays until then. The others may be
changed until the first trial has begun, or was added by `try` or `import`; after that, they make another study:
`petskin-tune init --study mine2 --from mine mine.yaml` begins it with what the first has found.
"""
_SEARCHED = """## `train` and `search`

Under `train` an argument has one value, under `search` a range or choices:

```yaml
search:
  lr0: {low: 1.0e-5, high: 2.0e-2, log: true}   # drawn evenly among the powers of ten
  box: {low: 2, high: 20, step: 2}
  optimizer: {choices: [SGD, Adam, AdamW]}
  mosaic: [0.0, 1.0]                            # short for {low: 0.0, high: 1.0}
```

Where `lr0` or `momentum` is searched, `optimizer` must be named: Ultralytics' `auto` would override them.
"""


def page() -> str:
    """The reference, as Markdown."""
    parts = [_TITLE, _keys(), _SEARCHED, _arguments(), _fixed(), _named("sampler"), _named("pruner"), _refused()]
    return "\n".join(part.strip() + "\n" for part in parts)


def _keys() -> str:
    rows = ((f"`{key}`", KEYS[key], _default(key), "yes" if key in CHANGEABLE else "no") for key in KEYS)
    return "## Keys\n\n" + _table(("key", "what it means", "default", "may change later"), rows)


def _default(key: str) -> str:
    """What is in force where the file leaves ``key`` out."""
    if key in REQUIRED:
        return "*needed*"
    if key in ("snapshot_every", "lease"):
        return f"`{format_duration(StudySpec.model_fields[key].default)}`"
    if key in _SPECIAL:
        return _SPECIAL[key]
    value = StudySpec.model_fields[key].default
    return "none" if value in (None, (), {}) else f"`{value}`"


_SPECIAL = {
    "sampler": "`freeze-thaw`; `tpe` where a `pruner` is named",
    "pruner": f"`{PrunerSpec().name}`; none beside `freeze-thaw`",
    "budget": f"`{RUNS}` with `freeze-thaw`",
    "target_trials": f"`{StudySpec.model_fields['target_trials'].default}`; with `freeze-thaw` what its budget begins",
    "subset": "all images",
    "store_limit": "no limit",
}


def _named(kind: str) -> str:
    meanings = SAMPLERS if kind == "sampler" else PRUNERS
    options = SAMPLER_OPTIONS if kind == "sampler" else PRUNER_OPTIONS
    rows = ((f"`{name}`", meaning, _options(options[name])) for name, meaning in meanings.items())
    example = (
        "`sampler: {name: tpe, startup_trials: 10}`" if kind == "sampler" else "`pruner: {name: asha, rungs: [3, 9]}`"
    )
    return f"## `{kind}`\n\n{example}, or the name alone.\n\n" + _table(("name", "what it does", "options"), rows)


def _options(names: Sequence[str]) -> str:
    return "; ".join(f"`{name}`: {OPTIONS[name]}" for name in names) or "none"


def _arguments() -> str:
    rows = ((f"`{name}`", f"`{arguments()[name].default}`", _allowed(name), _tuner(name)) for name in sorted(FREE))
    head = ("argument", "Ultralytics' default", "allowed", "`model.tune()` searches")
    return "### May be searched or fixed\n\n" + _table(head, rows)


def _fixed() -> str:
    rows = (
        (f"`{name}`", f"`{arguments()[name].default}`", _allowed(name), f"it {why}")
        for name, why in sorted(FIXED_ONLY.items())
    )
    head = ("argument", "Ultralytics' default", "allowed", "why it cannot be searched")
    return "### May only be fixed\n\n" + _table(head, rows)


def _allowed(name: str) -> str:
    if name in WORDS:
        return ", ".join(f"`{str(word).lower() if isinstance(word, bool) else word}`" for word in WORDS[name])
    if name in LIMITS:
        low, high = LIMITS[name]
        return f"{low:g} to {high:g}"
    return "`true`, `false`"


def _tuner(name: str) -> str:
    if name not in TUNER_BOUNDS:
        return ""
    low, high = TUNER_BOUNDS[name]
    return f"{low:g} to {high:g}"


def _refused() -> str:
    rows = ((f"`{name}`", why) for name, why in sorted(OWNED.items()))
    return "## What the tool sets itself\n\n" + _table(("argument", "instead"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(_lines(head, rows))


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    print(page(), end="")
