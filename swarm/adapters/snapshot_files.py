"""Snapshots as files beside the store's database: written piece by piece in a thread of their own, so that no log write waits.

A snapshot of a large catalog is tens of megabytes. In the database it would go through the write-ahead log in one transaction and
hold every log write up. So it is written beside it: bytes go to a `.part`, are synced as they come (a sync of little is short,
for the log's syncs as well), and at the end the file gets its name and the folder is synced. Only then does the log's next
transaction name it: that small row is the switch, atomic with the log it replaces (PROTOCOLS S10). The name is made from what
describes the snapshot; its length and checksum stand in the database.

Promises kept here: a file that has its name is whole and durable; a file is removed only when no row of the database names it and
nobody in this process holds it; whatever was left half-done is removed at the next start. Threads here are not abandoned.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import trio

from swarm.adapters.store_file import SNAPSHOTS, fsync_folder
from swarm.errors import Unavailable
from swarm.model.entry import SnapshotMeta
from swarm.ports import SnapshotData
from swarm.wire.checksum import crc32c

_WHOLE = ".snapshot"
_PART = ".part"
_READ_BYTES = 1024 * 1024

T = TypeVar("T")


def name_of(meta: SnapshotMeta) -> str:
    """The file's name: no two snapshots that differ have the same."""
    return f"{meta.index}-{meta.term}-{meta.crc32c:08x}-{meta.length}{_WHOLE}"


class SnapshotFile:
    """A whole snapshot on the disk (`ports.SnapshotData`). Held open: it can be read to its end even when it has been
    replaced."""

    def __init__(self, path: Path, length: int) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._length = length
        self.name = path.name
        weakref.finalize(self, os.close, self._descriptor)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice, /) -> bytes:
        """Reads the disk: blocks."""
        start, stop, step = part.indices(self._length)
        assert step == 1, "a piece is read in order"
        pieces = []
        while start < stop and (piece := os.pread(self._descriptor, stop - start, start)):
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)


class SnapshotFolder:
    """The files of one store. Blocking calls of it run behind a limiter of one."""

    def __init__(self, store_folder: Path) -> None:
        self.path = store_folder / SNAPSHOTS
        self.limiter = trio.CapacityLimiter(1)
        self._held: weakref.WeakValueDictionary[str, SnapshotFile] = weakref.WeakValueDictionary()
        self._naming = threading.Lock()
        """A file gets its name and its holder at once, as far as a sweep in another thread sees."""
        self._spools = 0
        self._current: SnapshotMeta | None = None
        self._unswept = False

    def load(self, meta: SnapshotMeta) -> SnapshotFile | None:
        """The file of a snapshot that the database names; None unless it is there, whole and undamaged. Blocks; reads it all."""
        path = self.path / name_of(meta)
        try:
            data = SnapshotFile(path, path.stat().st_size)
        except FileNotFoundError:
            return None
        checksum = 0
        for start in range(0, len(data), _READ_BYTES):
            checksum = crc32c(data[start : start + _READ_BYTES], checksum)
        if (len(data), checksum) != (meta.length, meta.crc32c):
            return None
        self._held[data.name] = data
        return data

    def open(self, current: SnapshotMeta | None) -> None:
        """At a start: the database names this one. What the last life left half-done goes too. Blocks."""
        self._current = current
        self._sweep(starting=True)

    def switched(self, current: SnapshotMeta) -> None:
        """A durable transaction names this one now. The file of the one before goes when there is time: no log write waits."""
        self._current = current
        self._unswept = True

    async def maybe_sweep(self) -> None:
        """Remove what nothing names any more, if a switch left something and the snapshots' thread is idle: whoever calls this
        writes the log, and waits for nobody."""
        if self._unswept and not self.limiter.borrowed_tokens:
            self._unswept = False
            await trio.to_thread.run_sync(self._sweep, limiter=self.limiter)

    def _sweep(self, starting: bool = False) -> None:
        wanted = name_of(self._current) if self._current is not None else ""
        if not self.path.is_dir():
            return
        with self._naming:
            for path in sorted(self.path.iterdir()):
                stale = path.suffix == _WHOLE and path.name != wanted and path.name not in self._held
                if stale or (starting and path.suffix == _PART):
                    _unlink(path)

    async def spool(self) -> FileSpool:
        """Begin a file. Raises `Unavailable`."""
        self._spools += 1
        path = self.path / f"{self._spools}{_PART}"
        return FileSpool(self, path, await self.in_thread("begin a snapshot", lambda: self._begin(path)))

    def _begin(self, path: Path) -> int:
        self.path.mkdir(mode=0o700, exist_ok=True)
        if self._unswept:
            self._unswept = False
            self._sweep()
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def keep(self, path: Path, meta: SnapshotMeta) -> SnapshotFile:
        """Give a written and synced file its name. Blocks."""
        whole = self.path / name_of(meta)
        with self._naming:
            os.replace(path, whole)
            data = SnapshotFile(whole, meta.length)
            self._held[data.name] = data
        fsync_folder(self.path)
        fsync_folder(self.path.parent)
        return data

    async def read(self, data: SnapshotData, start: int, end: int) -> bytes:
        """A piece of a snapshot. Raises `Unavailable`."""
        if isinstance(data, bytes):
            return data[start:end]
        return await self.in_thread("read a snapshot", lambda: data[start:end])

    async def in_thread(self, doing: str, action: Callable[[], T]) -> T:
        """Run it in a thread; an error of the disk becomes `Unavailable`: the log is not touched."""
        try:
            return await trio.to_thread.run_sync(action, limiter=self.limiter)
        except OSError as error:
            raise Unavailable(f"cannot {doing} in {self.path}", cause=f"{type(error).__name__}: {error}") from error


class FileSpool:
    """Keeps `ports.Spool` in a `.part`. One task writes to it at a time."""

    def __init__(self, folder: SnapshotFolder, path: Path, descriptor: int) -> None:
        self._folder = folder
        self._path = path
        self._close = weakref.finalize(self, os.close, descriptor)
        self._descriptor = descriptor

    async def append(self, data: bytes) -> None:
        """Write and sync the next bytes. Raises `Unavailable`."""
        await self._folder.in_thread("write a snapshot", lambda: self._append(data))

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fdatasync(self._descriptor)

    async def finish(self, meta: SnapshotMeta) -> SnapshotData:
        """Name it. Raises `Unavailable`."""
        return await self._folder.in_thread("keep a snapshot", lambda: self._finish(meta))

    def _finish(self, meta: SnapshotMeta) -> SnapshotFile:
        os.fsync(self._descriptor)
        assert os.fstat(self._descriptor).st_size == meta.length, "a snapshot is as long as its description says"
        self._close()
        return self._folder.keep(self._path, meta)

    async def discard(self) -> None:
        """Remove it, unless it was finished. An error of the disk leaves it for the next start to remove."""
        if self._close.alive:
            self._close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_unlink, self._path, limiter=self._folder.limiter)


def _unlink(path: Path) -> None:
    """Remove it; what the disk refuses to remove is left for the next start."""
    with suppress(OSError):
        path.unlink()
