"""Makes snapshots of the catalog while it goes on applying, so that the log stays short.

A snapshot is of the moment it was begun. It is encoded in slices, with a checkpoint after each, and written to a spool of the
store piece by piece; only when all of it is durable is the core told, whose next batch makes it the one the log begins behind.
A large catalog takes seconds, so the next one is begun only when making them takes at most a tenth of the time, unless the log
has grown to `LOG_FACTOR` times its usual length.

Promises kept here: one at a time; no step takes longer than encoding one slice; a disk that refuses, and a newer snapshot that
arrives meanwhile, end the making and nothing else; after a refusal it is tried again no sooner than `RETRY_S` later.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

import trio
from msgspec.structs import replace

from swarm.consensus.core import Consensus
from swarm.errors import Unavailable
from swarm.model.entry import Entry, SnapshotMeta
from swarm.model.outcome import Applied
from swarm.ports import Clock, Spool, Store
from swarm.wire.checksum import crc32c
from swarm.wire.limits import SNAPSHOT_CHUNK_BYTES

REST_FACTOR = 9
LOG_FACTOR = 8
RETRY_S = 60.0


class Restoring(Protocol):
    """A machine on its way to become a snapshot. Iterators are drained with room for others between two steps."""

    def feed(self, piece: bytes) -> Iterator[None]:
        """Take the next bytes. Raises `BadMessage`."""

    def finish(self) -> Iterator[None]:
        """All bytes are there; the last step makes the change. Raises `BadMessage`."""

    def clear(self) -> Iterator[None]:
        """Let go of what the machine was before, which may be large, after `finish`."""


class Machine(Protocol):
    """The catalog, as a replica needs it: deterministic, total for known kinds."""

    def apply(self, entry: Entry) -> Applied:
        """Apply one entry. Raises `UnknownEntry`, having changed nothing."""

    def snapshot_slices(self) -> Iterator[bytes]:
        """Everything, as of the last entry applied before the first `next`, in pieces of which some may be empty."""

    def restoring(self) -> Restoring:
        """Become a snapshot, step by step."""


def is_due(entries: int, *, every: int, rested_s: float, took_s: float) -> bool:
    """Whether to make one: `entries` applied since the last, which took `took_s` and was done `rested_s` ago."""
    return entries >= every and (rested_s >= REST_FACTOR * took_s or entries >= LOG_FACTOR * every)


class _Making:
    """One that was begun: the moment is taken with the first slice."""

    def __init__(self, meta: SnapshotMeta, slices: Iterator[bytes], begun_at: float) -> None:
        self.meta = meta
        self.slices = slices
        self.begun_at = begun_at
        self.first = next(slices, b"")
        self.is_overtaken = False


class SnapshotMaker:
    """One task; `maybe_begin` is called after every slice of applied entries."""

    def __init__(
        self, core: Consensus, machine: Machine, clock: Clock, store: Store, *, every: int, wake: Callable[[], None]
    ) -> None:
        self._core = core
        self._machine = machine
        self._clock = clock
        self._store = store
        self._every = every
        self._wake = wake
        self._making: _Making | None = None
        self._begun = trio.Event()
        self._index = 0
        """Where the newest snapshot stands."""
        self._took_s = 0.0
        self._done_at = -math.inf
        self._not_before = -math.inf
        self.counters: Counter[str] = Counter()

    @property
    def is_making(self) -> bool:
        return self._making is not None

    def restored(self, index: int) -> None:
        """The catalog becomes a snapshot from elsewhere: one in the making is older."""
        self._index = max(self._index, index)
        if self._making is not None:
            self._making.is_overtaken = True

    def maybe_begin(self, applied_index: int) -> None:
        """Take the moment, if one is due. O(1) and the first slice."""
        now = self._clock.now()
        if self._making is not None or now < self._not_before:
            return
        if not is_due(applied_index - self._index, every=self._every, rested_s=now - self._done_at, took_s=self._took_s):
            return
        if self._core.term_at(applied_index) is None:
            return  # a leader's newer snapshot is next in the queue
        meta = self._core.snapshot_meta(applied_index, crc32c=0, length=0)
        self._making = _Making(meta, self._machine.snapshot_slices(), now)
        self._begun.set()

    async def run(self) -> None:
        """Make them for ever."""
        while True:
            await self._begun.wait()
            self._begun = trio.Event()
            assert self._making is not None
            await self._make(self._making)
            self._making = None

    async def _make(self, making: _Making) -> None:
        spool: Spool | None = None
        try:
            spool = await self._store.spool()
            meta = await self._write(making, spool)
            if not making.is_overtaken:
                self._core.compact(meta, await spool.finish(meta), self._clock.now())
                self._index = max(self._index, meta.index)
                self.counters["made"] += 1
        except Unavailable:
            self.counters["refused"] += 1
            self._not_before = self._clock.now() + RETRY_S
        finally:
            making.slices = iter(())  # lets the moment go
            if spool is not None:
                await spool.discard()
        self._done_at = self._clock.now()
        self._took_s = self._done_at - making.begun_at
        self._wake()

    async def _write(self, making: _Making, spool: Spool) -> SnapshotMeta:
        """All slices, gathered to pieces of some size: each piece costs a sync."""
        piece, checksum, length = bytearray(making.first), 0, 0
        for data in making.slices:
            piece += data
            if len(piece) >= SNAPSHOT_CHUNK_BYTES:
                await spool.append(bytes(piece))
                checksum, length = crc32c(bytes(piece), checksum), length + len(piece)
                piece.clear()
            await trio.lowlevel.checkpoint()
            if making.is_overtaken:
                break
        await spool.append(bytes(piece))
        return replace(making.meta, crc32c=crc32c(bytes(piece), checksum), length=length + len(piece))
