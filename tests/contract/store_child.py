"""Run under strace by the test beside it: writes batches and says on its standard output when each is acknowledged.

Arguments: the folder, and `full` or `off` (the store as it is, or broken on purpose: it commits without a sync).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from swarm.adapters.store import open_store
from swarm.model.entry import Entry, HardState
from swarm.ports import Batch


async def main(folder: Path, synchronous: str) -> None:
    store, _ = open_store(folder)
    if synchronous == "off":
        store._connection.execute("PRAGMA synchronous=OFF")
    for number in range(1, 11):
        entry = Entry(number, 1, "task.reason", 1, b"x" * 500, 0, 0.0)
        await store.write([Batch(number, (entry,), hard_state=HardState(0, number, "a"))])
        os.write(1, b"ACKNOWLEDGED %d\n" % number)
    await store.probe()
    os.write(1, b"ACKNOWLEDGED probe\n")
    await store.close()


trio.run(main, Path(sys.argv[1]), sys.argv[2])
