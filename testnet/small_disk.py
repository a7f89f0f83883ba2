"""Small file systems of their own for the data folders of daemons, which can be filled to the last block and freed again.

The file system is ext4 in a sparse file beside the folder, with the syncs of the disk that file is on; where the kernel offers
no loop devices it is a tmpfs. It is mounted outside of the hosts' namespaces, before a host boots, so that it outlives a power
cut. Filling it allocates blocks and writes nothing, which takes milliseconds.

Promises: what fills it is one file, which `free` removes; `unmount_below` also finds what a crash left.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from testnet import network

HOG = "hog"
BALLAST = "ballast"
MIB = 1024 * 1024
_BLOCK = 4096


def mount(folder: Path, size_mib: int) -> None:
    """Put a file system of that size on an empty folder."""
    if shutil.which("mkfs.ext4"):
        image = folder.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(size_mib * MIB)
        network.run("mkfs.ext4", "-q", "-F", "-m", "0", str(image))
        if network.run("mount", "-o", "loop", str(image), str(folder), check=False).returncode == 0:
            (folder / "lost+found").rmdir()
            return
    network.run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=700", "tmpfs", str(folder))


def unmount_below(top: Path) -> None:
    """Unmount every file system in the folders below; the processes that use them must be gone."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed([each for each in mounted if each.startswith(f"{top}/")]):
        network.run("umount", "--lazy", place)


def fill(folder: Path) -> int:
    """Take what is free to the last block. Returns what is left, in bytes: 0 unless somebody frees at the same time."""
    descriptor = os.open(folder / HOG, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        piece = 64 * MIB
        while piece >= _BLOCK and free_bytes(folder):
            try:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, piece)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                piece //= 2
    finally:
        os.close(descriptor)
    return free_bytes(folder)


def free(folder: Path) -> None:
    """Give back what `fill` took; on a journalling file system that counts once it is written down."""
    (folder / HOG).unlink(missing_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """What root may still write."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize  # none is set aside for root; what more is free is nobody's


def ballast_bytes(folder: Path) -> int:
    """What the daemon holds in reserve there: 0 where it gave that back, or never had it."""
    try:
        return (folder / BALLAST).stat().st_blocks * 512
    except FileNotFoundError:
        return 0
