"""What is on its way to the disk, what is there, and what waits for it.

Pure: no I/O, no clock, no randomness of its own. Changes pile up until `flush` makes one batch of them. Batches become durable
in order. Messages that promise durability (vote requests and grants, append acknowledgements) wait for the batch they depend on
and are dropped when the term has changed by then: what they promise was promised in a term that is over. A vote request promises
too: it claims the log it names, and its term must never be campaigned for again with a shorter one after a crash.

The commit index is written beside what is written anyway, so that a restarted node knows again what was committed before any
leader speaks. It is never a reason to write, and may lag.

Promises kept here: nothing is claimed durable that a later truncation replaced; a message never leaves before its write; a commit
index goes to the disk only with, or after, the entries it names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from swarm.consensus.effects import Effect, Persist, Send
from swarm.consensus.log import Log
from swarm.machine import Outbox
from swarm.model.entry import Committed, HardState, SnapshotMeta
from swarm.ports import Batch, SnapshotData


class _Pending:
    """One batch that is not durable yet."""

    __slots__ = ("hard_state", "last_index", "number", "release", "since")

    def __init__(self, number: int, last_index: int, hard_state: HardState | None, release: list[Send], since: float) -> None:
        self.number = number
        self.last_index = last_index
        self.hard_state = hard_state
        self.release = release
        self.since = since


class Writes:
    """The disk, as the core sees it. Invariant: durable_index <= log.last_index."""

    def __init__(self, log: Log, hard_state: HardState, outbox: Outbox[Effect], now: float) -> None:
        self._log = log
        self._outbox = outbox
        self._pending: deque[_Pending] = deque()
        self._number = 0
        self._release: list[Send] = []
        self._unwritten_from = log.last_index + 1
        self._truncate_from = 0
        self._hard_state: HardState | None = None
        self._snapshot: tuple[SnapshotMeta, SnapshotData] | None = None
        self._discard = False
        self._told_commit = -1
        """The commit index that was last given to the disk; -1 when what stands there must be replaced."""
        self.durable_index = log.last_index
        """Log entries up to here are on disk."""
        self.durable_hard_state = hard_state
        self.completed_at = now
        """When the disk last completed a write."""
        self._probed = False

    # ---- changes to be written

    def save_hard_state(self, hard_state: HardState) -> None:
        """Term or vote changed."""
        self._hard_state = hard_state

    def truncated(self, first: int) -> None:
        """Entries from `first` on were dropped from the log; nothing written of them counts any more."""
        if first < self._unwritten_from:
            self._truncate_from = min(first, self._truncate_from or first)
            self._unwritten_from = first
        self.durable_index = min(self.durable_index, first - 1)
        for pending in self._pending:
            pending.last_index = min(pending.last_index, first - 1)

    def save_snapshot(self, meta: SnapshotMeta, data: SnapshotData, *, discard: bool) -> None:
        """The log was compacted, or replaced when `discard`."""
        self._snapshot = (meta, data)
        if discard:
            self._discard = True
            self._truncate_from = 0
            self._unwritten_from = meta.index + 1
            self.durable_index = 0
            for pending in self._pending:
                pending.last_index = 0

    def release(self, send: Send) -> None:
        """Send this when everything changed so far is durable."""
        self._release.append(send)

    def flush(self, now: float, committed: Callable[[], Committed]) -> None:
        """Emit one batch with everything that changed, or nothing. Messages that need no new write wait for the newest one."""
        last_index = self._log.last_index
        if not (self._hard_state or self._truncate_from or self._snapshot or last_index >= self._unwritten_from):
            self._release_without_batch()
            return
        self._number += 1
        meta, data = self._snapshot or (None, None)
        first = max(self._unwritten_from, self._log.offset + 1, meta.index + 1 if meta else 0)
        batch = Batch(
            number=self._number,
            entries=self._log.between(first, last_index),
            truncate_from=self._truncate_from,
            hard_state=self._hard_state,
            snapshot=meta,
            snapshot_data=data,
            discard_log=self._discard,
            committed=self._news(committed()),
        )
        self._pending.append(_Pending(self._number, last_index, self._hard_state, self._release, now))
        self._outbox.emit(Persist(batch, tuple(self._release)))
        self._release = []
        self._unwritten_from = last_index + 1
        self._truncate_from = 0
        self._hard_state = self._snapshot = None
        self._discard = False

    def _news(self, committed: Committed) -> Committed | None:
        """The commit index, if the disk was not given it yet."""
        if committed.index <= self._told_commit:
            return None
        self._told_commit = committed.index
        return committed

    def lazy_commit(self, committed: Committed) -> Committed | None:
        """What a write that happens anyway may carry: only for entries that are durable already."""
        return self._news(committed) if committed.index <= self.durable_index else None

    def _release_without_batch(self) -> None:
        if self._pending:
            self._pending[-1].release.extend(self._release)
        else:
            for send in self._release:
                self._outbox.emit(send)
        self._release = []

    # ---- answers of the disk

    def complete(self, number: int, term: int, now: float) -> bool:
        """Everything up to batch `number` is durable. Emits what waited for it. Returns whether that is news."""
        assert number <= self._number, "no batch of that number was ever given out"
        news = False
        while self._pending and self._pending[0].number <= number:
            pending = self._pending.popleft()
            news = True
            self.durable_index = max(self.durable_index, pending.last_index)
            if pending.hard_state is not None:
                self.durable_hard_state = pending.hard_state
            for send in pending.release:
                if send.message.term == term:
                    self._outbox.emit(send)
        self.completed_at = max(self.completed_at, now)
        return news

    def probed(self, completed_at: float) -> None:
        """The driver's own write, once a second, completed then."""
        self._probed = True
        self.completed_at = max(self.completed_at, completed_at)

    def excuse(self, now: float) -> None:
        """The process did not run: the disk is not to blame."""
        self.completed_at = max(self.completed_at, now)

    def disk_age_s(self, now: float) -> float:
        """For how long the disk has completed nothing though it was given something. A driver that probes gives something always;
        without probes an idle disk has age 0."""
        if self._probed:
            return max(0.0, now - self.completed_at)
        if self._pending:
            return max(0.0, now - max(self.completed_at, self._pending[0].since))
        return 0.0

    def is_durable(self, hard_state: HardState) -> bool:
        """Whether this very term and vote are on disk."""
        return self.durable_hard_state == hard_state

    def check(self, hard_state: HardState) -> None:
        """Assert the invariants of this module."""
        assert self.durable_index <= self._log.last_index, "durable beyond the log"
        assert self.durable_hard_state.term <= hard_state.term, "a term that only the disk knows"
