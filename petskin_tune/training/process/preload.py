"""What the forkserver imports once, so that a trial's process starts without waiting for torch.

The server computes nothing: no thread count is set and CUDA is not touched, so that its forks are sound.
"""

from __future__ import annotations

import gc
import sys

from petskin_tune.training.process import isolation

if sys.argv[:1] == ["-c"]:  # how multiprocessing starts a forkserver; anyone else merely imports
    isolation.detach()  # before the seconds that the imports below take

import torchvision  # noqa: F401 (Ultralytics' validator imports it)

from petskin_tune.training import attempts  # noqa: F401

gc.freeze()  # what is imported stays for good: no trial copies it in order to look for garbage
