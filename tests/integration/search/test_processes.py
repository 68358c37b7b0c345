"""Draws in real processes: another interpreter, another hash seed, other thread counts, a helper that dies."""

import json
import os
import subprocess
import sys

import pytest

from petskin_tune.search import gaussian

SCRIPT = """
import json, random, sys
from optuna.trial import TrialState, create_trial
from petskin_tune.search.constraints import constraint_attrs
from petskin_tune.search.samplers import draw
from petskin_tune.study.spec import Choices, Range, SamplerSpec, StudySpec


def study_spec(name):
    search = {
        "optimizer": Choices(choices=("SGD", "Adam", "AdamW")),
        "lr0": Range(low=1e-5, high=2e-2, log=True),
        "batch": Range(low=4, high=64, integer=True),
    }
    return StudySpec(study="s", model="m.pt", data="d", epochs=9, search=search, sampler=SamplerSpec(name=name))


def past(count):
    chance = random.Random(1)
    for number in range(count):
        drawn = draw([], number, study_spec("random"))
        told = {"params": dict(drawn.params), "distributions": dict(drawn.distributions)}
        if drawn.params["batch"] > 40:
            trial = create_trial(state=TrialState.PRUNED, system_attrs=constraint_attrs("out-of-memory"), **told)
        elif number % 3:
            curve = {3: chance.random()}
            attrs = constraint_attrs(None)
            trial = create_trial(state=TrialState.PRUNED, intermediate_values=curve, system_attrs=attrs, **told)
        else:
            trial = create_trial(value=chance.random(), system_attrs=constraint_attrs(None), **told)
        trial.number = number
        yield trial


def main():
    trials = list(past(24))
    draws = {name: [dict(draw(trials, n, study_spec(name)).params) for n in (24, 25)] for name in sys.argv[1:]}
    print(json.dumps({"draws": draws, "torch": "torch" in sys.modules}))


if __name__ == "__main__":
    main()
"""


def draws_in_another_process(tmp_path, threads: int, hash_seed: int) -> dict:
    script = tmp_path / "draws.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, str(script), "random", "tpe", "gp"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_process_draws_the_same_and_none_of_them_imports_torch_for_it(tmp_path):
    first = draws_in_another_process(tmp_path, threads=1, hash_seed=1)
    second = draws_in_another_process(tmp_path, threads=2, hash_seed=2)
    assert first == second
    assert first["torch"] is False
    for name in ("random", "tpe", "gp"):
        assert first["draws"][name][0] != first["draws"][name][1]
    assert first["draws"]["gp"] != first["draws"]["random"]


def fail_there() -> None:
    raise ZeroDivisionError("in the helper")


def die_there() -> None:
    os._exit(9)


def big_there() -> bytes:
    return bytes(10_000_000)  # far more than a pipe holds


def test_a_failure_in_the_helper_process_is_told_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"fail_there(.|\n)*ZeroDivisionError: in the helper"):
        gaussian.in_helper_process(fail_there)


def test_the_death_of_the_helper_process_is_noticed():
    with pytest.raises(RuntimeError, match="exit code 9"):
        gaussian.in_helper_process(die_there)


def test_a_large_answer_does_not_block_the_helper_process():
    assert len(gaussian.in_helper_process(big_there)) == 10_000_000
