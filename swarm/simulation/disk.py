"""The disk under one daemon's store: what is durable, what is on its way, and what a crash takes.

Batches are queued; while one transaction is on its way to the platter the next ones gather, and go together as one (group
commit). A crash loses everything queued, and the transaction under way is durable or not, as a whole: a torn one fails its
checksum and is none. A disk can be slow, and it can hang: then nothing completes until it is freed. A transaction can fail: then
the daemon ends, and nobody knows whether it is durable. A store can be damaged or lost: the next start finds that, sets it aside
and begins with an empty one under a new store generation. And a disk can be set back to an earlier copy, which nothing finds.

Promise: `stored()` is exactly what the completed transactions made of it, whatever was submitted after, unless it was damaged or
set back.
"""

from __future__ import annotations

from collections.abc import Callable

from swarm.model.entry import Committed, Entry, HardState, SnapshotMeta
from swarm.ports import Batch, SnapshotData, Stored
from swarm.simulation.world import World


class Disk:
    """Survives the daemon and the host's power. One daemon at a time writes to it."""

    def __init__(self, world: World, host: int, *, store_generation: int = 1) -> None:
        self._world = world
        self._rng = world.random(f"disk/{host}")
        self.write_s = (0.0002, 0.002)
        """Least and most a transaction takes, true seconds."""
        self.slow = 0.0
        """Chance that one takes up to 0.8 s, as on a loaded host."""
        self.hung = False
        self.full = False
        """Writes come out of the reserve; the daemon is told with each of them."""
        self.hung_at = 0.0
        self.failing = False
        """The next transaction fails."""
        self.misread = 0.0
        """Chance that a piece of a snapshot is read with one byte changed."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called when one did: the daemon ends."""
        self.is_damaged = False
        """The next start will find its checksums wrong."""
        self.may_be_wiped: Callable[[], bool] = lambda: True
        """Asked at that start: if not, the damage had spared what is needed."""
        self.was_set_back = False
        self.store_generation = store_generation
        self.boots = 0
        """Starts of the daemon, persisted: gossip's generation."""
        self.writes = 0
        self._hard_state = HardState()
        self._entries: list[Entry] = []
        self._snapshot: SnapshotMeta | None = None
        self._snapshot_data: SnapshotData | None = None
        self._committed = Committed()
        self._queue: list[Batch] = []
        self._under_way: list[Batch] = []
        self._probe = False
        self._done: Callable[[int], None] | None = None
        self._opened = 0

    def open(self, done: Callable[[int], None]) -> Stored:
        """What a starting daemon reads. `done(number)` will be told the last batch of each completed transaction (0: a probe)."""
        self._opened += 1
        if self.is_damaged and self.may_be_wiped():
            self.wipe()
        self.is_damaged = False
        self._done = done
        self._queue, self._under_way, self._probe = [], [], False
        return self.stored()

    def stored(self) -> Stored:
        """What is durable now."""
        stored = Stored(
            self.store_generation, self._hard_state, tuple(self._entries), self._snapshot, self._snapshot_data, self._committed
        )
        assert self._committed.index <= self._last_index(), "a commit index without its entries"
        return stored

    def _last_index(self) -> int:
        if self._entries:
            return self._entries[-1].index
        return self._snapshot.index if self._snapshot else 0

    def submit(self, batch: Batch) -> None:
        """Queue one batch; batches become durable in order."""
        self._queue.append(batch)
        self._begin()

    def probe(self) -> None:
        """A small durable write, to learn whether the disk still works."""
        self._probe = True
        self._begin()

    def read(self, data: SnapshotData, start: int, end: int) -> bytes:
        """A piece of a snapshot that is kept here, as it comes from the platter."""
        piece = bytes(data[start:end])
        if piece and self.misread and self._rng.random() < self.misread:
            place = self._rng.randrange(len(piece))
            piece = piece[:place] + bytes([piece[place] ^ 1 << self._rng.randrange(8)]) + piece[place + 1 :]
        return piece

    def crash(self) -> None:
        """The daemon is gone, whyever: what was queued is lost; what was under way is durable or not."""
        if self._under_way and self._rng.random() < 0.5:
            self._make_durable(self._under_way)
        self._opened += 1
        self._done = None
        self._queue, self._under_way, self._probe = [], [], False

    def hang(self) -> None:
        """Nothing completes from here on."""
        self.hung, self.hung_at = True, self._world.now

    def free(self) -> None:
        """It works again."""
        self.hung = False
        if self._under_way:
            self._schedule()
        else:
            self._begin()

    def wipe(self) -> None:
        """The old file is set aside: empty, under a new store generation. Only while no daemon runs on it."""
        assert self._done is None, "a disk is swapped under a stopped daemon"
        self.store_generation += 1
        self.is_damaged = False
        self._hard_state, self._entries, self._snapshot, self._snapshot_data = HardState(), [], None, None
        self._committed = Committed()

    def set_back(self, earlier: Stored) -> None:
        """An older copy of the same store is put in its place. Only while no daemon runs on it."""
        assert self._done is None and earlier.store_generation == self.store_generation
        self.was_set_back = True
        self._hard_state, self._entries = earlier.hard_state, list(earlier.entries)
        self._snapshot, self._snapshot_data = earlier.snapshot, earlier.snapshot_data
        self._committed = earlier.committed

    @property
    def durable_index(self) -> int:
        """The last entry that is there."""
        return self._last_index()

    def install(self, batch: Batch) -> None:
        """Put something there before any daemon runs."""
        self._apply(batch)

    def _begin(self) -> None:
        if not self._under_way and (self._queue or self._probe):
            self._under_way, self._queue = self._queue, []
            self._under_way = self._under_way or [Batch(number=0)]
            self._probe = False
            self._schedule()

    def _schedule(self) -> None:
        low, high = self.write_s
        delay_s = low + (high - low) * self._rng.random()
        if self.slow and self._rng.random() < self.slow:
            delay_s += 0.8 * self._rng.random()
        self._world.after(delay_s, self._complete, self._opened)

    def _complete(self, opened: int) -> None:
        if opened != self._opened or self.hung or not self._under_way:
            return
        if self.failing:
            self.failing = False
            self.on_failure()
            return
        batches, self._under_way = self._under_way, []
        self._make_durable(batches)
        done = self._done
        assert done is not None, "a transaction completes for the daemon that began it"
        done(max(batch.number for batch in batches))
        if opened == self._opened:
            self._begin()

    def _make_durable(self, batches: list[Batch]) -> None:
        self.writes += 1
        for batch in batches:
            self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        if batch.hard_state is not None:
            self._hard_state = batch.hard_state
        if batch.discard_log:
            self._entries = []
        if batch.snapshot is not None:
            self._snapshot, self._snapshot_data = batch.snapshot, batch.snapshot_data
            self._entries = [entry for entry in self._entries if entry.index > batch.snapshot.index]
        first = batch.truncate_from or (batch.entries[0].index if batch.entries else 0)
        if first and self._entries and first <= self._entries[-1].index:
            self._entries = [entry for entry in self._entries if entry.index < first]
        if batch.entries:
            self._entries.extend(batch.entries)
        if batch.committed is not None:
            self._committed = batch.committed
