"""``python -m petskin_tune``: the command ``petskin-tune``, where scripts are not on the PATH."""

import os
import sys

if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.realpath("."):
    del sys.path[0]  # the current folder, which Python puts there: a module in it would be taken for an installed one

from petskin_tune.cli import petskin_tune

petskin_tune(prog_name="petskin-tune")
