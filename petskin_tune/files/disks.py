"""What kind of disk a path lies on: this machine's own, or one that others see too (NFS, a mounted Google Drive)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NETWORK_TYPES = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "afs", "afpfs", "ceph", "glusterfs", "lustre", "beegfs"}
    | {"gpfs", "webdav", "davfs", "autofs", "drive", "fuse"}
)
LOCAL_FUSE = frozenset({"fuse-overlayfs", "fuse.fuse-overlayfs", "fuse.lxcfs", "fuseblk", "fuse.ntfs", "fuse.exfat"})


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
    real = path.resolve()
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
    """A folder on this machine's own disk, for what must not lie on a network disk (not created here).

    The user's cache folder, unless it is on a network disk itself, as home folders of clusters are.
    """
    import tempfile

    cache = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "petskin-tune"
    own_name = f"petskin-tune-{os.getuid()}"
    candidates = [cache, Path("/var/tmp") / own_name, Path(tempfile.gettempdir()) / own_name]
    known = mounts()
    return next((folder for folder in candidates if not is_network(folder, known)), candidates[-1])
