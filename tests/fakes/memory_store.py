"""A store in memory that keeps the contract of `ports.Store`; `durable` is what a crash would leave."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from swarm.errors import StoreFailure
from swarm.model.entry import Committed, Entry, HardState, SnapshotMeta
from swarm.ports import Batch, Stored


class MemoryStore:
    """`fail_next` makes the next write fail; `gate`, when set, holds writes until it is opened."""

    def __init__(self, generation: int = 1) -> None:
        self._generation = generation
        self._entries: dict[int, Entry] = {}
        self._hard = HardState()
        self._snapshot: SnapshotMeta | None = None
        self._data: bytes | None = None
        self._committed = Committed()
        self._failed = False
        self.fail_next = False
        self.gate: trio.Event | None = None
        self.writes = 0

    @property
    def durable(self) -> Stored:
        entries = tuple(self._entries[index] for index in sorted(self._entries))
        return Stored(self._generation, self._hard, entries, self._snapshot, self._data, self._committed)

    async def write(self, batches: Sequence[Batch]) -> None:
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.fail_next or self._failed:
            self._failed = True
            raise StoreFailure("cannot write: the disk refuses")
        self.writes += 1
        for batch in batches:
            self.keep(batch)

    def keep(self, batch: Batch) -> None:
        """Make one batch durable, at once."""
        if batch.snapshot is not None:
            self._snapshot, self._data = batch.snapshot, batch.snapshot_data
            keep_from = float("inf") if batch.discard_log else batch.snapshot.index + 1
            self._entries = {index: entry for index, entry in self._entries.items() if index >= keep_from}
        if batch.truncate_from:
            self._entries = {index: entry for index, entry in self._entries.items() if index < batch.truncate_from}
        self._entries.update((entry.index, entry) for entry in batch.entries)
        if batch.hard_state is not None:
            self._hard = batch.hard_state
        if batch.committed is not None:
            self._committed = batch.committed

    async def probe(self) -> None:
        await self.write(())

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()
