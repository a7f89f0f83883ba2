"""What stands in the store's database: log rows and facts, each with its checksum, and how they are read back.

A fact is a name and its content. Log rows are chained: the checksum of one continues from the row before, so that a row lost or
swapped is found as well as a flipped bit. The anchor is the row before the first.

Promise: `load` returns only what matches every checksum, in an order without holes, and at least as much as is known to be
committed; else it raises `Damaged` or `BadMessage`.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence

import msgspec

from swarm.adapters.snapshot_files import SnapshotFile, SnapshotFolder
from swarm.model.entry import Committed, Entry, HardState, SnapshotMeta
from swarm.ports import Batch, SnapshotData, Stored
from swarm.wire.checksum import crc32c
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import PAYLOAD_BYTES_MAX

_ROW_BYTES_MAX = PAYLOAD_BYTES_MAX + 4096
_SCHEMA = """
CREATE TABLE log (position INTEGER PRIMARY KEY, content BLOB NOT NULL, chain INTEGER NOT NULL);
CREATE TABLE fact (name TEXT PRIMARY KEY, content BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
"""
_SEQUENCE = "probe"
"""The fact that counts transactions; named for what it was first made for."""


STORE_SCHEMA = 2
"""Since 2 a snapshot may be a file beside the database. Of everything in the database. A program that writes what this one would
misread raises it, in the fact `schema`, before it writes the first of it. Missing where nothing said so yet: 1."""


class Damaged(Exception):
    """The file does not hold what was written to it."""


class _Anchor(msgspec.Struct, frozen=True, array_like=True):
    """The row before the first: its index, and the checksum that the first row continues from."""

    index: int = 0
    chain: int = 0


def _chain(previous: int, index: int, content: bytes) -> int:
    return crc32c(content, crc32c(struct.pack(">Q", index), previous))


# ---- writing, inside a transaction of the caller's ------------------------------------------------------------------------


def create(connection: sqlite3.Connection, generation: int) -> None:
    """Tables and facts of an empty store."""
    connection.executescript("BEGIN;" + _SCHEMA + "COMMIT;")
    connection.execute("BEGIN IMMEDIATE")
    _put(connection, "generation", encode(generation))
    _put(connection, "hard", encode(HardState()))
    _put(connection, "anchor", encode(_Anchor()))
    _put(connection, "schema", encode(1))
    connection.execute("COMMIT")


def put_sequence(connection: sqlite3.Connection, number: int) -> None:
    """Number this transaction."""
    _put(connection, _SEQUENCE, encode(number))


def write_batch(connection: sqlite3.Connection, batch: Batch) -> int:
    """Everything a batch says, in the order in which `ports.Batch` means it. Returns how many bytes of content that is."""
    size_bytes = 0
    if batch.snapshot is not None:
        assert batch.snapshot_data is not None, "a snapshot has data"
        size_bytes += _write_snapshot(connection, batch.snapshot, batch.snapshot_data, discard=batch.discard_log)
    if batch.truncate_from:
        connection.execute("DELETE FROM log WHERE position >= ?", (batch.truncate_from,))
    if batch.entries:
        size_bytes += _append(connection, batch.entries)
    if batch.hard_state is not None:
        _put(connection, "hard", encode(batch.hard_state))
    if batch.committed is not None:
        _put(connection, "committed", encode(batch.committed))
    return size_bytes


def _write_snapshot(connection: sqlite3.Connection, meta: SnapshotMeta, data: SnapshotData, *, discard: bool) -> int:
    """A snapshot in a file is only named here. Returns how many bytes of content were written."""
    anchor = _Anchor(meta.index, 0 if discard else _chain_at(connection, meta.index))
    _put(connection, "snapshot", encode(meta))
    inside = b"" if isinstance(data, SnapshotFile) else data[:]
    if isinstance(data, SnapshotFile):
        connection.execute("DELETE FROM fact WHERE name = 'snapshot data'")
        _put(connection, "schema", encode(STORE_SCHEMA))
    else:
        _put(connection, "snapshot data", inside)
    _put(connection, "anchor", encode(anchor))
    if discard:
        connection.execute("DELETE FROM log")
    else:
        connection.execute("DELETE FROM log WHERE position <= ?", (meta.index,))
    return len(inside)


def _append(connection: sqlite3.Connection, entries: Sequence[Entry]) -> int:
    chain = _chain_at(connection, entries[0].index - 1)
    rows = []
    for entry in entries:
        content = encode(entry)
        chain = _chain(chain, entry.index, content)
        rows.append((entry.index, content, chain))
    connection.executemany("INSERT INTO log VALUES (?, ?, ?)", rows)
    return sum(len(content) for _, content, _ in rows)


def _chain_at(connection: sqlite3.Connection, index: int) -> int:
    row = connection.execute("SELECT chain FROM log WHERE position = ?", (index,)).fetchone()
    if row is not None:
        return int(row[0])
    anchor = _anchor(connection)
    return anchor.chain if anchor.index == index else 0


def _put(connection: sqlite3.Connection, name: str, content: bytes) -> None:
    checksum = crc32c(content, crc32c(name.encode()))
    connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", (name, content, checksum))


# ---- reading back ---------------------------------------------------------------------------------------------------------


def _get(connection: sqlite3.Connection, name: str) -> bytes | None:
    row = connection.execute("SELECT content, checksum FROM fact WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    content, checksum = row
    if not isinstance(content, bytes) or crc32c(content, crc32c(name.encode())) != checksum:
        raise Damaged(f"'{name}' does not match its checksum")
    return content


def _need(connection: sqlite3.Connection, name: str) -> bytes:
    content = _get(connection, name)
    if content is None:
        raise Damaged(f"'{name}' is missing")
    return content


def _anchor(connection: sqlite3.Connection) -> _Anchor:
    return decode_untrusted(_need(connection, "anchor"), _Anchor, bytes_max=64)


def schema(connection: sqlite3.Connection) -> int:
    """The schema that this store was written under. Raises `Damaged`, `BadMessage` or what SQLite raises."""
    content = _get(connection, "schema")
    return decode_untrusted(content, int, bytes_max=64) if content is not None else 1


def sequence(connection: sqlite3.Connection) -> int:
    """The number of the newest transaction; 0 in a store that counted none."""
    content = _get(connection, _SEQUENCE)
    return decode_untrusted(content, int, bytes_max=64) if content is not None else 0


def load(connection: sqlite3.Connection, generation: int, snapshots: SnapshotFolder) -> Stored:
    """Read and verify everything. Raises `Damaged`, `BadMessage` or what SQLite raises. O(size of the store)."""
    if decode_untrusted(_need(connection, "generation"), int, bytes_max=64) != generation:
        raise Damaged("the file is not the one that was last made here")
    hard_state = decode_untrusted(_need(connection, "hard"), HardState, bytes_max=4096)
    packed = _get(connection, "snapshot")
    snapshot = decode_untrusted(packed, SnapshotMeta, bytes_max=_ROW_BYTES_MAX) if packed is not None else None
    data = _load_snapshot(connection, snapshot, snapshots) if snapshot is not None else None
    anchor = _anchor(connection)
    if anchor.index != (snapshot.index if snapshot else 0):
        raise Damaged("the log does not begin where the snapshot ends")
    entries = _load_log(connection, anchor)
    return Stored(generation, hard_state, entries, snapshot, data, _load_committed(connection, anchor, entries))


def _load_snapshot(connection: sqlite3.Connection, meta: SnapshotMeta, snapshots: SnapshotFolder) -> SnapshotData:
    """In its file; or in the database itself, where programs before files kept it."""
    inside = _get(connection, "snapshot data")
    if inside is None:
        data = snapshots.load(meta)
        if data is None:
            raise Damaged("the snapshot's file is missing or does not match its description")
        return data
    if (len(inside), crc32c(inside)) != (meta.length, meta.crc32c):
        raise Damaged("the snapshot does not match its description")
    return inside


def _load_committed(connection: sqlite3.Connection, anchor: _Anchor, entries: Sequence[Entry]) -> Committed:
    """What is known to be committed, which must be there."""
    packed = _get(connection, "committed")
    if packed is None:
        return Committed()
    committed = decode_untrusted(packed, Committed, bytes_max=64)
    if committed.index > anchor.index + len(entries):
        raise Damaged(f"entry {committed.index} was committed, but the log ends at {anchor.index + len(entries)}")
    if committed.index > anchor.index and entries[committed.index - anchor.index - 1].term != committed.term:
        raise Damaged(f"entry {committed.index} was committed in another term")
    return committed


def _load_log(connection: sqlite3.Connection, anchor: _Anchor) -> tuple[Entry, ...]:
    entries = []
    index, chain = anchor.index, anchor.chain
    for position, content, found in connection.execute("SELECT position, content, chain FROM log ORDER BY position"):
        index += 1
        if position != index or not isinstance(content, bytes):
            raise Damaged(f"the log has {position} where {index} should be")
        chain = _chain(chain, index, content)
        if chain != found:
            raise Damaged(f"log row {index} does not match its checksum")
        entries.append(decode_untrusted(content, Entry, bytes_max=_ROW_BYTES_MAX))
    return tuple(entries)
