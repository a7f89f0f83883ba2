"""The durable log, vote and snapshot: SQLite in WAL mode with synchronous=FULL, written by one thread.

Every commit is followed by a sync of the write-ahead log before `write` returns, and one transaction carries all batches that are
waiting (group commit): the hop to the thread costs as much as the sync. Every row carries a CRC32C over its key and content; log
rows are chained, each checksum continuing from the row before, so that a row lost or swapped is found as well as a flipped bit.

What cannot be read back exactly is never used: the file is set aside and the store opens empty under a new **store generation**,
so that votes and acknowledgements given from the old one count no more and the node comes back as a learner. The generation lives
in a file of its own beside the database and is raised before a new database is made.

Promises kept here: `write` returns only when durable; after one failure nothing is written any more (a failed sync is never
retried as if it had not happened); opening never returns a row that does not match its checksum. Not found here: damage inside
the write-ahead log of a process that was killed, which SQLite takes for its end; and there is no ballast against a full disk.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import trio

from swarm.adapters.store_file import (
    DATABASE,
    GenerationFile,
    fsync_folder,
    set_aside,
)
from swarm.errors import BadMessage, StoreFailure
from swarm.model.entry import Entry, HardState, SnapshotMeta
from swarm.ports import Batch, Stored
from swarm.wire.checksum import crc32c
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import PAYLOAD_BYTES_MAX

_ROW_BYTES_MAX = PAYLOAD_BYTES_MAX + 4096
_SCHEMA = """
CREATE TABLE log (position INTEGER PRIMARY KEY, content BLOB NOT NULL, chain INTEGER NOT NULL);
CREATE TABLE fact (name TEXT PRIMARY KEY, content BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
"""
_NOT_DAMAGE = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
})
"""The disk or the host refuses; what is in the file may be whole. Everything else SQLite raises while reading means damage."""


class Damaged(Exception):
    """The file does not hold what was written to it."""


class _Anchor(msgspec.Struct, frozen=True, array_like=True):
    """The row before the first: its index, and the checksum that the first row continues from."""

    index: int = 0
    chain: int = 0


def _chain(previous: int, index: int, content: bytes) -> int:
    return crc32c(content, crc32c(struct.pack(">Q", index), previous))


class SqliteStore:
    """Keeps `ports.Store`. Made by `open_store`; used by one driver.

    `write`, `probe` and `close` run in a worker thread behind a limiter of one. They are not abandoned on cancellation: the
    caller waits until the disk answers, since nobody could say otherwise what is on it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._limiter = trio.CapacityLimiter(1)
        self._failed: str | None = None
        self._probes = 0

    async def write(self, batches: Sequence[Batch]) -> None:
        """Write all batches, in order, in one transaction, and sync. Raises `StoreFailure`; nothing may be written after that."""
        await self._in_thread("write the log", lambda: self._write(batches))

    async def probe(self) -> None:
        """A small durable write. Raises `StoreFailure`."""
        await self._in_thread("probe the disk", self._probe)

    async def close(self) -> None:
        """Close the file; a last checkpoint is SQLite's business."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._connection.close, limiter=self._limiter)

    async def _in_thread(self, doing: str, action: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(self._guarded, doing, action, limiter=self._limiter)

    def _guarded(self, doing: str, action: Callable[[], None]) -> None:
        if self._failed is not None:
            raise StoreFailure(f"cannot {doing}: an earlier write failed ({self._failed})")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            action()
            self._connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            self._failed = f"{type(error).__name__}: {error}"
            raise StoreFailure(f"cannot {doing}: {self._failed}") from error

    def _probe(self) -> None:
        self._probes += 1
        _put(self._connection, "probe", encode(self._probes))

    def _write(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if batch.snapshot is not None:
                assert batch.snapshot_data is not None, "a snapshot has data"
                self._write_snapshot(batch.snapshot, batch.snapshot_data, discard=batch.discard_log)
            if batch.truncate_from:
                self._connection.execute("DELETE FROM log WHERE position >= ?", (batch.truncate_from,))
            if batch.entries:
                self._append(batch.entries)
            if batch.hard_state is not None:
                _put(self._connection, "hard", encode(batch.hard_state))

    def _write_snapshot(self, meta: SnapshotMeta, data: bytes, *, discard: bool) -> None:
        anchor = _Anchor(meta.index, 0 if discard else self._chain_at(meta.index))
        _put(self._connection, "snapshot", encode(meta))
        _put(self._connection, "snapshot data", data)
        _put(self._connection, "anchor", encode(anchor))
        if discard:
            self._connection.execute("DELETE FROM log")
        else:
            self._connection.execute("DELETE FROM log WHERE position <= ?", (meta.index,))

    def _append(self, entries: Sequence[Entry]) -> None:
        chain = self._chain_at(entries[0].index - 1)
        rows = []
        for entry in entries:
            content = encode(entry)
            chain = _chain(chain, entry.index, content)
            rows.append((entry.index, content, chain))
        self._connection.executemany("INSERT INTO log VALUES (?, ?, ?)", rows)

    def _chain_at(self, index: int) -> int:
        row = self._connection.execute("SELECT chain FROM log WHERE position = ?", (index,)).fetchone()
        if row is not None:
            return int(row[0])
        anchor = _anchor(self._connection)
        return anchor.chain if anchor.index == index else 0


def open_store(folder: Path, *, trusted: bool = True) -> tuple[SqliteStore, Stored]:
    """Open the store in `folder`, making or replacing it as needed. Blocks; reads everything. Raises `StoreFailure` when the disk
    refuses, never for damage: that is set aside and told by `Stored.store_generation`. So is one that is not `trusted`."""
    try:
        if not trusted:
            set_aside(folder, GenerationFile(folder).read())
        return _open(folder)
    except (OSError, sqlite3.Error) as error:
        raise StoreFailure(f"cannot open the store in {folder}: {type(error).__name__}: {error}") from error


def _open(folder: Path) -> tuple[SqliteStore, Stored]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    generation_file = GenerationFile(folder)
    generation = generation_file.read()
    path = folder / DATABASE
    if path.exists():
        connection = _connect(path)
        try:
            stored = _load(connection, generation)
            _sync_once(connection, folder)
            return SqliteStore(connection), stored
        except (Damaged, BadMessage, sqlite3.DatabaseError, struct.error) as error:
            connection.close()
            if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_DAMAGE:
                raise
            set_aside(folder, generation)
    generation += 1
    generation_file.write(generation)
    connection = _create(path, generation)
    _sync_once(connection, folder)
    return SqliteStore(connection), _load(connection, generation)


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # before SQLite makes it, for everybody to read
    os.chmod(path, 0o600)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=1000")


def _create(path: Path, generation: int) -> sqlite3.Connection:
    connection = _connect(path)
    _configure(connection)
    connection.executescript("BEGIN;" + _SCHEMA + "COMMIT;")
    connection.execute("BEGIN IMMEDIATE")
    _put(connection, "generation", encode(generation))
    _put(connection, "hard", encode(HardState()))
    _put(connection, "anchor", encode(_Anchor()))
    connection.execute("COMMIT")
    return connection


def _sync_once(connection: sqlite3.Connection, folder: Path) -> None:
    """One durable write makes the write-ahead log's file; then its name is made durable too."""
    connection.execute("BEGIN IMMEDIATE")
    _put(connection, "probe", encode(0))
    connection.execute("COMMIT")
    fsync_folder(folder)


def _put(connection: sqlite3.Connection, name: str, content: bytes) -> None:
    checksum = crc32c(content, crc32c(name.encode()))
    connection.execute("INSERT OR REPLACE INTO fact VALUES (?, ?, ?)", (name, content, checksum))


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


def _load(connection: sqlite3.Connection, generation: int) -> Stored:
    """Read and verify everything. Raises `Damaged`, `BadMessage` or what SQLite raises. O(size of the store)."""
    _configure(connection)
    if decode_untrusted(_need(connection, "generation"), int, bytes_max=64) != generation:
        raise Damaged("the file is not the one that was last made here")
    hard_state = decode_untrusted(_need(connection, "hard"), HardState, bytes_max=4096)
    packed = _get(connection, "snapshot")
    snapshot = decode_untrusted(packed, SnapshotMeta, bytes_max=_ROW_BYTES_MAX) if packed is not None else None
    data = _need(connection, "snapshot data") if snapshot is not None else None
    if snapshot is not None and data is not None and (len(data), crc32c(data)) != (snapshot.length, snapshot.crc32c):
        raise Damaged("the snapshot does not match its description")
    anchor = _anchor(connection)
    if anchor.index != (snapshot.index if snapshot else 0):
        raise Damaged("the log does not begin where the snapshot ends")
    return Stored(generation, hard_state, _load_log(connection, anchor), snapshot, data)


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
