"""What Optuna's Gaussian process needs: a process of its own, because it imports torch, and trials that it can see."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from petskin_tune.files.paths import leave_deleted_folder
from petskin_tune.search.constraints import NAMES, PREFIX


def as_complete(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """``trials`` as the Gaussian process should see them: it looks at COMPLETE and RUNNING ones only.

    A pruned trial counts with its best value so far. One that ran out of memory or diverged has no value worth
    fitting: it gets the middle one of the others, and a violated constraint. Constraints that no trial violates are
    left out, the others are on every trial.

    Why pruned trials are not left out, as Optuna does: on LCBench's curves with noise, judged by `asha` (6 tasks x 2
    seeds, normalised regret after 5 / 10 / 20 full runs' worth of epochs) .44 / .24 / .14 against .47 / .38 / .25.
    """
    finished = [trial for trial in trials if trial.state != TrialState.RUNNING]
    violated = [name for name in NAMES if any(trial.constraints.get(name, 0) > 0 for trial in finished)]
    values = {trial.number: _value(trial) for trial in finished}
    known = sorted(value for value in values.values() if value is not None)
    middle = known[len(known) // 2] if known else 0.0
    seen = []
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            seen.append(_copy(trial, TrialState.RUNNING, None, {}))
            continue
        value = values[trial.number]
        infeasible = any(trial.constraints.get(name, 0) > 0 for name in violated)
        if value is None and not infeasible:
            continue  # pruned before its first epoch: nothing is known
        constraints = {f"{PREFIX}{name}": float(trial.constraints.get(name, 0)) for name in violated}
        seen.append(_copy(trial, TrialState.COMPLETE, middle if value is None else value, constraints))
    return seen


def in_helper_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a process from the forkserver, so that this one never imports torch.

    Not by ``concurrent.futures``: its processes wait for more work for ever when their parent is killed.

    Raises:
        RuntimeError: it failed there (with its traceback), or the process died.
    """
    leave_deleted_folder()
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    helper = context.Process(target=_answer, args=(sender, function, arguments), name="sampler", daemon=True)  # type: ignore[attr-defined]
    helper.start()
    sender.close()
    try:
        failed, answer = receiver.recv()
    except EOFError:  # the only other end of the pipe was closed by the process's death
        helper.join()
        failed, answer = True, f"it died with exit code {helper.exitcode}"
    finally:
        receiver.close()
    helper.join()
    if failed:
        raise RuntimeError(f"the sampler's helper process failed: {answer}")
    return answer


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a fit that fails falls back by itself
    try:
        result = (False, function(*arguments))
    except Exception:  # noqa: BLE001 - whatever it was, the worker must hear of it
        result = (True, traceback.format_exc())
    sender.send(result)


def _value(trial: FrozenTrial) -> float | None:
    """What is known of a finished trial's fitness; None where nothing is, or where it was infeasible."""
    if any(value > 0 for value in trial.constraints.values()):
        return None
    if trial.state == TrialState.COMPLETE:
        return trial.value
    reported = [value for value in trial.intermediate_values.values() if value == value]
    return max(reported, default=None)


def _copy(trial: FrozenTrial, state: TrialState, value: float | None, system_attrs: dict[str, Any]) -> FrozenTrial:
    """Only what the Gaussian process reads: curves and attributes would have to be pickled."""
    return FrozenTrial(
        number=trial.number,
        state=state,
        value=value,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={},
        system_attrs=system_attrs,
        intermediate_values={},
        trial_id=trial._trial_id,
    )
