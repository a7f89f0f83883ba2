"""Applies committed entries to the catalog, and tells those who wait for them what came of it.

Entries come in the order of the log. Applying pauses with a checkpoint when it has taken 5 ms, so that a long backlog delays no
heartbeat. Whoever proposed an entry waits for its (index, term): when another term stands at that index, or the core says
it was overwritten, the proposal was not carried out and never will be; when a snapshot went past it, nobody here can say.

Promises kept here: every entry is applied once and in order; an entry of an unknown kind stops applying for good, the core is
told nothing beyond it, and the node goes on voting and acknowledging; nobody waits for a result that cannot come.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from swarm.consensus.core import Consensus, Proposed
from swarm.consensus.effects import Apply, RestoreSnapshot
from swarm.errors import Unavailable, UnknownEntry, UnknownOutcome
from swarm.model.entry import Entry
from swarm.model.outcome import Applied
from swarm.ports import Clock
from swarm.wire.checksum import crc32c

SLICE_S = 0.005
RESULTS_KEPT = 1024


class Machine(Protocol):
    """The catalog, as a replica needs it: deterministic, total for known kinds."""

    def apply(self, entry: Entry) -> Applied:
        """Apply one entry. Raises `UnknownEntry`, having changed nothing."""

    def snapshot(self) -> bytes:
        """Everything, as of the last applied entry."""

    def restore(self, data: bytes) -> None:
        """Become that snapshot."""


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


class Applier:
    """One task that owns the catalog's state. `applied_index` is what the catalog has."""

    def __init__(self, core: Consensus, machine: Machine, clock: Clock, *, snapshot_every: int, wake: Callable[[], None]) -> None:
        self._core = core
        self._machine = machine
        self._clock = clock
        self._snapshot_every = snapshot_every
        self._wake = wake
        self._queue: deque[Entry | RestoreSnapshot] = deque()
        self._queued = trio.Event()
        self._waiters: dict[int, list[_Waiter]] = {}
        self._results: OrderedDict[int, tuple[int, Applied]] = OrderedDict()
        self._advanced = trio.Event()
        self._subscribers: list[Callable[[Changes], None]] = []
        self._snapshot_index = 0
        self.applied_index = 0
        self.halted = ""
        """Why applying stopped for good; empty while it goes on."""

    def subscribe(self, callback: Callable[[Changes], None]) -> None:
        """Call back after every slice of applied entries. Synchronous; must not raise."""
        self._subscribers.append(callback)

    def give(self, effect: Apply | RestoreSnapshot) -> None:
        """Queue what the core handed out."""
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
            else:
                self._apply_slice()
                await trio.lowlevel.checkpoint()

    def _apply_slice(self) -> None:
        if isinstance(self._queue[0], RestoreSnapshot):
            effect = self._queue.popleft()
            assert isinstance(effect, RestoreSnapshot)
            self._restore(effect)
            return
        until = self._clock.now() + SLICE_S
        entries: list[Entry] = []
        results: list[Applied] = []
        while self._queue and not isinstance(entry := self._queue[0], RestoreSnapshot):
            try:
                result = self._machine.apply(entry)
            except UnknownEntry as error:
                self.halted = str(error) or f"entry {entry.index} is of an unknown kind: {entry.kind} {entry.version}"
                break
            self._queue.popleft()
            entries.append(entry)
            results.append(result)
            self._settle(entry, result)
            if self._clock.now() >= until:
                break
        if entries:
            self._advance(Changes(entries[-1].index, tuple(results), tuple(entries)))
            self._maybe_snapshot()

    def _restore(self, effect: RestoreSnapshot) -> None:
        self._machine.restore(effect.data)
        self._snapshot_index = effect.meta.index
        for index in [index for index in self._waiters if index <= effect.meta.index]:
            for waiter in self._waiters.pop(index):
                waiter.finish(None, _unknown("this node was so far behind that it took a snapshot instead"))
        self._advance(Changes(effect.meta.index, (), restored=True))

    def _advance(self, changes: Changes) -> None:
        self.applied_index = changes.index
        self._core.on_applied(changes.index, self._clock.now())
        advanced, self._advanced = self._advanced, trio.Event()
        advanced.set()
        for callback in self._subscribers:
            callback(changes)
        self._wake()

    def _maybe_snapshot(self) -> None:
        if self.applied_index - self._snapshot_index < self._snapshot_every or self._core.term_at(self.applied_index) is None:
            return  # not due, or a leader's newer snapshot is next in the queue
        data = self._machine.snapshot()
        meta = self._core.snapshot_meta(self.applied_index, crc32c=crc32c(data), length=len(data))
        self._core.compact(meta, data, self._clock.now())
        self._snapshot_index = self.applied_index

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
