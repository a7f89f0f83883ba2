"""Queued submits on disk: one small file each, replaced whole, with a checksum over its content.

Written beside, synced, renamed, the folder synced: after a power cut a submit is there or not, and one that was acknowledged is.
A file that does not match its checksum is set aside under another name and counted: what was in it cannot be known.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import trio

from swarm.adapters.store_file import fsync_folder
from swarm.errors import BadMessage
from swarm.model.ids import RequestId
from swarm.model.queued import QueuedSubmit
from swarm.wire.checksum import crc32c
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import PAYLOAD_BYTES_MAX

FOLDER = "queue"
SUFFIX = ".submit"
_HEAD = struct.Struct(">I")


def queued_files(folder: str | Path) -> list[Path]:
    """Of a data folder: one per submit that is queued here. Blocking."""
    return sorted(Path(folder, FOLDER).glob(f"*{SUFFIX}"))


class QueueFolder:
    """Keeps `drivers.submit_queue.QueueFiles`."""

    def __init__(self, folder: Path) -> None:
        self._data = folder
        self._folder = folder / FOLDER
        self._writer = trio.CapacityLimiter(1)
        self.damaged = 0
        """Files that were found damaged since the folder was made, and are still there."""

    def load(self) -> list[QueuedSubmit]:
        """Every whole one. Blocking, once at the start."""
        found = []
        for path in queued_files(self._data):
            try:
                found.append(_unpacked(path.read_bytes()))
            except (BadMessage, OSError):
                with suppress(OSError):
                    path.rename(path.with_suffix(".damaged"))
        self.damaged = len(list(self._folder.glob("*.damaged")))
        return found

    async def save(self, record: QueuedSubmit) -> None:
        """Durable when it returns. Not abandoned on cancellation. Raises OSError: then it is not kept."""
        await trio.to_thread.run_sync(self._save, record, limiter=self._writer)

    async def drop(self, request_id: RequestId) -> None:
        """Forget one. Raises OSError."""
        await trio.to_thread.run_sync(self._drop, request_id, limiter=self._writer)

    def _path(self, request_id: RequestId) -> Path:
        return self._folder / (request_id + SUFFIX)

    def _save(self, record: QueuedSubmit) -> None:
        if not self._folder.exists():
            self._folder.mkdir(mode=0o700)
            fsync_folder(self._folder.parent)
        path = self._path(record.request_id)
        existed = path.exists()
        beside = path.with_suffix(".new")
        content = encode(record)
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as handle:
                handle.write(_HEAD.pack(crc32c(content)) + content)
                handle.flush()
                os.fsync(handle.fileno())
            beside.rename(path)
            fsync_folder(self._folder)
        except OSError:
            for leftover in (beside,) if existed else (beside, path):
                with suppress(OSError):
                    leftover.unlink()
            raise

    def _drop(self, request_id: RequestId) -> None:
        with suppress(FileNotFoundError):
            self._path(request_id).unlink()
            fsync_folder(self._folder)


def _unpacked(data: bytes) -> QueuedSubmit:
    """Raises `BadMessage`."""
    content = data[_HEAD.size :]
    if len(data) < _HEAD.size or _HEAD.unpack(data[: _HEAD.size])[0] != crc32c(content):
        raise BadMessage("a queued submit does not match its checksum")
    return decode_untrusted(content, QueuedSubmit, bytes_max=PAYLOAD_BYTES_MAX)
