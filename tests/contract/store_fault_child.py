"""Run under strace by the test beside it, which lets one sync fail: goes on writing as if nothing were, and says what came of it.

Argument: the folder, in which a store was never opened.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from swarm.adapters import store as adapter
from swarm.errors import StoreFailure
from swarm.model.entry import Entry
from swarm.ports import Batch


async def main(folder: Path) -> None:
    adapter.CHECKPOINT_BYTES = 1
    store, _ = adapter.open_store(folder)
    for number in range(1, 11):
        entry = Entry(number, 1, "task.reason", 1, b"x" * 500, 0, 0.0)
        try:
            await store.write([Batch(number, (entry,))])
            os.write(1, b"ACKNOWLEDGED %d\n" % number)
        except StoreFailure as failure:
            os.write(1, f"REFUSED {number} {failure}\n".encode())
    os._exit(0)


trio.run(main, Path(sys.argv[1]))
