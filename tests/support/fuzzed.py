"""Commands that are typed one after the other in one process, which may write to its own folder and nowhere else.

``Fuzzed`` starts this file as a program. Where the tests run as root, it is a user without rights who can write nowhere
else; files that only root may read (the interpreter, in some places) are left readable to it. Each command works in a
copy of the same small tree, a new one where the last command changed anything::

    here/     a data set, study files, a home with a study, run folders, links, a FIFO: the current folder
    mine/     somebody else's data set, weights, study file, home and links: nothing there may change
    user/     HOME, with the cache
    tmp/      TMPDIR

Nothing is trained and nothing served: a process that is started, several workers, a server that serves and a sleep of
`status --watch` end the command, as Ctrl-C would (``ends`` says "process" or "Ctrl-C" then). A process's share of the
work on data sets is done in this one. A database that does not answer is given up at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tests.support.places import PROJECT

NOBODY = 65534
CPU_SECONDS = 10.0  # of one command; most take hundredths
PATIENCE_SECONDS = 60.0  # with a command that waits; nothing here is worth waiting for
MOST_THREADS = 40  # left behind by commands that were ended, before another process goes on
MEMORY = 16 * 2**30  # bytes of addresses: what reads /dev/zero finds an end
LARGEST_FILE = 2**28  # bytes
READ_ANYTHING = "dac_read_search"  # the capability
CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
CHANGES |= {"os.chown", "os.utime", "os.setxattr", "shutil.rmtree", "shutil.move", "shutil.chown"}


class Fuzzed:
    """The process in which commands are typed; it is started anew when one of them hung."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="petskin-tune-fuzzing-"))
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        self._process: subprocess.Popen[bytes] | None = None

    def type(self, words: Sequence[str]) -> dict[str, Any]:
        """Type one command; what became of it, see :func:`run`."""
        if self._process is None:
            self._process = self._started()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(list(words)).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        found = json.loads(line) if line else {"code": None, "died": self._process.wait()}
        if found.pop("last", not line):
            self._end()
        return found

    def close(self) -> None:
        """End the process, and delete its folder."""
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
        nowhere = dict.fromkeys(("http_proxy", "https_proxy", "AWS_ENDPOINT_URL"), "http://127.0.0.1:1")
        environment = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
        environment |= {"AWS_EC2_METADATA_DISABLED": "true", "NO_GCE_CHECK": "true", "CUDA_VISIBLE_DEVICES": "0,1"}
        return subprocess.Popen(
            [*_without_rights(), sys.executable, "-m", "tests.support.fuzzed", str(self.folder)],
            cwd=self.folder,
            env=kept | nowhere | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )


def _without_rights() -> list[str]:
    """The command that gives root's rights up, but for that to read."""
    if os.geteuid() != 0:
        return []
    kept = f"-all,+{READ_ANYTHING}"
    capabilities = [f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}"]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *capabilities]


# ---- in the process that types --------------------------------------------------------------------------------------


class Ends(BaseException):
    """The command would go on in another process, or for ever."""


class Late(BaseException):
    """The command took too long."""


def _end(*_: object, **__: object) -> NoReturn:
    raise Ends("process")


def _interrupt(*_: object, **__: object) -> NoReturn:
    raise KeyboardInterrupt


def arrange() -> None:
    """Replace what starts processes, serves or waits; see the text at the top."""
    import functools
    import multiprocessing.forkserver
    import multiprocessing.process
    import socketserver

    from petskin_tune.datasets import parallel

    spread = parallel.spread

    @functools.wraps(spread)
    def in_this_process(function: Any, work: Any, jobs: int, *more: Any, **named: Any) -> Any:
        return spread(function, work, 1, *more, **named)

    parallel.spread = in_this_process  # before anything imports it

    from petskin_tune.commands import worker
    from petskin_tune.opening import lookup, patience
    from petskin_tune.views.status import text as status_text
    from petskin_tune.worker import devices

    multiprocessing.forkserver.ensure_running = lambda: None  # it would import torch for nothing
    multiprocessing.process.BaseProcess.start = _end  # type: ignore[method-assign]
    devices.WorkerProcesses.work = _end  # type: ignore[method-assign]
    socketserver.BaseServer.serve_forever = _interrupt  # type: ignore[method-assign]
    status_text.watch.__kwdefaults__["sleep"] = _interrupt
    lookup.START_PATIENCE_SECONDS = patience.START_PATIENCE_SECONDS = 0.05
    worker.end_now = sys.exit


class Watch:
    """Hears of everything that changes a file, and keeps what lies outside of ``allowed``."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] | None = None  # None: nobody is watched
        self.found: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.allowed is None:
            return
        allowed, self.allowed = self.allowed, None  # what is done here is not heard
        try:
            for path in _changed(event, arguments):
                if not path.startswith(allowed):
                    self.found.append(f"{event} {path!r}")
        finally:
            self.allowed = allowed


def _changed(event: str, arguments: tuple[Any, ...]) -> Iterator[str]:
    """The paths, without links, that an event changes."""
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            yield from _real(path, -1)
    elif event == "sqlite3.connect":
        name = os.fsdecode(arguments[0])
        if name not in ("", ":memory:") and "mode=ro" not in name and "mode=memory" not in name:
            yield from _real(name.removeprefix("file:").partition("?")[0] if name.startswith("file:") else name, -1)
    elif event in CHANGES:
        descriptors = [one for one in arguments[1:] if isinstance(one, int)] or [-1]
        names = [one for one in arguments[:2] if isinstance(one, (str, bytes, os.PathLike))]
        if event in ("os.symlink", "os.link"):
            names = names[1:]
        if event == "os.mkdir" and os.path.isdir(names[0]):
            return  # mkdir(parents=True) asks for what is there
        for name in names:
            yield from _real(name, descriptors[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1)


def _real(path: Any, folder: int) -> Iterator[str]:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return  # a descriptor, whose opening was heard
    name = os.fsdecode(path)
    if folder >= 0 and not os.path.isabs(name):
        name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
    if "\x00" not in name:
        yield os.path.join(os.path.realpath(os.path.dirname(name) or "."), os.path.basename(name))


def state(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Kind, rights, time of the last change and content of everything below ``folder``.

    What vanishes meanwhile is left out: SQLite tidies up behind a connection that is forgotten.
    """
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        with contextlib.suppress(FileNotFoundError):
            found[str(path)] = _state_of(path)
    return found


def _state_of(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    content = ""
    if stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    return status.st_mode, status.st_mtime_ns, content


# ---- the tree -------------------------------------------------------------------------------------------------------

STUDY = """
study: petskin
model: small-seg.yaml
data: data/data.yaml
epochs: 12
train: {imgsz: 32, batch: 2, warmup_epochs: 1, close_mosaic: 3, workers: 0}
search:
  lr0: {low: 1.0e-5, high: 1.0e-1, log: true}
  optimizer: {choices: [SGD, AdamW]}
target_trials: 6
sampler: {name: random}
pruner: {name: none}
"""


def plant(folder: Path) -> None:
    """Make the tree that each command finds."""
    from petskin_tune.datasets import demo

    here = folder / "here"
    for name in ("here/sub", "here/images", "here/run/weights", "here/locked", "mine/home", "user", "tmp"):
        (folder / name).mkdir(parents=True)
    demo.make(here / "data", train=2, val=2, imgsz=32)
    shutil.copy(PROJECT / "tests" / "support" / "small-seg.yaml", here)
    texts = {
        "study.yaml": STUDY,
        "twice.yaml": STUDY + "epochs: 3\n",
        "bad.yaml": "a: [",
        "empty.yaml": "",
        "bad.zip": "PK",
    }
    for name, text in {**texts, "text.txt": "text\n", "best.pt": "PK\x03\x04", "images/bad.png": "\x89PNG"}.items():
        (here / name).write_text(text, encoding="utf-8")
    rows = ["epoch,train/seg_loss,val/seg_loss,metrics/mAP50-95(M),lr/pg0"]
    rows += [f"{epoch},{2 - epoch / 50},{2 - epoch / 60},{epoch / 100},0.01" for epoch in range(1, 30)]
    for name in ("results.csv", "run/results.csv"):
        (here / name).write_text("\n".join(rows), encoding="utf-8")
    (here / "run" / "args.yaml").write_text("epochs: 30\nlr0: 0.01\n", encoding="utf-8")
    with zipfile.ZipFile(here / "data.zip", "w") as archive:
        for path in sorted((here / "data").rglob("*")):
            archive.write(path, path.relative_to(here))
    for name, target in {"link": "sub", "loop": "loop", "broken": "nowhere", "tomine": "../mine/data"}.items():
        (here / name).symlink_to(target)
    _begin_studies(here)
    mine = folder / "mine"
    shutil.copytree(here / "data", mine / "data")
    for name in ("study.yaml", "small-seg.yaml", "best.pt", "home/tune.db"):
        shutil.copy(here / name, mine / name)
    (mine / "notes.txt").write_text("mine\n", encoding="utf-8")
    (mine / "link").symlink_to("notes.txt")


def _begin_studies(here: Path) -> None:
    """A home with two studies: `petskin`, half done, and `done`, which is good enough."""
    from petskin_tune.commands.options import Places
    from petskin_tune.commands.study import init_study
    from petskin_tune.database.storage import open_storage
    from petskin_tune.study.study import find_study
    from tests.support import curves
    from tests.support.studies import add, trained

    os.chdir(here)
    (here / "done.yaml").write_text(f"{STUDY}stop_at: 0.01\n", encoding="utf-8")
    for name, file in {"petskin": "study.yaml", "done": "done.yaml"}.items():
        init_study(Places(name, "home"), lambda _: None, source=None, data=None, file=file)
        study = find_study(open_storage(f"sqlite:///{here}/home/tune.db"), name)
        assert study is not None
        for number in range(3):
            trained(study.optuna, curves.healthy(number, epochs=12))
        add(study.optuna, "FAIL", failure={"kind": "oom", "message": "out of memory", "detail": ""})
        study.storage.engine.dispose()


def lay_out(template: Path, folder: Path) -> None:
    """A copy of the tree, with what cannot be copied."""
    shutil.copytree(template, folder, symlinks=True)
    os.mkfifo(folder / "here" / "fifo")
    (folder / "here" / "locked").chmod(0o500)


# ---- one command ----------------------------------------------------------------------------------------------------


def run(words: Sequence[str], folder: Path, watch: Watch) -> dict[str, Any]:
    """Type a command in the tree at ``folder``.

    Returns: its exit ``code`` (None: it ended by an error, ``error``), its ``stdout`` and ``stderr``, how it ``ends``,
    and what it ``changed`` elsewhere, as far as the watch heard of it.
    """
    from click.testing import CliRunner

    from petskin_tune.cli import petskin_tune, tune_worker

    here = folder / "here"
    os.chdir(here)
    os.environ.update(HOME=str(folder / "user"), TMPDIR=str(folder / "tmp"))
    tempfile.tempdir = None
    program = {"tune-worker": tune_worker, "petskin-tune": petskin_tune}[words[0]]
    arguments = [word.replace("{HERE}", str(here)) for word in words[1:]]
    found: dict[str, Any] = {"code": None, "stdout": "", "stderr": "", "ends": "", "error": ""}
    own = [str(folder / name) + os.sep for name in ("here", "user", "tmp")]
    watch.found, watch.allowed = [], (*own, str(here), "/dev/", "/proc/")
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
    try:
        result = CliRunner().invoke(program, arguments)
        found |= {"stdout": result.stdout, "stderr": result.stderr}
        if result.exception is None or isinstance(result.exception, SystemExit):
            found["code"] = result.exit_code
        else:
            found["error"] = "".join(traceback.format_exception(*result.exc_info))
    except Ends as ended:
        found["ends"] = str(ended)
    except BaseException:  # noqa: BLE001 (the parent judges it)
        found["error"] = traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        watch.allowed = None
    found["changed"] = watch.found
    return found


def _late(number: int, _frame: object) -> NoReturn:
    raise Late(f"this takes too long ({signal.Signals(number).name})")


def serve(base: Path) -> None:
    """Type what comes on standard input, one list of words a line, until one was too late or too much is left over."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a file that grows too large is refused then
    for number in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, _late)
    os.environ.update(HOME=str(base / "user"), TMPDIR=str(base))
    arrange()
    template = base / f"template-{os.getpid()}"
    plant(template)
    watch = Watch()
    before: dict[str, tuple[Any, ...]] = {}  # none: the tree is to be laid out
    for count, line in enumerate(sys.stdin):
        if not before:
            folder = base / f"{os.getpid()}-{count}"
            lay_out(template, folder)
            before = state(folder)
        began = time.monotonic()
        found = run(json.loads(line), folder, watch)
        found["seconds"] = time.monotonic() - began
        os.chdir(base)
        after = state(folder)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        found["changed"] += [name for name in changed if name.startswith(str(folder / "mine"))]
        if changed:
            shutil.rmtree(folder, ignore_errors=True)
            before = {}
        found["last"] = "Late" in found["error"] or threading.active_count() > MOST_THREADS
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
