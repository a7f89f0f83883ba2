"""Run under strace by the test beside it: spools a snapshot in two pieces, names it, and switches the log to it.

Arguments: the folder; then, to break it on purpose, which of `fdatasync`, `fsync` and `fsync_folder` of the module do nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import trio

from swarm.adapters import snapshot_files
from swarm.adapters.store import open_store
from swarm.model.entry import Configuration, Entry, HardState, SnapshotMeta, Voter
from swarm.ports import Batch
from swarm.wire.checksum import crc32c

PIECES = (b"one piece " * 5_000, b"the last " * 5_000)


def leave_out(name: str) -> None:
    if name == "fsync_folder":
        snapshot_files.fsync_folder = lambda folder: None
    else:
        snapshot_files.os = SimpleNamespace(**{**vars(snapshot_files.os), name: lambda descriptor: None})  # type: ignore[attr-defined]


async def main(folder: Path, *left_out: str) -> None:
    store, _ = open_store(folder)
    entries = tuple(Entry(index, 1, "task.reason", 1, b"x" * 500, 0, 0.0) for index in range(1, 10))
    await store.write([Batch(1, entries, hard_state=HardState(0, 1, "a"))])
    for name in left_out:
        leave_out(name)
    os.write(1, b"BEGINS\n")
    spool = await store.spool()
    for piece in PIECES:
        await spool.append(piece)
    whole = b"".join(PIECES)
    meta = SnapshotMeta(6, 1, Configuration((Voter("a", 1),)), 1, 0, 6.0, crc32c(whole), len(whole))
    data = await spool.finish(meta)
    await store.write([Batch(2, snapshot=meta, snapshot_data=data)])
    os.write(1, b"SWITCHED\n")
    await store.close()


trio.run(main, Path(sys.argv[1]), *sys.argv[2:])
