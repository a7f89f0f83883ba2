"""Snapshots in chunks: whole and verified or not at all, and nobody who died half-way keeps the next sender out."""

from __future__ import annotations

import pytest
import trio

from swarm.drivers.replica_snapshots import BYTES_MAX, SENDERS_MAX, Chunk, SnapshotReceiver
from swarm.errors import BadMessage
from swarm.model.entry import Configuration, SnapshotMeta, Voter
from swarm.model.ids import NodeId
from swarm.wire.checksum import crc32c
from swarm.wire.codec import encode

DATA = b"catalog" * 100


def meta_of(data: bytes, *, length: int | None = None) -> SnapshotMeta:
    size = len(data) if length is None else length
    return SnapshotMeta(9, 2, Configuration((Voter("n", 1),)), 1, 0, 1.0, crc32c(data), size)


class Arrivals:
    def __init__(self) -> None:
        self.seen: list[tuple[NodeId, bytes]] = []
        self.receiver = SnapshotReceiver(lambda source, _, data: self.seen.append((source, data)))

    def chunk(self, source: str, offset: int, data: bytes, meta: SnapshotMeta | None = None) -> None:
        trio.run(self.receiver.on_chunk, NodeId(source), encode(Chunk(meta or meta_of(DATA), offset, data)))


def test_senders_that_died_half_way_do_not_keep_the_next_leader_out() -> None:
    arrivals = Arrivals()
    for number in range(SENDERS_MAX + 1):
        arrivals.chunk(f"dead{number}", 0, DATA[:10])
    arrivals.chunk("leader", 0, DATA[:300])
    arrivals.chunk("leader", 300, DATA[300:])
    assert arrivals.seen == [(NodeId("leader"), DATA)]


def test_a_sender_that_begins_again_gets_through() -> None:
    arrivals = Arrivals()
    arrivals.chunk("leader", 0, DATA[:10])
    arrivals.chunk("leader", 0, DATA)
    assert arrivals.seen == [(NodeId("leader"), DATA)]


def test_chunks_with_a_gap_or_too_many_bytes_or_wrong_bytes_give_nothing() -> None:
    arrivals = Arrivals()
    arrivals.chunk("leader", 0, DATA[:10])
    with pytest.raises(BadMessage):
        arrivals.chunk("leader", 11, DATA[11:])
    with pytest.raises(BadMessage):
        arrivals.chunk("leader", 0, DATA + b"x")
    with pytest.raises(BadMessage):
        arrivals.chunk("leader", 0, DATA[:-1] + b"x")
    with pytest.raises(BadMessage):
        arrivals.chunk("leader", 0, b"", meta_of(b"", length=BYTES_MAX + 1))
    assert arrivals.seen == []
