"""What of this process's environment, arguments and module folders a trial's process may know: a list, not a filter.

Whatever is not listed stays here. A secret has no name of its own by which it could be left out (``KAGGLE_KEY``,
``HTTPS_PROXY=http://me:password@host``, ``SENTRY_DSN``); what Python, torch, CUDA and Ultralytics read is known.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import petskin_tune
from petskin_tune.files.paths import leave_deleted_folder

_NAMES = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "TMPDIR", "TMP", "TEMP", "LANG", "LANGUAGE"}
    | {"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE"}
    | {"SSL_CERT_DIR", "MPLCONFIGDIR", "LRU_CACHE_CAPACITY", "GLIBC_TUNABLES", "NO_PROXY", "no_proxy"}
    | {"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE", "GPU_DEVICE_ORDINAL"}
)
# Families of variables, each of one library; a name in them that speaks of a secret is none of its settings.
_FAMILIES = re.compile(
    r"(LC|LD|DYLD|MALLOC|JEMALLOC|TCMALLOC|OMP|GOMP|KMP|MKL|OPENBLAS|BLIS|VECLIB|NUMEXPR|ONEDNN|DNNL"
    r"|CUDA|CUDNN|CUBLAS|NCCL|HIP|HSA|ROCR|ROCM|MIOPEN|ROCBLAS|TORCH[A-Z]*|PYTORCH|ATEN|TRITON|OPENCV|OPENCL|YOLO"
    r"|PYTHON|TUNE_FAULTS)(_\w+)?|PYTHON[A-Z0-9]+"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|PWD|CRED|AUTH|DSN|COOKIE|SESSION|PRIVATE", re.IGNORECASE)
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"})


def child_environment(environ: Mapping[str, str], settings: Path, temporary: Path) -> dict[str, str]:
    """The environment of a trial's process.

    Args:
        environ: of this process.
        settings: folder for Ultralytics' own settings.
        temporary: folder for temporary files; a library that does not ask Python takes TMPDIR as it is.
    """
    kept = {name: value for name, value in environ.items() if _is_kept(name, value)}
    if folders := _named(kept.pop("PYTHONPATH", "").split(os.pathsep)):
        kept["PYTHONPATH"] = os.pathsep.join(folders)
    # A forkserver is a `python -c`, which would look modules up in the current folder first (since Python 3.11).
    return {**kept, "PYTHONSAFEPATH": "1", "YOLO_CONFIG_DIR": str(settings), "TMPDIR": str(temporary)}


def _is_kept(name: str, value: str) -> bool:
    if "@" in value and (name in _PROXIES or "://" in value):
        return False
    return name in _NAMES | _PROXIES or (_FAMILIES.fullmatch(name) is not None and not _SECRET.search(name))


def _named(folders: list[str]) -> list[str]:
    """Folders that were named: an empty entry of PYTHONPATH, which a colon too many makes, is the current one."""
    return [folder for folder in folders if folder]


@contextlib.contextmanager
def inherited(environment: Mapping[str, str]) -> Iterator[None]:
    """Let a forkserver, or a process that is spawned, see ``environment`` instead of this process's.

    It takes the environment over in the instant of its start. Meanwhile other threads of this process do without theirs
    (``PGPASSWORD``, ``AWS_SECRET_ACCESS_KEY``), so that nothing may be waited for in here.
    """
    before = dict(os.environ)
    _replace_environment(environment)
    try:
        yield
    finally:
        _replace_environment(before)


@contextlib.contextmanager
def without_arguments() -> Iterator[None]:
    """Let processes that are started here see no arguments, and no modules of the current folder.

    multiprocessing hands ``sys.argv`` (a URL with its password) and ``sys.path`` on to every process.
    """
    leave_deleted_folder()
    arguments, folders = sys.argv, sys.path
    sys.argv, sys.path = arguments[:1], _module_folders(folders)
    try:
        yield
    finally:
        sys.argv, sys.path = arguments, folders


def _replace_environment(values: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


def _module_folders(folders: list[str]) -> list[str]:
    """``folders`` without the current one, unless this package itself runs from there."""
    own, here = Path(petskin_tune.__file__).parent.parent, Path.cwd()
    return [folder for folder in _named(folders) if Path(folder) != here or here == own]
