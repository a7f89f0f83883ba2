"""A snapshot on its way from one member to another: in chunks, each checksummed, resumed where it broke off.

Pure: no I/O, no clock, no randomness of its own. Every chunk names the whole snapshot it belongs to and where in it it stands,
and is answered with how much of that snapshot is there; an empty chunk only asks. A sender goes on from the answer, so that
neither a broken stream nor another sender (the same snapshot, byte for byte, may come from a new leader) begins from nothing.

Promises kept here: what is kept is a beginning of the snapshot without gap or overlap; a chunk that does not match its own
checksum changes nothing; a snapshot whose bytes do not match its description as a whole is never given on; at most `INTAKES_MAX`
are in the making, and the one begun first gives way, since senders that died do not say so.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from swarm.errors import BadMessage
from swarm.model.entry import SnapshotMeta
from swarm.wire.checksum import crc32c

BYTES_MAX = 1 << 30
INTAKES_MAX = 2
Position = Annotated[int, msgspec.Meta(ge=0, le=BYTES_MAX)]


class Chunk(msgspec.Struct, frozen=True, array_like=True):
    """A piece of the snapshot that `meta` describes. Without data it asks how much is there."""

    meta: SnapshotMeta
    offset: Position
    data: bytes
    crc32c: int | None = None
    """Of `data`. Programs before this field sent none."""


class Received(msgspec.Struct, frozen=True, array_like=True):
    """Answer to a chunk: everything before `position` is there; at the snapshot's length, it is whole and needed no more."""

    position: Position


def chunk_of(meta: SnapshotMeta, offset: int, data: bytes) -> Chunk:
    """A chunk with its checksum."""
    return Chunk(meta, offset, data, crc32c(data))


def check_length_untrusted(meta: SnapshotMeta) -> None:
    """Raises `BadMessage` for one that no member would send."""
    if not 0 <= meta.length <= BYTES_MAX:
        raise BadMessage(f"a snapshot of {meta.length} bytes: at most {BYTES_MAX}")


class Intake:
    """One snapshot in the making. Invariant: position <= meta.length."""

    def __init__(self, meta: SnapshotMeta) -> None:
        check_length_untrusted(meta)
        self.meta = meta
        self.position = 0
        self._checksum = 0

    @property
    def is_complete(self) -> bool:
        return self.position == self.meta.length

    def take(self, chunk: Chunk) -> bytes:
        """What of this chunk is to be appended; empty when it does not reach beyond what is there, or begins beyond it. Counts it
        as there: append it before anything else, or throw the intake away. Raises `BadMessage`, nothing changed."""
        if chunk.crc32c is not None and chunk.crc32c != crc32c(chunk.data):
            raise BadMessage(f"a chunk at {chunk.offset} that does not match its checksum")
        if chunk.offset + len(chunk.data) > self.meta.length:
            raise BadMessage("a chunk that reaches beyond its snapshot")
        if chunk.offset > self.position:
            return b""
        news = chunk.data[self.position - chunk.offset :]
        self.position += len(news)
        self._checksum = crc32c(news, self._checksum)
        return news

    def verify(self) -> None:
        """The last byte is there. Raises `BadMessage` when they are not the snapshot that was announced."""
        assert self.is_complete
        if self._checksum != self.meta.crc32c:
            raise BadMessage("a snapshot that does not match its checksum")


class Intakes:
    """All snapshots in the making here, by what describes them, in the order they were begun."""

    def __init__(self) -> None:
        self._intakes: dict[SnapshotMeta, Intake] = {}

    def find(self, meta: SnapshotMeta) -> Intake | None:
        return self._intakes.get(meta)

    def begin(self, meta: SnapshotMeta) -> tuple[Intake, list[Intake]]:
        """A new one, and those that give way to it. Raises `BadMessage`, nothing changed."""
        intake = Intake(meta)
        dropped = []
        while len(self._intakes) >= INTAKES_MAX:
            dropped.append(self._intakes.pop(next(iter(self._intakes))))
        self._intakes[meta] = intake
        return intake, dropped

    def end(self, intake: Intake) -> bool:
        """Forget it: it is whole, or damaged. Returns whether it was known."""
        return self._intakes.pop(intake.meta, None) is not None

    def overtaken(self, index: int) -> list[Intake]:
        """Forget, and return, those that stand for no more than what is committed here."""
        past = [intake for intake in self._intakes.values() if intake.meta.index <= index]
        for intake in past:
            self.end(intake)
        return past
