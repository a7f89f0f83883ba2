"""The files around the store's database: the store generation beside it, and where damaged ones go.

The generation file is written whole beside its old version, synced, renamed over it, and its folder synced, so that it holds
the old number or the new one and nothing else.

Promise: the number never falls. A damaged generation file is an error for the operator, not a new beginning: a number given out
twice would let a wiped disk vote in the old one's name.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from swarm.errors import StoreFailure
from swarm.wire.checksum import crc32c

DATABASE = "log.db"
GENERATION = "store.json"


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


def _checksum(generation: int) -> int:
    return crc32c(str(generation).encode())


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(folder: Path, generation: int) -> None:
    """Rename the database and what belongs to it, for whoever wants to look at the damage."""
    for suffix in ("", "-wal", "-shm"):
        path = folder / (DATABASE + suffix)
        if path.exists():
            os.replace(path, folder / f"{DATABASE}.damaged-{generation}{suffix}")
    fsync_folder(folder)
