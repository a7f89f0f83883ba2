"""Runs the reader of the archive (`past.py`) for one question at a time, in a process of its own.

Promises: one process at a time, others wait their turn within the caller's bound; one whose asker has gone is ended; whatever
becomes of it is an `OperatorError` of that one question.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import trio

import swarm
from swarm.errors import NotFound, OperatorError, Overloaded, UsageError
from swarm.model.archived import Question

_ERRORS: dict[str, type[OperatorError]] = {"not_found": NotFound, "invalid": UsageError, "overloaded": Overloaded}
_SOURCE = Path(swarm.__file__).resolve().parents[1]
_COMPLAINT_CHARS = 300


class PastReader:
    """Keeps `drivers.archiving.Reader`."""

    def __init__(self, folder: Path, cluster_id: str) -> None:
        self._folder = folder
        self._cluster_id = cluster_id
        self._turn = trio.CapacityLimiter(1)

    async def ask(self, question: Question) -> bytes:
        """The answer, as JSON. Takes some 0.3 s and as long as the rebuild; bound it. Raises `OperatorError`."""
        command = [sys.executable, "-m", "swarm.adapters.past", str(self._folder), self._cluster_id]
        async with self._turn:
            done = await trio.run_process(
                command, stdin=msgspec.json.encode(question), capture_stdout=True, capture_stderr=True, check=False,
                cwd=_SOURCE, deliver_cancel=_end,
            )  # fmt: skip
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-_COMPLAINT_CHARS:]
            raise Overloaded(
                "the question about the past was not answered",
                cause=f"its reader ended with {done.returncode}: {said}", hint="ask for less, or again",
            )  # fmt: skip
        return unpacked(done.stdout)


def unpacked(reply: bytes) -> bytes:
    """The answer in a reply, still as JSON. Raises the error that the reply is."""
    found: dict[str, msgspec.Raw] = msgspec.json.decode(reply, type=dict[str, msgspec.Raw])
    if "ok" in found:
        return bytes(found["ok"])
    error: dict[str, Any] = msgspec.json.decode(found["error"])
    raise _ERRORS.get(error["code"], OperatorError)(error["message"], cause=error["cause"], hint=error["hint"])


async def _end(process: trio.Process) -> None:
    """Nobody waits for it any more, and it only reads."""
    process.send_signal(signal.SIGKILL)
