"""What kind of disk a path lies on: this machine's own, or one that others see too (NFS, a mounted Google Drive)."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from petskin_tune.errors import UsageError
from petskin_tune.files import temporary
from petskin_tune.files.paths import resolved

NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "afs", "afpfs", "ceph", "glusterfs", "lustre", "beegfs"}
    | {"gpfs", "webdav", "davfs", "autofs", "drive", "fuse"}
)
LOCAL_FUSE = frozenset({"fuse-overlayfs", "fuse.fuse-overlayfs", "fuse.lxcfs", "fuseblk", "fuse.ntfs", "fuse.exfat"})

NAME = "petskin-tune"  # of this user's folder on a machine
OTHERS_WRITE = 0o022  # mode bits by which others may write


@dataclass(frozen=True)
class Mount:
    """One mounted file system: where, and its type as the kernel names it."""

    point: Path
    kind: str


def mounts() -> list[Mount]:
    """Everything mounted here, in the order of mounting."""
    import psutil  # only here: the command line starts without it

    return [Mount(Path(part.mountpoint), part.fstype) for part in psutil.disk_partitions(all=True)]


def mount_of(path: Path, among: Sequence[Mount] | None = None) -> Mount:
    """The mount that ``path`` (which need not exist yet) lies on: the longest prefix, the latest of equals."""
    real = resolved(path)
    found = Mount(Path(real.anchor), "")
    for mount in mounts() if among is None else among:
        if real.is_relative_to(mount.point) and len(mount.point.parts) >= len(found.point.parts):
            found = mount
    return found


def is_network(path: Path, among: Sequence[Mount] | None = None) -> bool:
    """Whether ``path`` lies on a network or FUSE disk, where SQLite is not safe and writes may be lost.

    The root of a machine counts as its own disk whatever its type: sandboxes and containers present it as 9p or FUSE.
    """
    mount = mount_of(path, among)
    if mount.point == Path(mount.point.anchor) or mount.kind in LOCAL_FUSE:
        return False
    return mount.kind in NETWORK_TYPES or mount.kind.startswith("fuse.")


def local_folder(environ: Mapping[str, str]) -> Path:
    """A folder of this user's on this machine's own disk, for what must not lie on a network disk; made if missing.

    The user's cache folder; where that is on a network disk itself, as home folders of clusters are, or cannot be
    written, as in a container that runs as another user, one for temporary files. There anybody may make folders, so
    ours has a name that nobody can guess, and one that another user owns or may write to is never taken.

    Raises:
        UsageError: no place will do.
    """
    known = mounts()
    if (cache := _cache(environ)) is not None and not is_network(cache, known) and _is_made_mine(cache):
        return cache
    for shared in (Path("/var/tmp"), temporary.usual()):
        if shared is not None and not is_network(shared, known) and (folder := _mine_in(shared)) is not None:
            return folder
    raise UsageError(
        "This machine has no folder of its own that this user may write, for what must not lie on a network disk: set "
        "XDG_CACHE_HOME to one."
    )


def _cache(environ: Mapping[str, str]) -> Path | None:
    if named := environ.get("XDG_CACHE_HOME"):
        return Path(named) / NAME
    home = os.path.expanduser("~")  # stays as it is for a user without a home
    return Path(home) / ".cache" / NAME if os.path.isabs(home) else None


def _is_made_mine(folder: Path) -> bool:
    """Whether ``folder`` is there, made if missing, and nobody but this user can write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid():
            return False
        if status.st_mode & OTHERS_WRITE:
            folder.chmod(0o700)
        return os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        return False


def _mine_in(shared: Path) -> Path | None:
    """This user's folder in one that everybody writes to, made before or now; None: it refuses."""
    import tempfile

    prefix = f"{NAME}-{os.getuid()}"
    try:
        named = [*shared.glob(prefix), *sorted(shared.glob(f"{prefix}-*"))]
        if safe := [path for path in named if _is_mine(path)]:
            return safe[0]
        return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=shared))
    except OSError:
        return None


def _is_mine(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & OTHERS_WRITE
