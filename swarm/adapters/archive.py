"""The archive of applied entries: written beside the store, behind everything else, and bounded by size and age.

What the log compacts away is kept here, so that people can ask what happened and how things were. Entries are appended to
the newest segment; a snapshot of the catalog (a base) is kept whenever the entries since the last one have grown to its size,
so that bases take at most about half of the room, and a rebuild reads little more than it shows. Pruning takes whole segments,
oldest first, and never the last base: what is left can always be rebuilt from it on.

It is no part of any promise of the log: nothing waits for it, it is synced only when a segment is full, and what a crash tears
off is written again from the log at the next start, or is a gap that readers are told of. After a recovery of the cluster the
entries that the recovered log does not have are cut off when its own come.

Promises: entries stand here once and in order; damage is never read as truth; the bounds hold after every write; a disk that
is full makes it smaller, and no failure of it reaches the daemon.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from swarm.adapters import archive_file as files
from swarm.model.archived import Archived, Base
from swarm.model.generation import number_of
from swarm.ports import SnapshotData

SEGMENT_BYTES = 4 * 1024 * 1024
"""Larger: coarser pruning. Smaller: more files."""
SEGMENTS_PER_AGE = 10
"""A segment spans at most this part of the age that is kept, so that age prunes also where little happens."""
BASE_ENTRIES_MAX = 16_384
"""A base at the latest after so many entries. A rebuild applies up to as many, some 40 us of processor each."""
_ALLOWANCE = 0.25
"""Of the bound, when the disk is full."""
_DEFLATES = 8
"""How many times smaller a snapshot becomes, as a first guess."""


class Archive:
    """Keeps `drivers.archiving.Archive`: the folder's work in a thread, one call at a time. A call that is abandoned goes on, and
    the next one waits for it."""

    def __init__(self, folder: ArchiveFolder) -> None:
        self._folder = folder
        self._limiter = trio.CapacityLimiter(1)

    async def write(self, records: Sequence[Archived]) -> None:
        """See `ArchiveFolder.write`."""
        await trio.to_thread.run_sync(self._folder.write, records, limiter=self._limiter, abandon_on_cancel=True)

    async def offer_base(self, base: Base, data: SnapshotData) -> None:
        """See `ArchiveFolder.offer_base`."""
        await trio.to_thread.run_sync(self._folder.offer_base, base, data, limiter=self._limiter, abandon_on_cancel=True)


class ArchiveFolder:
    """The files of one folder and their end. Every method blocks."""

    def __init__(self, folder: Path, cluster_id: str, *, bytes_max: int, age_max_s: float) -> None:
        self._folder = folder
        self._cluster_id = cluster_id
        self._bytes_max = bytes_max
        self._age_max_s = age_max_s
        self._segment: Path | None = None
        self._size = 0
        """Of the newest segment as far as it is whole; what lies behind it in the file is cut off before the next write."""
        self._begun_utc = 0.0
        self._newest_utc: dict[Path, float] = {}
        """Time of the last entry of each segment."""
        self._base_index = -1
        """Of the newest base; -1 where there is none."""
        self._base_bytes: int | None = None
        self._since_base_bytes = 0
        self._opened = False
        self._generation = 0
        self.last_index = 0
        """Of the newest entry kept."""

    def write(self, records: Sequence[Archived]) -> None:
        """Append applied entries; those that are here already are passed over. Raises OSError, with those before it kept."""
        self._guarded(lambda: self._write(records))

    def offer_base(self, base: Base, data: SnapshotData) -> None:
        """Keep this snapshot, if it is time for one. Raises OSError."""
        self._guarded(lambda: self._offer_base(base, data))

    def _guarded(self, action: Callable[[], None]) -> None:
        if not self._opened:
            self._open()
            self._opened = True
        try:
            action()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._prune(self._bytes_max * _ALLOWANCE)
            raise
        self._prune(self._bytes_max)

    def _open(self) -> None:
        """Find the end of what is here. Files of another cluster go."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._folder.glob("*.new"):
            path.unlink()
        for path in files.listed(self._folder, files.BASE):
            base = files.read_base_untrusted(path, self._cluster_id)
            if base is None:
                path.unlink()
                continue
            self._base_index, self._base_bytes = base.index, path.stat().st_size
        for path in files.listed(self._folder, files.ENTRIES):
            self._open_segment(path)
        if self._segment is not None:
            newest = list(files.blocks(self._segment, self._cluster_id))
            self._size = newest[-1].offset + newest[-1].size if newest else 0
            self._generation = files.read_block(newest[-1])[-1].entry.recovery_generation if newest else 0
            self.last_index = newest[-1].last if newest else files.index_of(self._segment) - 1

    def _open_segment(self, path: Path) -> None:
        found = list(files.heads(path, self._cluster_id))
        if not found:
            path.unlink()
            return
        self._segment, self._begun_utc = path, found[0].first_utc
        self._newest_utc[path] = found[-1].last_utc
        self._since_base_bytes += sum(block.size for block in found if block.first > self._base_index)

    def _write(self, records: Sequence[Archived]) -> None:
        group: list[Archived] = []
        for record in records:
            entry = record.entry
            if entry.index <= self.last_index and self._is_another_recovery(entry.recovery_generation):
                self._cut(entry.index)
            if entry.index <= self.last_index:
                continue
            if group and (entry.index != group[-1].entry.index + 1 or len(group) >= files.BLOCK_RECORDS_MAX):
                self._append(group)
                group = []
            group.append(record)
        if group:
            self._append(group)

    def _append(self, records: list[Archived]) -> None:
        """Consecutive entries. One that does not follow the last begins a segment: there is no gap within one."""
        first, last = records[0].entry, records[-1].entry
        if self._segment is None or self._is_full(first.time_utc) or first.index != self.last_index + 1:
            self._finish_segment()
            self._segment = files.entries_path(self._folder, first.index)
            self._size, self._begun_utc = 0, first.time_utc
        data = b"".join(files.blocks_of(records))
        if self._size == 0:
            data = files.header(self._cluster_id) + data
        try:
            with open(os.open(self._segment, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as opened:
                opened.truncate(self._size)
                opened.seek(self._size)
                opened.write(data)
        except OSError:
            if self._size == 0:
                self._segment.unlink(missing_ok=True)  # nothing of it is whole; the next try may begin another one
            raise
        self._size += len(data)
        self._since_base_bytes += len(data)
        self._newest_utc[self._segment] = last.time_utc
        self.last_index, self._generation = last.index, last.recovery_generation

    def _is_another_recovery(self, generation: int) -> bool:
        """Whether the log goes on in another generation than what is here ended with, and not in one before that."""
        return generation != self._generation and number_of(generation) >= number_of(self._generation)

    def _is_full(self, now_utc: float) -> bool:
        full = min(SEGMENT_BYTES, self._bytes_max // 16)
        return self._size >= full or now_utc - self._begun_utc > self._age_max_s / SEGMENTS_PER_AGE

    def _finish_segment(self) -> None:
        """Make it durable, once, when it is done."""
        if self._segment is None or not self._segment.exists():
            return
        for path in (self._segment, self._folder):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _cut(self, index: int) -> None:
        """Forget everything from this index on: a recovered cluster's log goes on differently from there."""
        for path in files.listed(self._folder, files.BASE):
            if files.index_of(path) >= index:
                path.unlink()
        kept: list[Archived] = []
        self._segment, self._size, self.last_index = None, 0, 0
        for path in files.listed(self._folder, files.ENTRIES):
            if files.index_of(path) >= index:
                self._forget(path)
                continue
            for block in files.blocks(path, self._cluster_id):
                if block.last >= index:
                    kept = [record for record in files.read_block(block) if record.entry.index < index]
                    os.truncate(path, block.offset)
                    break
                self._segment, self._size, self._begun_utc = path, block.offset + block.size, block.first_utc
                self.last_index, self._newest_utc[path] = block.last, block.last_utc
        bases = files.listed(self._folder, files.BASE)
        self._base_index = files.index_of(bases[-1]) if bases else -1
        if kept:
            self._append(kept)

    def _offer_base(self, base: Base, data: SnapshotData) -> None:
        if base.index <= self._base_index or base.cluster_id != self._cluster_id:
            return
        if base.index <= self.last_index and self._is_another_recovery(base.recovery_generation):
            self._cut(base.index)  # where the two logs part is not known: nothing is rebuilt across this point
        missing = base.index > self.last_index or (self._base_index < 0 and not files.entries_path(self._folder, 1).exists())
        due = self._since_base_bytes >= (self._base_bytes or len(data) // _DEFLATES)
        if not (missing or due or base.index - max(self._base_index, 0) >= BASE_ENTRIES_MAX):
            return
        try:
            path = files.write_base(self._folder, base, data[:])
        except OSError:
            files.base_path(self._folder, base.index).with_suffix(".new").unlink(missing_ok=True)
            raise
        self._base_index, self._base_bytes = base.index, path.stat().st_size
        self._since_base_bytes = 0

    # ---- bounds -----------------------------------------------------------------------------------------------------------

    def _prune(self, bytes_max: float) -> None:
        """Drop oldest segments, and bases whose entries are gone, until the rest is small and young enough. O(files)."""
        segments, bases = files.listed(self._folder, files.ENTRIES), files.listed(self._folder, files.BASE)
        sizes = {path: path.stat().st_size for path in (*segments, *bases)}
        while len(segments) > 1 and (sum(sizes.values()) > bytes_max or self._is_old(segments[0])):
            gone = files.index_of(segments[1])
            usable = [path for path in bases if files.index_of(path) + 1 >= gone]
            if not usable and sum(sizes.values()) <= bytes_max:
                break  # what is left could not be rebuilt; the next base lets the old ones go
            for path in (segments.pop(0), *bases[: len(bases) - len(usable)]):
                del sizes[path]
                self._forget(path)
            bases = usable
        while bases and sum(sizes.values()) > bytes_max:
            del sizes[bases[0]]
            self._forget(bases.pop(0))
        if not bases:
            self._base_index, self._base_bytes = -1, None

    def _forget(self, path: Path) -> None:
        path.unlink()
        self._newest_utc.pop(path, None)

    def _is_old(self, path: Path) -> bool:
        """Whether everything in this segment is older than what is kept, by the log's time."""
        return max(self._newest_utc.values()) - self._newest_utc[path] > self._age_max_s
