"""A small file that is replaced whole: what this node held, kept for its next start.

Written beside, synced, renamed, the folder synced: after a power cut the file is the old one or the new one. Missing or
unreadable content means that nothing is remembered, which costs a wait for the leader and nothing else. For its owner only: what
is held names the environment of its containers.
"""

from __future__ import annotations

import os
from pathlib import Path

import trio

from swarm.errors import BadMessage
from swarm.runner.copies import Holdings
from swarm.wire.codec import decode_untrusted

BYTES_MAX = 64 * 1024 * 1024
_WRITER = trio.CapacityLimiter(1)


class MemoryFile:
    """Keeps `drivers.runner.Memory`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> Holdings | None:
        """What was saved last, or None. Blocking, once at the start."""
        try:
            return decode_untrusted(self._path.read_bytes(), Holdings, bytes_max=BYTES_MAX)
        except (OSError, BadMessage):
            return None

    async def save(self, data: bytes) -> None:
        """Abandoned, the write goes on and the next one waits for it. Raises OSError."""
        await trio.to_thread.run_sync(self._save, data, limiter=_WRITER, abandon_on_cancel=True)

    def _save(self, data: bytes) -> None:
        beside = self._path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        beside.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
