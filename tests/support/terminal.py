"""A real terminal of a given size (tmux), and what stands on its screen."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from petskin_tune.views.screen import NOTEBOOK_VARIABLES

TMUX = shutil.which("tmux")
LONGEST_SECONDS = 300.0


class Terminal:
    """A terminal in which a program runs; leave it by :meth:`close`.

    Args:
        folder: for the server's socket.
        command: what runs in it.
        columns: of the screen.
        rows: of the screen.
        environ: beside this process's.
    """

    def __init__(
        self, folder: Path, command: Sequence[str], columns: int, rows: int, environ: Mapping[str, str] | None = None
    ) -> None:
        assert TMUX is not None
        self._socket = folder / "tmux"
        known = {name: value for name, value in os.environ.items() if name not in (*NOTEBOOK_VARIABLES, "COLUMNS")}
        self._environ = {**known, "LC_ALL": "C.UTF-8", "TMUX_SOCKET": str(self._socket), **(environ or {})}
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), shlex.join(command))

    def _tmux(self, *words: str) -> str:
        command = [str(TMUX), "-u", "-f", "/dev/null", "-S", str(self._socket), *words]
        done = subprocess.run(
            command, env=self._environ, capture_output=True, text=True, check=True, timeout=LONGEST_SECONDS
        )
        return done.stdout

    def wait(self) -> None:
        """Until the program in it has called :func:`ready`."""
        self._tmux("wait-for", "ready")

    def go_on(self) -> None:
        """Type Enter."""
        self._tmux("send-keys", "Enter")

    def screen(self, *, joined: bool = False) -> list[str]:
        """All lines, those that scrolled away too; ``joined``: as they were before the terminal broke them."""
        text = self._tmux("capture-pane", "-p", "-S", "-", *(["-J"] if joined else []))
        return [line.rstrip() for line in text.rstrip().splitlines()]

    def clear(self) -> None:
        """Forget what has scrolled away."""
        self._tmux("clear-history")

    def close(self) -> None:
        """End the terminal and what runs in it."""
        subprocess.run([str(TMUX), "-S", str(self._socket), "kill-server"], capture_output=True, check=False)


def ready() -> None:
    """Said by the program in the terminal: what it shows is there. It then waits for Enter."""
    subprocess.run([str(TMUX), "-S", os.environ["TMUX_SOCKET"], "wait-for", "-S", "ready"], check=True)
    input()
