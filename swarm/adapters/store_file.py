"""The files around the store's database: the store generation and the mark beside it, and where damaged ones go.

The generation file is written whole beside its old version, synced, renamed over it, and its folder synced, so that it holds
the old number or the new one and nothing else.

The mark says how many transactions were synced. It is written after each of them and left to the kernel: after a crash of the
process it is exact, after a power cut it may be old, or not there at all, and then finds less.

Promise: the generation never falls. A damaged generation file is an error for the operator, not a new beginning: a number given
out twice would let a wiped disk vote in the old one's name.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from pathlib import Path

import msgspec

from swarm.errors import StoreFailure
from swarm.wire.checksum import crc32c

DATABASE = "log.db"
GENERATION = "store.json"
SNAPSHOTS = "log.snapshots"
MARK = "log.mark"
_MARK = struct.Struct(">QQI")
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class _Content(msgspec.Struct, frozen=True):
    store_generation: int
    crc32c: int


class GenerationFile:
    """`store.json`: how often a store was begun in this folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / GENERATION

    def read(self) -> int:
        """0 when no store was ever begun here. Raises `StoreFailure` when the file is damaged, or missing beside a database."""
        try:
            content = msgspec.json.decode(self._path.read_bytes(), type=_Content)
        except FileNotFoundError:
            if (self._folder / DATABASE).exists():
                raise StoreFailure(f"{self._path} is missing beside its database: `swarm reset` begins anew") from None
            return 0
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreFailure(f"{self._path} is damaged ({error}): `swarm reset` begins anew") from None
        if content.crc32c != _checksum(content.store_generation):
            raise StoreFailure(f"{self._path} is damaged (checksum): `swarm reset` begins anew")
        return content.store_generation

    def write(self, generation: int) -> None:
        """Durable when it returns."""
        staged = self._path.with_suffix(".new")
        content = msgspec.json.encode(_Content(generation, _checksum(generation)))
        with open(staged, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, self._path)
        fsync_folder(self._folder)


class MarkFile:
    """`log.mark`: the newest transaction that was synced, in a store of one generation."""

    def __init__(self, folder: Path, generation: int) -> None:
        self._path = folder / MARK
        self.generation = generation
        self._file = -1

    def read(self) -> int:
        """0 when it says nothing of this generation: missing, torn by a power cut, or an older store's."""
        try:
            generation, sequence, checksum = _MARK.unpack(self._path.read_bytes())
        except (FileNotFoundError, struct.error):
            return 0
        return sequence if (generation, checksum) == (self.generation, _mark_checksum(generation, sequence)) else 0

    def write(self, sequence: int) -> None:
        """In the kernel's hands when it returns. A disk without room is no reason to fail: there is no mark then."""
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._file, _MARK.pack(self.generation, sequence, _mark_checksum(self.generation, sequence)), 0)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise

    def close(self) -> None:
        """Durable, where it was written at all and the disk still works."""
        if self._file >= 0:
            with suppress(OSError):
                os.fdatasync(self._file)
            os.close(self._file)
            self._file = -1


def _mark_checksum(generation: int, sequence: int) -> int:
    return crc32c(struct.pack(">QQ", generation, sequence))


def _checksum(generation: int) -> int:
    return crc32c(str(generation).encode())


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(folder: Path, generation: int, why: str) -> None:
    """Rename the database and what belongs to it, for whoever wants to look at it. `why`: a word of the new name: `damaged`, or
    `replaced` where it is whole, but the log is to be another from now on."""
    for suffix in ("", "-wal", "-shm"):
        path = folder / (DATABASE + suffix)
        if path.exists():
            os.replace(path, folder / f"{DATABASE}.{why}-{generation}{suffix}")
    if (folder / SNAPSHOTS).exists():
        os.replace(folder / SNAPSHOTS, folder / f"{SNAPSHOTS}.{why}-{generation}")
    fsync_folder(folder)
