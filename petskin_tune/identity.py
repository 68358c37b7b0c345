"""Who a worker is, so that another process of the same host can tell whether it still lives."""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Identity:
    """One process of one boot of one machine.

    Containers share the boot id and all have a pid 1: a pid means something only inside its pid namespace.
    """

    host: str
    boot: str  # the kernel's boot id; empty where there is none (macOS, some sandboxes)
    pid_namespace: str  # inode of /proc/self/ns/pid
    pid: int
    started: float  # clock ticks from boot to the start of the process: no change of the clock alters it

    @classmethod
    def mine(cls) -> Identity:
        """The identity of this process."""
        process = _process(os.getpid())
        return cls(*_host(), pid=os.getpid(), started=process.started if process else 0)

    @classmethod
    def from_json(cls, text: str) -> Identity:
        """The inverse of :meth:`to_json`."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    def is_of_this_host(self) -> bool:
        """Whether this process can see whether that one lives: same host, same boot, same pid namespace."""
        return (self.host, self.boot, self.pid_namespace) == _host() and bool(self.boot and self.pid_namespace)

    def is_alive(self) -> bool | None:
        """True or False where it can be known; None for a process of another host, boot or pid namespace."""
        if not self.is_of_this_host():
            return None
        if process := _process(self.pid):
            # A zombie is dead: it writes nothing more, its parent has only not looked yet.
            return process.started == self.started and process.state not in ("Z", "X")
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return None  # another user's, and /proc hides those here (hidepid)

    def is_living_sibling(self) -> bool:
        """Whether it is a living process that the same command started as this one: same parent, same process group.

        The group tells it from what a person typed in the same shell before.
        """
        mine, other = _process(os.getpid()), _process(self.pid)
        if mine is None or other is None or self.pid == os.getpid() or not self.is_alive():
            return False
        return (mine.parent, mine.group) == (other.parent, other.group)


def process_age() -> float:
    """Seconds since this process was started, to a hundredth (psutil's figure may be a second off); 0 if unknown."""
    process = _process(os.getpid())
    if process is None:
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / os.sysconf("SC_CLK_TCK"))


class _Process(NamedTuple):
    state: str  # R, S, D, T, Z, …
    parent: int
    group: int
    started: int  # clock ticks since boot


def _process(pid: int) -> _Process | None:
    """A process of this pid namespace as /proc shows it; None: there is none, or it is hidden (source: proc(5))."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the second field, the name, may hold blanks and brackets
    return _Process(state=fields[0], parent=int(fields[1]), group=int(fields[2]), started=int(fields[19]))


def _host() -> tuple[str, str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return socket.gethostname(), boot, os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname(), "", ""
