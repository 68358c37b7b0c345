"""A simulated Google Drive: a real FUSE mount that delays, fails now and then, and loses what was not synchronised.

Writes land on the machine first (``machine/``), and reach what survives (``cloud/``) some time after a file was closed,
large files later than small ones. :meth:`SimulatedDrive.lose_machine` ends the machine: whatever had not reached the
cloud is gone, and a new machine sees the cloud's files. Run as a program this file is the file system itself, which
speaks the kernel's FUSE protocol (https://www.kernel.org/doc/html/latest/filesystems/fuse.html, linux/fuse.h) by hand,
so that no library has to be installed; mounting needs root and /dev/fuse.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
UNMOUNT_LAZILY = 2
PATIENCE = 240.0  # seconds for the mount to appear, or for everything to be synchronised


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how slow things are."""

    eio_every: int = 0  # every so many reads and writes fail with errno 5; 0: none
    delay: float = 0.0  # seconds that each read and write takes
    sync_delay: float = 0.0  # seconds from closing a file until it is in the cloud
    sync_rate: float = 0.0  # bytes a second on top of that; 0: at once
    quota: int = 0  # bytes; 0: none
    wrong_reads: int = 0  # so many reads return a flipped bit


def unavailable() -> str | None:
    """Why no Drive can be simulated here; None: it can."""
    if os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "a simulated Drive needs root and /dev/fuse"
    return None


class SimulatedDrive:
    """A Drive mounted at ``<folder>/drive``, usable from any process.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "drive"
        self.cloud = folder / "cloud"
        self._folder = folder
        self._machine = folder / "machine"
        self._log = folder / "events.log"
        self._settings = folder / "faults.json"
        self._daemon: subprocess.Popen[bytes] | None = None
        for path in (self.path, self.cloud, self._machine):
            path.mkdir(parents=True, exist_ok=True)
        self.let(Faults())

    def __enter__(self) -> SimulatedDrive:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()

    def mount(self) -> None:
        """Connect a machine to the cloud."""
        shutil.rmtree(self._machine)
        shutil.copytree(self.cloud, self._machine)
        (self._folder / "pending").unlink(missing_ok=True)
        self._daemon = subprocess.Popen([sys.executable, __file__, str(self._folder)])
        _wait(lambda: os.path.ismount(self.path) and (self._folder / "pending").exists(), "the Drive was not mounted")

    def let(self, faults: Faults) -> None:
        """From now on, let these things go wrong."""
        temporary = self._settings.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(faults)))
        temporary.replace(self._settings)

    def fired(self) -> Counter[str]:
        """How often each kind of fault has happened."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return Counter(line.split()[0] for line in lines)

    def wait_until_synchronised(self) -> None:
        """Return once everything closed so far is in the cloud."""
        _wait(lambda: (self._folder / "pending").read_text() == "0", "the Drive did not synchronise")

    def lose_machine(self) -> int:
        """The machine vanishes, with what had not reached the cloud, and another is connected; files lost."""
        before = _files(self._machine)
        self._kill()
        self._unmount()
        lost = sum(1 for name, size in before.items() if _files(self.cloud).get(name) != size)
        self.mount()
        return lost

    def disconnect(self) -> None:
        """Kill the file system: everything fails with "Transport endpoint is not connected" (errno 107)."""
        self._kill()

    def unmount(self) -> None:
        """Take the Drive away; an empty folder stays."""
        self._kill()
        self._unmount()

    def reconnect(self) -> None:
        """Mount the same machine's Drive again after :meth:`disconnect` or :meth:`unmount`; nothing is lost."""
        self._unmount()
        shutil.copytree(self._machine, self.cloud, dirs_exist_ok=True)
        self.mount()

    def _kill(self) -> None:
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGKILL)
            self._daemon.wait()
            self._daemon = None

    def _unmount(self) -> None:
        while os.path.ismount(self.path) or _is_dead(self.path):
            LIBC.umount2(os.fsencode(self.path), UNMOUNT_LAZILY)


def _files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def _is_dead(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


# ---- the file system -------------------------------------------------------------------------------------------------

IN_HEADER = struct.Struct("<IIQQIIII")
OUT_HEADER = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY = struct.Struct("<QQQQII")
OPENED = struct.Struct("<QII")
TRANSFER = struct.Struct("<QQIIQII")  # of read, write and readdir
SET_ATTRIBUTES = struct.Struct("<IIQQQQQQIIIIIIII")
DIRECT_IO = 1  # open flag: the kernel caches nothing, so that reading back really asks us
SIZE_CHANGED = 1 << 3
MAX_WRITE = 1 << 17
ROOT = 1

Reply = bytes


class FileSystem:
    """Answers the kernel's requests from files in ``machine/``, and brings them to ``cloud/`` in its own time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._machine, self._cloud = folder / "machine", folder / "cloud"
        self._paths: dict[int, str] = {ROOT: "."}
        self._ids: dict[str, int] = {".": ROOT}
        self._handles: dict[int, tuple[int, str, bool]] = {}  # handle -> file descriptor, path, was it written
        self._due: dict[str, float] = {}  # path -> when it reaches the cloud
        self._faults = Faults()
        self._settings_seen = 0.0
        self._transfers = 0
        self._wrong_reads = 0

    def serve(self) -> None:
        """Mount, and answer until the mount or the test ends."""
        device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
        if LIBC.mount(b"drive", os.fsencode(self._folder / "drive"), b"fuse.drive", 0, options):
            raise OSError(ctypes.get_errno(), "mounting the simulated Drive")
        parent = os.getppid()
        while os.getppid() == parent:
            self._synchronise()
            ready, _, _ = select.select([device], [], [], 0.05)
            if ready and not self._answer_one(device):
                return

    def _answer_one(self, device: int) -> bool:
        try:
            request = os.read(device, MAX_WRITE + 4096)
        except OSError as error:
            return error.errno in (errno.EINTR, errno.ENOENT)  # else: unmounted
        _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
        handler = HANDLERS.get(opcode)
        if opcode in SILENT:
            return True
        try:
            if handler is None:
                raise OSError(errno.ENOSYS, "not simulated")
            reply, status = handler(self, node, request[IN_HEADER.size :]), 0
        except OSError as error:
            reply, status = b"", -(error.errno or errno.EIO)
        os.write(device, OUT_HEADER.pack(OUT_HEADER.size + len(reply), status, unique) + reply)
        return True

    # ---- what goes wrong ----

    def _read_settings(self) -> None:
        settings = self._folder / "faults.json"
        seen = settings.stat().st_mtime_ns
        if seen != self._settings_seen:
            self._settings_seen = seen
            self._faults = Faults(**json.loads(settings.read_text()))
            self._transfers = self._wrong_reads = 0

    def _transfer(self, kind: str, name: str) -> None:
        self._read_settings()
        time.sleep(self._faults.delay)
        self._transfers += 1
        if self._faults.eio_every and self._transfers % self._faults.eio_every == 0:
            self._note("eio", f"{kind} {name}")
            raise OSError(errno.EIO, name)

    def _note(self, kind: str, what: str) -> None:
        with open(self._folder / "events.log", "a") as log:
            log.write(f"{kind} {what}\n")

    def _synchronise(self) -> None:
        now = time.monotonic()
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            source, target = self._machine / name, self._cloud / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
            elif not source.exists():
                target.unlink(missing_ok=True)
        pending = self._folder / "pending"
        text = str(len(self._due))
        if not pending.exists() or pending.read_text() != text:
            pending.with_suffix(".new").write_text(text)
            pending.with_suffix(".new").replace(pending)

    def _changed(self, name: str) -> None:
        """A file was closed or deleted: it reaches the cloud some time later."""
        self._read_settings()
        path = self._machine / name
        size = path.stat().st_size if path.is_file() else 0
        seconds = self._faults.sync_delay + (size / self._faults.sync_rate if self._faults.sync_rate else 0.0)
        self._due[name] = time.monotonic() + seconds
        self._synchronise()  # what is due; and what is pending is told before the kernel has its answer

    # ---- names ----

    def _path(self, node: int, name: bytes = b"") -> str:
        return os.path.normpath(os.path.join(self._paths[node], os.fsdecode(name.rstrip(b"\0"))))

    def _real(self, name: str) -> Path:
        return self._machine / name

    def _entry(self, name: str) -> Reply:
        attributes = self._attributes(name)
        node = self._ids.setdefault(name, len(self._paths) + 1)
        self._paths[node] = name
        return ENTRY.pack(node, 0, 0, 0, 0, 0) + attributes

    def _attributes(self, name: str) -> Reply:
        found = os.stat(self._real(name))
        seconds = [int(value) for value in (found.st_atime, found.st_mtime, found.st_ctime)]
        numbers = (found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0)
        return ATTRIBUTES.pack(found.st_ino, found.st_size, found.st_blocks, *seconds, 0, 0, 0, *numbers)

    # ---- requests ----

    def initialise(self, _node: int, request: bytes) -> Reply:
        _, _, read_ahead, _ = struct.unpack_from("<IIII", request)
        return struct.pack("<IIIIHHIIHHI28x", 7, 31, read_ahead, 0, 16, 12, MAX_WRITE, 1, 32, 0, 0)

    def look_up(self, node: int, request: bytes) -> Reply:
        return self._entry(self._path(node, request))

    def get_attributes(self, node: int, _request: bytes) -> Reply:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(self._paths[node])

    def set_attributes(self, node: int, request: bytes) -> Reply:
        valid, _, _, size, *_ = SET_ATTRIBUTES.unpack_from(request)
        if valid & SIZE_CHANGED:
            os.truncate(self._real(self._paths[node]), size)
            self._changed(self._paths[node])
        return self.get_attributes(node, b"")

    def make_folder(self, node: int, request: bytes) -> Reply:
        name = self._path(node, request[8:])
        self._real(name).mkdir()
        (self._cloud / name).mkdir(parents=True, exist_ok=True)
        return self._entry(name)

    def remove_file(self, node: int, request: bytes) -> Reply:
        name = self._path(node, request)
        os.unlink(self._real(name))
        self._changed(name)
        return b""

    def remove_folder(self, node: int, request: bytes) -> Reply:
        name = self._path(node, request)
        os.rmdir(self._real(name))
        shutil.rmtree(self._cloud / name, ignore_errors=True)
        return b""

    def rename(self, node: int, request: bytes, header: int = 8) -> Reply:
        (target_node,) = struct.unpack_from("<Q", request)
        old, new, *_ = request[header:].split(b"\0")
        source, target = self._path(node, old), self._path(target_node, new)
        os.rename(self._real(source), self._real(target))
        if (moved := self._ids.pop(source, None)) is not None:
            self._paths[moved], self._ids[target] = target, moved
        self._changed(source)
        self._changed(target)
        return b""

    def rename_with_flags(self, node: int, request: bytes) -> Reply:
        return self.rename(node, request, header=16)

    def open_file(self, node: int, request: bytes) -> Reply:
        (flags,) = struct.unpack_from("<I", request)
        return self._open(self._paths[node], flags & ~(os.O_CREAT | os.O_EXCL))

    def create_file(self, node: int, request: bytes) -> Reply:
        (flags,) = struct.unpack_from("<I", request)
        name = self._path(node, request[16:])
        self._transfer("create", name)
        opened = self._open(name, flags | os.O_CREAT)
        return self._entry(name) + opened

    def _open(self, name: str, flags: int) -> Reply:
        descriptor = os.open(self._real(name), flags & ~os.O_DIRECT, 0o644)
        self._handles[descriptor] = (descriptor, name, bool(flags & os.O_TRUNC))
        return OPENED.pack(descriptor, DIRECT_IO, 0)

    def read(self, _node: int, request: bytes) -> Reply:
        handle, offset, size, *_ = TRANSFER.unpack_from(request)
        self._transfer("read", self._handles[handle][1])
        found = os.pread(handle, size, offset)
        if found and self._wrong_reads < self._faults.wrong_reads:
            self._wrong_reads += 1
            self._note("wrong-read", self._handles[handle][1])
            return bytes([found[0] ^ 1]) + found[1:]
        return found

    def write(self, _node: int, request: bytes) -> Reply:
        handle, offset, size, *_ = TRANSFER.unpack_from(request)
        _, name, _ = self._handles[handle]
        self._transfer("write", name)
        if self._faults.quota and sum(_files(self._machine).values()) + size > self._faults.quota:
            self._note("quota", name)
            raise OSError(errno.EDQUOT, name)
        self._handles[handle] = (handle, name, True)
        written = os.pwrite(handle, request[TRANSFER.size : TRANSFER.size + size], offset)
        return struct.pack("<II", written, 0)

    def release(self, _node: int, request: bytes) -> Reply:
        (handle,) = struct.unpack_from("<Q", request)
        _, name, written = self._handles.pop(handle)
        os.close(handle)
        if written:
            self._changed(name)
        return b""

    def list_folder(self, node: int, request: bytes) -> Reply:
        _, offset, size, *_ = TRANSFER.unpack_from(request)
        reply = b""
        for number, name in enumerate(sorted(os.listdir(self._real(self._paths[node]))), start=1):
            raw = os.fsencode(name)
            kind = 4 if self._real(self._path(node, raw)).is_dir() else 8
            item = struct.pack("<QQII", number, number, len(raw), kind) + raw
            item += bytes(-len(item) % 8)
            if number <= offset:
                continue
            if len(reply) + len(item) > size:
                break
            reply += item
        return reply

    def free_space(self, _node: int, _request: bytes) -> Reply:
        return struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096, 0)

    def opened(self, _node: int, _request: bytes) -> Reply:
        return OPENED.pack(0, 0, 0)

    def done(self, _node: int, _request: bytes) -> Reply:
        return b""


SILENT = {2, 36, 42}  # forget, interrupt, batch forget: the kernel wants no answer
HANDLERS: dict[int, Callable[[FileSystem, int, bytes], Reply]] = {
    1: FileSystem.look_up,
    3: FileSystem.get_attributes,
    4: FileSystem.set_attributes,
    9: FileSystem.make_folder,
    10: FileSystem.remove_file,
    11: FileSystem.remove_folder,
    12: FileSystem.rename,
    14: FileSystem.open_file,
    15: FileSystem.read,
    16: FileSystem.write,
    17: FileSystem.free_space,
    18: FileSystem.release,
    20: FileSystem.done,  # fsync
    25: FileSystem.done,  # flush
    26: FileSystem.initialise,
    27: FileSystem.opened,  # opendir
    28: FileSystem.list_folder,
    29: FileSystem.done,  # releasedir
    30: FileSystem.done,  # fsyncdir
    35: FileSystem.create_file,
    38: FileSystem.done,  # destroy
    45: FileSystem.rename_with_flags,
}


if __name__ == "__main__":
    FileSystem(Path(sys.argv[1])).serve()
