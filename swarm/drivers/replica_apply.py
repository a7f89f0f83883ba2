"""Applies committed entries to the catalog, and tells those who wait for them what came of it.

Entries come in the order of the log. Applying pauses with a checkpoint when it has taken 4 ms, so that a long backlog delays no
heartbeat; a snapshot is restored in steps with checkpoints between, its bytes read from the store piece by piece. Whoever
proposed an entry waits for its (index, term): when another term stands at that index, or the core says it was overwritten, the
proposal was not carried out and never will be; when a snapshot went past it, nobody here can say.

Promises kept here: every entry is applied once and in order; an entry of an unknown kind stops applying for good, the core is
told nothing beyond it, and the node goes on voting and acknowledging (its log in memory stays short, that on its disk grows until
the upgrade: `consensus.log`); nobody waits for a result that cannot come.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import trio

from swarm.consensus.core import Consensus, Proposed
from swarm.consensus.effects import Apply, RestoreSnapshot
from swarm.drivers.collector import FULL_COLLECTIONS
from swarm.drivers.replica_making import Machine, SnapshotMaker
from swarm.errors import BadMessage, StoreFailure, Unavailable, UnknownEntry, UnknownOutcome
from swarm.model.entry import Entry
from swarm.model.outcome import Applied
from swarm.ports import Clock, Store
from swarm.wire.limits import SNAPSHOT_CHUNK_BYTES

SLICE_S = 0.004
"""The entry that passes it is finished: together at most 5 ms."""
RESULTS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Changes:
    """What subscribers are told: results in order. `restored` means that anything may have changed."""

    index: int
    applied: tuple[Applied, ...]
    entries: tuple[Entry, ...] = ()
    restored: bool = False


class _Waiter:
    """Somebody waits for the entry of this term at some index."""

    __slots__ = ("done", "error", "result", "term")

    def __init__(self, term: int) -> None:
        self.term = term
        self.done = trio.Event()
        self.result: Applied | None = None
        self.error: Exception | None = None

    def finish(self, result: Applied | None, error: Exception | None) -> None:
        self.result, self.error = result, error
        self.done.set()


def _lost() -> Unavailable:
    return Unavailable(
        "the request was not carried out", cause="its leader lost the lead before a majority had it", hint="try again"
    )


def _unknown(why: str) -> UnknownOutcome:
    return UnknownOutcome(
        "the request may or may not have been carried out", cause=why, hint="ask again with the same request id"
    )


async def _drain(steps: Iterator[None]) -> None:
    """All steps, with room for others after each but the last."""
    for _ in steps:
        await trio.lowlevel.checkpoint()


class Applier:
    """One task that owns the catalog's state. `applied_index` is what the catalog has."""

    def __init__(
        self, core: Consensus, machine: Machine, clock: Clock, store: Store, maker: SnapshotMaker, wake: Callable[[], None]
    ) -> None:
        self._core = core
        self._machine = machine
        self._clock = clock
        self._store = store
        self._maker = maker
        self._wake = wake
        self._queue: deque[Entry | RestoreSnapshot] = deque()
        self._queued = trio.Event()
        self._waiters: dict[int, list[_Waiter]] = {}
        self._results: OrderedDict[int, tuple[int, Applied]] = OrderedDict()
        self._advanced = trio.Event()
        self._subscribers: list[Callable[[Changes], None]] = []
        self.applied_index = 0
        self.halted = ""
        """Why applying stopped for good; empty while it goes on."""

    def subscribe(self, callback: Callable[[Changes], None]) -> None:
        """Call back after every slice of applied entries. Synchronous; must not raise."""
        self._subscribers.append(callback)

    def give(self, effect: Apply | RestoreSnapshot) -> None:
        """Queue what the core handed out; once halted nothing: what is in the log is applied after the upgrade."""
        if self.halted:
            return
        if isinstance(effect, Apply):
            self._queue.extend(effect.entries)
        else:
            self._queue.append(effect)
        self._queued.set()

    async def run(self) -> None:
        """Apply for ever."""
        while True:
            if not self._queue or self.halted:
                self._queued = trio.Event()
                await self._queued.wait()
                continue
            if isinstance(effect := self._queue[0], RestoreSnapshot):
                with FULL_COLLECTIONS.put_off():
                    await self._restore(effect)
            else:
                self._apply_slice()
                await trio.lowlevel.checkpoint()

    def _apply_slice(self) -> None:
        until = self._clock.now() + SLICE_S
        entries: list[Entry] = []
        results: list[Applied] = []
        while self._queue and not isinstance(entry := self._queue[0], RestoreSnapshot):
            try:
                result = self._machine.apply(entry)
            except UnknownEntry as error:
                self._halt(str(error) or f"entry {entry.index} is of an unknown kind: {entry.kind} {entry.version}")
                break
            self._queue.popleft()
            entries.append(entry)
            results.append(result)
            self._settle(entry, result)
            if self._clock.now() >= until:
                break
        if entries:
            self._advance(Changes(entries[-1].index, tuple(results), tuple(entries)))
            if not self.halted:
                self._maker.maybe_begin(self.applied_index)

    def _halt(self, why: str) -> None:
        """Apply nothing any more, and lead no more: a leader that does not apply could commit and never act."""
        self.halted = why
        self._queue.clear()
        self._tell_waiting()
        self._core.step_down(self._clock.now(), for_good=True)
        self._wake()

    async def _restore(self, effect: RestoreSnapshot) -> None:
        """Step by step. When a newer one arrives meanwhile, that one is restored instead. Raises `StoreFailure` when the bytes,
        verified when they came, cannot be read or understood: this node cannot go on without them."""
        self._maker.restored(effect.meta.index)
        restoring = self._machine.restoring()
        try:
            for start in range(0, effect.meta.length, SNAPSHOT_CHUNK_BYTES):
                end = min(start + SNAPSHOT_CHUNK_BYTES, effect.meta.length)
                await _drain(restoring.feed(await self._store.read(effect.data, start, end)))
                if self._skip_to_newer(effect):
                    return
            await _drain(restoring.finish())
        except UnknownEntry as error:
            self._halt(str(error))
            return
        except (BadMessage, Unavailable) as error:
            raise StoreFailure(f"cannot restore the snapshot at {effect.meta.index}: {error}") from error
        self._queue.popleft()
        self._restored(effect)
        await _drain(restoring.clear())

    def _skip_to_newer(self, effect: RestoreSnapshot) -> bool:
        """Whether a later snapshot waits in the queue: everything before it goes."""
        newer = [waiting for waiting in self._queue if isinstance(waiting, RestoreSnapshot) and waiting is not effect]
        while newer and self._queue[0] is not newer[-1]:
            self._queue.popleft()
        return bool(newer)

    def _restored(self, effect: RestoreSnapshot) -> None:
        for index in [index for index in self._waiters if index <= effect.meta.index]:
            for waiter in self._waiters.pop(index):
                waiter.finish(None, _unknown("this node was so far behind that it took a snapshot instead"))
        self._advance(Changes(effect.meta.index, (), restored=True))

    def _advance(self, changes: Changes) -> None:
        self.applied_index = changes.index
        self._core.on_applied(changes.index, self._clock.now())
        self._tell_waiting()
        for callback in self._subscribers:
            callback(changes)
        self._wake()

    # ---- waiting

    def _settle(self, entry: Entry, result: Applied) -> None:
        self._results[entry.index] = (entry.term, result)
        if len(self._results) > RESULTS_KEPT:
            self._results.popitem(last=False)
        for waiter in self._waiters.pop(entry.index, ()):
            if waiter.term == entry.term:
                waiter.finish(result, None)
            else:
                waiter.finish(None, _lost())

    def lost(self, index: int, term: int) -> None:
        """The core says that the entry of this term at this index was overwritten."""
        waiters = self._waiters.pop(index, [])
        for waiter in waiters:
            if waiter.term == term:
                waiter.finish(None, _lost())
        kept = [waiter for waiter in waiters if waiter.term != term]
        if kept:
            self._waiters[index] = kept

    async def result_of(self, proposed: Proposed, timeout_s: float) -> Applied:
        """What applying that proposal gave. Raises `Unavailable` when it was overwritten, and `UnknownOutcome` when that cannot
        be said within the time."""
        if proposed.index in self._results:
            term, result = self._results[proposed.index]
            if term != proposed.term:
                raise _lost()
            return result
        if proposed.index <= self.applied_index:
            raise _unknown("its result is no longer kept here")
        waiter = _Waiter(proposed.term)
        self._waiters.setdefault(proposed.index, []).append(waiter)
        try:
            with trio.move_on_after(max(0.0, timeout_s)):
                await waiter.done.wait()
        finally:
            self._forget(proposed.index, waiter)
        if waiter.error is not None:
            raise waiter.error
        if waiter.result is None:
            raise _unknown(self.halted or f"no majority confirmed it within {timeout_s:.0f} s")
        return waiter.result

    def _forget(self, index: int, waiter: _Waiter) -> None:
        waiting = [other for other in self._waiters.get(index, ()) if other is not waiter]
        if waiting:
            self._waiters[index] = waiting
        else:
            self._waiters.pop(index, None)

    async def wait_applied(self, index: int) -> None:
        """Return when the catalog has everything up to `index`. May wait for ever: callers bound it."""
        while self.applied_index < index:
            await self._advanced.wait()

    async def wait_restored(self, index: int) -> None:
        """The same for the snapshot this node starts from; returns also when applying has stopped for good, which may be because
        of that very snapshot."""
        while self.applied_index < index and not self.halted:
            await self._advanced.wait()

    def _tell_waiting(self) -> None:
        advanced, self._advanced = self._advanced, trio.Event()
        advanced.set()
