"""The durable log, vote and snapshot: SQLite in WAL mode with synchronous=FULL, written by one thread.

Every commit is followed by a sync of the write-ahead log before `write` returns, and one transaction carries all batches that are
waiting (group commit): the hop to the thread costs as much as the sync. What a row looks like and how it is checked is in
`store_rows`.

What cannot be read back exactly is never used: the file is set aside and the store opens empty under a new **store generation**,
so that votes and acknowledgements given from the old one count no more and the node comes back as a learner. The generation lives
in a file of its own beside the database and is raised before a new database is made.

SQLite takes the first frame of its write-ahead log that does not match for the end of the log: a bit that flips there, or a log
that is cut or lost, would silently take back what was acknowledged. So transactions are numbered, and the number of the newest
one that was synced is noted in another file, which is not synced itself: a database that holds less than that is damaged.

Two kinds of failure are told apart. **No room**: SQLite found no room before it synced anything; the transaction is rolled back,
nothing of it is on disk, and the same write is tried again with the ballast's room, then given up (`StoreFull`) and may be tried
again later. **Everything else** (an I/O error, a failed sync)
is final: what is on disk is not known, and a second sync that succeeds would say nothing about what the first one lost. Space in
the log is taken back by our own checkpoints and not by SQLite's, whose failed syncs it does not report. After a start the log is
copied into the database at once, since pages that a failed sync left in the kernel's memory are not on the disk.

A snapshot is a file of its own (`snapshot_files`), whole and durable before a transaction here names it.

Promises kept here: `write` returns only when durable; after one final failure nothing is written any more; opening never returns
a row that does not match its checksum, nor less than was acknowledged.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import trio

from swarm.adapters import store_rows
from swarm.adapters.ballast import Ballast
from swarm.adapters.snapshot_files import FileSpool, SnapshotFolder
from swarm.adapters.store_file import DATABASE, GenerationFile, MarkFile, fsync_folder, set_aside
from swarm.adapters.store_rows import Damaged
from swarm.errors import BadMessage, StartRefused, StoreFailure, StoreFull
from swarm.ports import Batch, SnapshotData, Stored

CHECKPOINT_BYTES = 4 * 1024 * 1024
"""The write-ahead log is copied into the database after so much of it. Less: more syncs. More: a longer log."""
_TRANSACTION_BYTES = 3 * 4096
"""What one takes there beside its contents: it writes whole pages."""
_NOT_DAMAGE = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH,
})
"""The disk or the host refuses; what is in the file may be whole. Everything else SQLite raises while reading means damage."""


class SqliteStore:
    """Keeps `ports.Store`. Made by `open_store`; used by one driver.

    `write`, `probe` and `close` run in a worker thread behind a limiter of one. They are not abandoned on cancellation: the
    caller waits until the disk answers, since nobody could say otherwise what is on it.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        log: Path,
        mark: MarkFile,
        sequence: int,
        snapshots: SnapshotFolder,
        ballast: Ballast,
    ) -> None:
        """`log` is the path of the write-ahead log; `sequence` the number of the last transaction."""
        self._snapshots = snapshots
        self._connection = connection
        self._log = log
        self._mark = mark
        self._sequence = sequence
        self._limiter = trio.CapacityLimiter(1)
        self._failed: str | None = None
        self._logged_bytes = 0
        """Written to the log since it was last copied, about."""
        self._ballast = ballast
        self.room = ballast.room()
        """Looked at after each write."""

    async def write(self, batches: Sequence[Batch]) -> None:
        """Write all batches, in order, in one transaction, and sync. Raises `StoreFull`, having written nothing, or
        `StoreFailure`, after which nothing may be written."""
        await self._in_thread("write the log", lambda: self._write(batches))
        for batch in batches:
            if batch.snapshot is not None:
                self._snapshots.switched(batch.snapshot)

    async def probe(self) -> None:
        """A small durable write. Raises as `write`."""
        await self._in_thread("probe the disk", lambda: None)
        await self._snapshots.maybe_sweep()

    async def spool(self) -> FileSpool:
        """Begin to write a snapshot. Raises `Unavailable`."""
        return await self._snapshots.spool()

    async def read(self, data: SnapshotData, start: int, end: int) -> bytes:
        """A piece of a snapshot. Raises `Unavailable`."""
        return await self._snapshots.read(data, start, end)

    async def close(self) -> None:
        """Close the file; a last checkpoint is SQLite's business."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close, limiter=self._limiter)

    async def _in_thread(self, doing: str, action: Callable[[], None]) -> None:
        await trio.to_thread.run_sync(self._guarded, doing, action, limiter=self._limiter)

    def _guarded(self, doing: str, action: Callable[[], None]) -> None:
        if self._failed is not None:
            raise StoreFailure(f"cannot {doing}: an earlier write failed ({self._failed})")
        try:
            if not self._has_room_for(action) and not (self._ballast.release() and self._has_room_for(action)):
                self.room = self._ballast.room()
                raise StoreFull(f"cannot {doing}: no room on the disk of {self.room.where}")
            self._mark.write(self._sequence)
            self._maybe_checkpoint()
            self._ballast.follow()
            self.room = self._ballast.room()
        except (sqlite3.Error, OSError) as error:
            self._failed = f"{type(error).__name__}: {error}"
            raise StoreFailure(f"cannot {doing}: {self._failed}") from error

    def _has_room_for(self, action: Callable[[], None]) -> bool:
        """Carry it out. False: nothing of it was written, for want of room."""
        try:
            self._transact(action)
        except sqlite3.OperationalError as error:
            if not _is_full(error):
                raise
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return False
        return True

    def _transact(self, action: Callable[[], None]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        action()
        store_rows.put_sequence(self._connection, self._sequence + 1)
        self._connection.execute("COMMIT")
        self._sequence += 1
        self._logged_bytes += _TRANSACTION_BYTES

    def _write(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._logged_bytes += store_rows.write_batch(self._connection, batch)

    def _maybe_checkpoint(self) -> None:
        """Copy the log into the database when enough was written to it. Without room there it grows instead. Raises OSError when
        somebody has removed the log: what was written since is on no disk that is read again."""
        os.stat(self._log)
        if self._logged_bytes >= CHECKPOINT_BYTES and _checkpoint(self._connection, "PASSIVE"):
            self._logged_bytes = 0

    def _close(self) -> None:
        self._connection.close()
        self._mark.close()


def _is_full(error: sqlite3.Error) -> bool:
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_FULL


def _checkpoint(connection: sqlite3.Connection, kind: str) -> bool:
    """Whether everything in the write-ahead log is now in the database too, and synced there: not when it has no room for it."""
    try:
        connection.execute(f"PRAGMA wal_checkpoint({kind})").fetchone()
    except sqlite3.OperationalError as error:
        if not _is_full(error):
            raise
        return False
    return True


def open_store(folder: Path, *, trusted: bool = True, ballast_bytes: int = 0) -> tuple[SqliteStore, Stored]:
    """Open the store in `folder`, making or replacing it as needed. Blocks; reads everything. Raises `StoreFailure` when the disk
    refuses, never for damage: that is set aside and told by `Stored.store_generation`. So is one that is not `trusted`. Raises
    `StartRefused` for one of a newer program, which is left as it is. `ballast_bytes`: held in reserve, where there is room."""
    try:
        if not trusted:
            set_aside(folder, GenerationFile(folder).read(), "replaced")
        return _open(folder, ballast_bytes)
    except (OSError, sqlite3.Error) as error:
        raise StoreFailure(f"cannot open the store in {folder}: {type(error).__name__}: {error}") from error


def _open(folder: Path, ballast_bytes: int) -> tuple[SqliteStore, Stored]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    generation_file = GenerationFile(folder)
    generation = generation_file.read()
    if (folder / DATABASE).exists():
        connection = _connect(folder)
        try:
            return _opened(folder, connection, MarkFile(folder, generation), ballast_bytes)
        except (Damaged, BadMessage, sqlite3.DatabaseError, struct.error) as error:
            if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_DAMAGE:
                connection.close()
                raise
            set_aside(folder, generation, "damaged")
            connection.close()  # only now: it would tidy up what somebody may want to look at
    generation += 1
    generation_file.write(generation)
    connection = _connect(folder)
    _configure(connection)
    store_rows.create(connection, generation)
    return _opened(folder, connection, MarkFile(folder, generation), ballast_bytes)


def _opened(
    folder: Path, connection: sqlite3.Connection, mark: MarkFile, ballast_bytes: int
) -> tuple[SqliteStore, Stored]:
    """Verify, and make durable what is there: a write makes the write-ahead log's file, then its name is synced too."""
    _configure(connection)
    if (found := store_rows.schema(connection)) > store_rows.STORE_SCHEMA:
        connection.close()
        raise StartRefused(
            f"cannot open the store in {folder}",
            cause=f"a newer swarm wrote it: store schema {found}, this program knows {store_rows.STORE_SCHEMA}",
            hint="upgrade swarm on this host; nothing was changed, containers run on",
        )
    snapshots = SnapshotFolder(folder)
    stored = store_rows.load(connection, mark.generation, snapshots)
    sequence = store_rows.sequence(connection)
    if sequence < mark.read():
        raise Damaged(f"transaction {mark.read()} was synced, but {sequence} is the newest that is there")
    _checkpoint(connection, "TRUNCATE")
    ballast = Ballast(folder, ballast_bytes)
    store = SqliteStore(connection, folder / (DATABASE + "-wal"), mark, sequence, snapshots, ballast)
    snapshots.open(stored.snapshot)
    with suppress(StoreFull):
        store._guarded("open the store", lambda: None)
    fsync_folder(folder)
    return store, stored


def _connect(folder: Path) -> sqlite3.Connection:
    path = folder / DATABASE
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # before SQLite makes it, for everybody to read
    os.chmod(path, 0o600)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _configure(connection: sqlite3.Connection) -> None:
    """Exclusive: the index of the write-ahead log is kept in memory and not in a third file, which would need room to grow."""
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA temp_store=MEMORY")
