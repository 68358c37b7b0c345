"""A notebook in a real kernel (nbclient), on a machine whose disk is a folder, with Drive in another one.

Nothing of the notebook is left out or replaced but the values of its form. What only Colab has, the package
`google.colab`, is a small package on the kernel's path that notes what it was asked for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.support import workers

SAID = """
import json, os
def say(what, *facts):
    with open(os.environ["COLAB_CALLS"], "a") as file:
        file.write(json.dumps([what, *facts]) + "\\n")
"""
COLAB = {
    "said": SAID,
    "drive": "from .said import say\ndef mount(place): say('mount', place)\ndef flush_and_unmount(): say('unmount')\n",
    "userdata": "import os\ndef get(name): return os.environ['SECRET_' + name]\n",
    "runtime": "from .said import say\ndef unassign(): say('unassign')\n",
    "output": "from .said import say\ndef serve_kernel_port_as_iframe(port, **more): say('frame', port, more)\n",
}


class MachineLost(Exception):
    """Every process of the machine has ended at once, and its disk is gone."""


class Machine:
    """One session: a kernel, its disk, and a Drive that outlives it.

    Attributes:
        cells: of the notebook, as they were executed last; by id.
        calls: what `google.colab` was asked for.
        drawn: what the live view has shown, each picture once.
    """

    def __init__(self, drive: Path, disk: Path, variables: Mapping[str, str]) -> None:
        self._drive, self._disk = drive, disk
        self._variables = variables
        self._calls = drive.parent / "calls.jsonl"
        self.cells: dict[str, Any] = {}
        self.drawn: list[str] = []

    @property
    def calls(self) -> list[Any]:
        return [json.loads(line) for line in self._calls.read_text().splitlines()] if self._calls.exists() else []

    def run_all(
        self, notebook: Path, settings: Mapping[str, str], *, lost: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Run all cells.

        Args:
            notebook: to run.
            settings: what a person writes into the form, by name, in Python.
            lost: asked with the picture of the live view: whether the machine is lost now.

        Raises:
            MachineLost: it was.
        """
        import nbclient
        import nbformat

        self._calls.unlink(missing_ok=True)
        (self._disk / "python/google/colab").mkdir(parents=True)
        for name, source in COLAB.items():
            (self._disk / f"python/google/colab/{name}.py").write_text(source)
        text = notebook.read_text(encoding="utf-8").replace("/content/drive", str(self._drive))
        content: Any = nbformat.reads(text, as_version=4)
        form = next(cell for cell in content.cells if cell.id == "settings")
        for name, value in {"LOCAL": repr(str(self._disk / "local")), **settings}.items():
            form.source, times = re.subn(rf"^{name} = .*?( +# .*)?$", f"{name} = {value}", form.source, flags=re.M)
            assert times == 1, name
        client = nbclient.NotebookClient(content, kernel_name="python3", timeout=None)  # the test has one
        self.cells = {cell.id: cell for cell in content.cells}
        self.drawn = []
        ended, is_lost = threading.Event(), threading.Event()
        watcher = threading.Thread(target=self._watch, args=(lost, ended, is_lost), daemon=True)
        watcher.start()
        try:
            client.execute(env=self._environment(), cwd=str(self._disk))
        except nbclient.exceptions.DeadKernelError:
            if not is_lost.is_set():
                raise
            raise MachineLost from None
        finally:
            ended.set()
            watcher.join()
            self._end_everything()

    def _environment(self) -> dict[str, str]:
        packages = self._disk / "site-packages"
        return workers.environment(
            COLAB_RELEASE_TAG="release",
            TUNE_NETWORK_HOME="1",
            XDG_CACHE_HOME=str(self._disk),
            COLAB_CALLS=str(self._calls),
            PATH=f"{packages / 'bin'}{os.pathsep}{workers.BIN}{os.pathsep}{os.environ['PATH']}",
            PYTHONPATH=f"{packages}{os.pathsep}{self._disk / 'python'}",
            PIP_TARGET=str(packages),
            PIP_NO_DEPS="1",
            **self._variables,
        )

    def _watch(self, lost: Callable[[str], bool], ended: threading.Event, is_lost: threading.Event) -> None:
        while not ended.wait(0.1):
            picture = self.view
            if picture and picture not in self.drawn:
                self.drawn.append(picture)
            if lost(picture):
                is_lost.set()
                self._end_everything()
                shutil.rmtree(self._disk, ignore_errors=True)
                return

    @property
    def view(self) -> str:
        """The picture of the live view that a person sees now."""
        shown = [one["data"].get("text/html", "") for one in self.outputs("live") if "data" in one]
        return str(shown[0]) if shown else ""

    def outputs(self, cell: str) -> list[Any]:
        return list(self.cells[cell].get("outputs", [])) if cell in self.cells else []

    def printed(self, cell: str) -> str:
        return "".join(one["text"] for one in self.outputs(cell) if one["output_type"] == "stream")

    def _end_everything(self) -> None:
        """Every process that lives on this machine: all of them have its disk in their environment."""
        mark = f"XDG_CACHE_HOME={self._disk}".encode()
        for _ in range(2):  # one that was being forked is seen the second time
            for process in psutil.process_iter():
                try:
                    if mark in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
                        process.send_signal(signal.SIGKILL)
                except (OSError, psutil.Error):
                    continue
            time.sleep(0.1)
