"""The log in memory: entries behind a snapshot, and the configurations among them.

Pure: no I/O, no clock, no randomness of its own. Entries are kept from `offset + 1` on; `offset` trails the snapshot a little so
that followers just behind it need no snapshot. A node that applies nothing any more has no further snapshot to compact with: it
lets go of what is committed and on its disk (`let_go`), and the offset runs ahead of the snapshot. A configuration is in force
from the moment its entry is appended and is out of force when that entry is truncated (Raft, section 6), so they stand on a
stack.

Invariants: indexes are consecutive; terms never fall; snapshot.index <= last_index; offset <= snapshot.index, or what was let go.
"""

from __future__ import annotations

from collections.abc import Sequence

from swarm.consensus.quorum import NO_VOTERS
from swarm.model.command import Found
from swarm.model.entry import KIND_CONFIGURATION, KIND_FOUND, Configuration, Entry, SnapshotMeta
from swarm.ports import SnapshotData
from swarm.wire.codec import decode_untrusted
from swarm.wire.limits import PAYLOAD_BYTES_MAX


def configuration_untrusted(entry: Entry) -> Configuration | None:
    """The configuration an entry brings, or None. Raises only `BadMessage`."""
    if entry.kind == KIND_CONFIGURATION:
        return decode_untrusted(entry.payload, Configuration, bytes_max=PAYLOAD_BYTES_MAX)
    if entry.kind == KIND_FOUND:
        return Configuration(decode_untrusted(entry.payload, Found, bytes_max=PAYLOAD_BYTES_MAX).voters)
    return None


class Log:
    """Entries, snapshot position and configurations. Every method is O(1) unless it says otherwise."""

    def __init__(self, entries: Sequence[Entry], snapshot: SnapshotMeta | None, snapshot_data: SnapshotData | None) -> None:
        self.snapshot: SnapshotMeta | None = None
        self.snapshot_data: SnapshotData | None = None
        self.offset = 0
        self._offset_term = 0
        self._offset_time_utc = 0.0
        self._let_go_to = 0
        self._entries: list[Entry] = []
        self._configurations: list[tuple[int, Configuration]] = []
        if snapshot is not None and snapshot_data is not None:
            self.reset(snapshot, snapshot_data)
        self.append(entries)

    @property
    def last_index(self) -> int:
        """Index of the newest entry; 0 when there never was one."""
        return self.offset + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._offset_term

    @property
    def last_time_utc(self) -> float:
        """Wall time of the newest entry; 0 when there never was one."""
        return self.time_at(self.last_index)

    @property
    def configuration(self) -> Configuration:
        """The configuration in force; without voters before the founding entry."""
        return self._configurations[-1][1] if self._configurations else NO_VOTERS

    @property
    def configuration_index(self) -> int:
        """Where the configuration in force was appended; 0 when there is none."""
        return self._configurations[-1][0] if self._configurations else 0

    def configuration_at(self, index: int) -> tuple[int, Configuration]:
        """(index, configuration) that was in force at `index`."""
        for at, configuration in reversed(self._configurations):
            if at <= index:
                return at, configuration
        return 0, NO_VOTERS

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`, or None when the log does not hold it (any more)."""
        if index == self.offset:
            return self._offset_term
        if self.offset < index <= self.last_index:
            return self._entries[index - self.offset - 1].term
        if self.snapshot and index == self.snapshot.index:
            return self.snapshot.term
        return None

    def time_at(self, index: int) -> float:
        """Wall time of an entry whose term is known here (see `term_at`); 0 before the first."""
        if self.snapshot and index == self.snapshot.index:
            return self.snapshot.time_utc
        assert self.offset <= index <= self.last_index
        return self._entries[index - self.offset - 1].time_utc if index > self.offset else self._offset_time_utc

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at `index` has this term: then everything before it is equal too (Log Matching, section 5.3)."""
        return self.term_at(index) == term

    def entry(self, index: int) -> Entry:
        return self._entries[index - self.offset - 1]

    def between(self, first: int, last: int) -> tuple[Entry, ...]:
        """Entries first..last, both included. O(their number)."""
        return tuple(self._entries[first - self.offset - 1 : last - self.offset])

    def batch(self, first: int, *, entries_max: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries from `first` on that make one message: always at least one, if there is one."""
        chosen: list[Entry] = []
        size_bytes = 0
        for entry in self._entries[first - self.offset - 1 : first - self.offset - 1 + entries_max]:
            size_bytes += len(entry.payload) + 100
            if chosen and size_bytes > bytes_max:
                break
            chosen.append(entry)
        return tuple(chosen)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries after the last. Raises `BadMessage` for a configuration that does not decode, before changing anything."""
        found = [(entry.index, configuration_untrusted(entry)) for entry in entries]
        assert not entries or entries[0].index == self.last_index + 1, "a log has no holes"
        self._entries.extend(entries)
        self._configurations.extend((index, configuration) for index, configuration in found if configuration is not None)

    def truncate(self, first: int) -> list[Entry]:
        """Drop the entries from `first` on, and their configurations; returns them."""
        assert first > self.offset, "what is compacted is committed"
        lost = self._entries[first - self.offset - 1 :]
        del self._entries[first - self.offset - 1 :]
        while self._configurations and self._configurations[-1][0] >= first:
            self._configurations.pop()
        return lost

    def conflict_hint(self, index: int, *, floor: int) -> int:
        """Where a leader should try next when `index` did not match: before the whole term that stands there. O(that term)."""
        hint = min(index, self.last_index)
        term = self.term_at(hint)
        while hint > floor and hint > self.offset and self.term_at(hint) == term:
            hint -= 1
        return max(hint, floor)

    def compact(self, meta: SnapshotMeta, data: SnapshotData, *, trailing: int) -> None:
        """A snapshot stands for everything up to its index; keep `trailing` entries behind it."""
        self.snapshot, self.snapshot_data = meta, data
        offset = max(self.offset, meta.index - trailing)
        term = self.term_at(offset)
        assert term is not None, "a snapshot lies within the log it stands for"
        self._begin_after(offset, term)
        kept = [pair for pair in self._configurations if pair[0] > meta.configuration_index]
        self._configurations = [(meta.configuration_index, meta.configuration), *kept]

    def let_go(self, upto: int, *, at_least: int) -> None:
        """Forget the entries up to `upto`, all committed and durable, but for the newest of the log;
        nothing when that is fewer than `at_least`. The disk keeps them, for the next start. Whoever leads never needs them of
        this node: a follower is asked for no more than terms behind its commit index."""
        upto = min(upto, self.last_index - 1)
        if upto - self.offset < max(at_least, 1):
            return
        self._begin_after(upto, self._entries[upto - self.offset - 1].term)
        self._let_go_to = upto

    def _begin_after(self, offset: int, term: int) -> None:
        self._offset_time_utc = self.time_at(offset)
        del self._entries[: offset - self.offset]
        self.offset, self._offset_term = offset, term

    def reset(self, meta: SnapshotMeta, data: SnapshotData) -> None:
        """Forget every entry: the log is this snapshot now."""
        self.snapshot, self.snapshot_data = meta, data
        self.offset, self._offset_term, self._offset_time_utc = meta.index, meta.term, meta.time_utc
        self._entries = []
        self._configurations = [(meta.configuration_index, meta.configuration)]

    def check(self) -> None:
        """Assert the invariants of this module. O(n)."""
        index, term = self.offset, self._offset_term
        for entry in self._entries:
            assert entry.index == index + 1 and entry.term >= term, f"entry {entry.index} after {index}"
            index, term = entry.index, entry.term
        assert self.snapshot is None or self.snapshot.index <= self.last_index
        assert self.snapshot is None or self.offset <= max(self.snapshot.index, self._let_go_to)
        places = [at for at, _ in self._configurations]
        assert places == sorted(places), "configurations stand in the order of their entries"
