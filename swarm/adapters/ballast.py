"""The ballast: 64 MiB of the disk that are held in reserve, and given back when the disk is full.

A node that cannot write its term and vote can neither vote nor lead, and one that cannot compact cannot make room. So some room
is allocated while there is plenty, and freed for them when a write finds none, or less than 1 MiB is left; from then on the disk
counts as full, and what makes the log longer is refused by others, above. When there is room for it again the ballast is made
again, and with that the disk is full no more.

An empty file is left where one was given back, so that a restarted daemon knows. On a disk that never had the room, there is
none, and one that fills up is full until 8 MiB are free.

Promises: nothing here raises for want of room; the blocks are really allocated, where the filesystem can.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from swarm.adapters.store_file import NO_ROOM, fsync_folder
from swarm.ports import DiskRoom

BALLAST = "ballast"
BALLAST_BYTES = 64 * 1024 * 1024
"""A vote takes 8 KiB, a snapshot of 100,000 tasks some 30 MiB. Smaller: a compaction may not fit. Larger: more is lost to use."""
_LOW_BYTES = 1024 * 1024
_BARE_BYTES = 8 * 1024 * 1024
_WITHHELD_BLOCKS = 4096
"""Of what is free but not available, ext4 gives so many blocks (or 2 % of all, if less) to nobody; root may have the rest."""


class Ballast:
    """One data folder's reserve. Calls block on the disk; they are made by the one thread that writes there."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        """`size_bytes` 0: there is to be none."""
        self._folder = folder
        self._path = folder / BALLAST
        self._size_bytes = size_bytes
        held_bytes = self._held_bytes()
        self._is_there = 0 < size_bytes <= held_bytes
        self._was_there = held_bytes >= 0
        self.full = self._was_there and not self._is_there and size_bytes > 0
        """No room was found, and there was not enough since."""
        self.follow()

    def _held_bytes(self) -> int:
        """What is allocated; -1 where no ballast ever was."""
        try:
            return os.stat(self._path).st_blocks * 512
        except FileNotFoundError:
            return -1

    def room(self) -> DiskRoom:
        """As it is now."""
        missing_bytes = 0 if self._is_there else self._size_bytes
        owed_bytes, lacks_bytes = (missing_bytes, 0) if self._was_there else (0, missing_bytes)
        return DiskRoom(
            self.full, free_bytes(self._folder), self._is_there, str(self._folder), owed_bytes, lacks_bytes=lacks_bytes
        )

    def release(self) -> bool:
        """No room was found: give the ballast back. Whether there was one: then it is worth trying again at once."""
        self.full = True
        if not self._is_there:
            return False
        _empty(self._folder)
        self._is_there = False
        return True

    def follow(self) -> None:
        """Give it back when hardly anything is left, make it where there is room for it twice over. Cheap while neither is so."""
        free = free_bytes(self._folder)
        if self._is_there:
            if free < _LOW_BYTES:
                self.release()
        elif self._size_bytes and free >= 2 * self._size_bytes and self._make():
            self._is_there = self._was_there = True
            self.full = False
        elif not self._was_there and free >= _BARE_BYTES:
            self.full = False

    def _make(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size_bytes)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, 0)
                raise
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return False
        fsync_folder(self._folder)
        return True


def free_bytes(folder: Path) -> int:
    """What this process may still write; never more than that."""
    found = os.statvfs(folder)
    for_root = found.f_bfree - min(found.f_bfree - found.f_bavail, _WITHHELD_BLOCKS)
    return (for_root if os.geteuid() == 0 else found.f_bavail) * found.f_frsize


def make_room_to_start(folder: Path) -> None:
    """Give the ballast back before anything else is written, if hardly anything is left: each start is counted on the disk."""
    with suppress(OSError):  # whoever opens the folder next says better what is wrong with it
        if (folder / BALLAST).exists() and free_bytes(folder) < _LOW_BYTES:
            _empty(folder)


def _empty(folder: Path) -> None:
    """Also where somebody removed it, as one does with a large file on a disk that fills: what it held is free either way."""
    with suppress(FileNotFoundError):
        os.truncate(folder / BALLAST, 0)
    fsync_folder(folder)  # a journalling filesystem frees the blocks only when it has written that down
