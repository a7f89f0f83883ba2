"""Hands applied entries to the archive, behind everything else, and questions about the past to its reader.

It subscribes to the replica: entries pile up for a second, or until there are many, and are then written in a thread. Nothing
waits for that but a question, which wants to see what was applied before it was asked. Where the archive is too slow or its disk
refuses, entries are dropped and counted: the next start finds what the log still has, and what it has not is a gap.

Promises: no acknowledgement and no apply waits for the archive; what waits to be written is bounded by number and bytes; no
failure of the archive ends the daemon.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from swarm.drivers.replica_apply import Changes
from swarm.errors import Unavailable
from swarm.model.archived import Archived, Base, Question, archived
from swarm.model.entry import SnapshotMeta
from swarm.ports import SnapshotData

LOG = logging.getLogger("swarm.archive")
GATHER_S = 1.0
"""Longer: fewer, better packed blocks, and more to read again after a crash."""
GATHERED_MAX = 4_096
"""So many are written without waiting."""
QUEUE_MAX = 65_536
QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""Of payloads that wait. Reached only by a disk that stands still."""
FLUSH_S_MAX = 5.0


class Archive(Protocol):
    """Where entries are kept."""

    async def write(self, records: Sequence[Archived]) -> None:
        """Append. Raises OSError."""

    async def offer_base(self, base: Base, data: SnapshotData) -> None:
        """Keep a snapshot, if it is time for one. Raises OSError."""


class Reader(Protocol):
    """Who answers questions from it."""

    async def ask(self, question: Question) -> bytes:
        """The answer, as JSON. Raises `OperatorError`."""


class Archiving:
    """The way of entries into the archive. Without one (`archive` is None) it keeps nothing and says so."""

    def __init__(
        self,
        archive: Archive | None,
        reader: Reader,
        *,
        cluster_id: str,
        snapshot: Callable[[], tuple[SnapshotMeta, SnapshotData] | None],
    ) -> None:
        """`snapshot` gives the replica's newest."""
        self.counters: Counter[str] = Counter()
        self._archive = archive
        self._reader = reader
        self._cluster_id = cluster_id
        self._snapshot = snapshot
        self._offered = -1
        self._waiting: list[Archived] = []
        self._waiting_bytes = 0
        self._many = trio.Event()
        self._some = trio.Event()
        self._written = trio.Event()
        self._writing = False
        self._restored = False
        """A snapshot was restored since the last write: what comes after it stands on it, and on nothing that is here already."""

    def on_changes(self, changes: Changes) -> None:
        """Subscribe this to the replica. O(entries)."""
        if self._archive is None:
            return
        self._restored = self._restored or changes.restored
        for entry, applied in zip(changes.entries, changes.applied, strict=True):
            if len(self._waiting) >= QUEUE_MAX or self._waiting_bytes >= QUEUE_BYTES_MAX:
                self.counters["history_entries_dropped"] += 1
                continue
            self._waiting.append(archived(entry, applied))
            self._waiting_bytes += len(entry.payload)
        self._some.set()
        if len(self._waiting) >= GATHERED_MAX:
            self._many.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. What was applied by then is written at the next start, out of the log."""
        task_status.started()
        while True:
            await self._some.wait()
            with trio.move_on_after(GATHER_S):
                await self._many.wait()
            self._some, self._many = trio.Event(), trio.Event()
            await self._write()

    async def _write(self) -> None:
        records, self._waiting, self._waiting_bytes = self._waiting, [], 0
        restored, self._restored = self._restored, False
        assert self._archive is not None
        self._writing = True
        try:
            if restored:
                await self._offer_base()
            if records:
                await self._archive.write(records)
            await self._offer_base()
        except OSError as error:
            self.counters["history_writes_failed"] += 1
            LOG.warning("the history of %d entries was not kept: %s", len(records), error)
        finally:
            self._writing = False
            written, self._written = self._written, trio.Event()
            written.set()

    async def _offer_base(self) -> None:
        """The replica's newest snapshot, once. Raises OSError."""
        assert self._archive is not None
        snapshot = self._snapshot()
        if snapshot is not None and snapshot[0].index > self._offered:
            meta, data = snapshot
            await self._archive.offer_base(Base(self._cluster_id, meta.index, meta.time_utc, meta.recovery_generation), data)
            self._offered = meta.index

    async def ask(self, question: Question) -> bytes:
        """The answer about the past, up to what is applied now, as JSON. Raises `OperatorError`."""
        if self._archive is None:
            raise Unavailable("this node keeps no history", cause="it runs with --history-size 0", hint="ask another node")
        with trio.move_on_after(FLUSH_S_MAX):
            while self._waiting or self._writing:
                self._some.set()
                self._many.set()
                await self._written.wait()
        return await self._reader.ask(question)
