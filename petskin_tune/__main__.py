"""``python -m petskin_tune``: the command ``petskin-tune``, where scripts are not on the PATH."""

from petskin_tune.cli import petskin_tune

petskin_tune(prog_name="petskin-tune")
