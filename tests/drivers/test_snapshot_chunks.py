"""Snapshots in chunks: whole and verified or not at all, resumed where they broke off, and nobody who died half-way keeps the
next sender out (PROTOCOLS S10, L5, L6)."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from swarm.consensus.transfer import BYTES_MAX, INTAKES_MAX, Chunk, Received, chunk_of
from swarm.drivers.replica_snapshots import CALL, TRANSFERS_MAX, SnapshotReceiver, SnapshotSender
from swarm.errors import BadMessage, Unavailable
from swarm.model.entry import Configuration, SnapshotMeta, Voter
from swarm.model.ids import NodeId
from swarm.ports import SnapshotData
from swarm.wire.checksum import crc32c
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import SNAPSHOT_CHUNK_BYTES
from tests.fakes.memory_peers import MemoryNetwork
from tests.fakes.memory_store import MemoryStore

DATA = b"catalog" * 100
LARGE = bytes(range(256)) * (SNAPSHOT_CHUNK_BYTES // 64)
LEADER, OTHER, FOLLOWER = NodeId("leader"), NodeId("other"), NodeId("follower")


def meta_of(data: bytes, *, index: int = 9, length: int | None = None) -> SnapshotMeta:
    size = len(data) if length is None else length
    return SnapshotMeta(index, 2, Configuration((Voter("n", 1),)), 1, 0, 1.0, crc32c(data), size)


class Follower:
    """A receiver, what arrived at it, and what is committed there."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.seen: list[tuple[NodeId, int, bytes]] = []
        self.commit_index = 0
        self.has_room_for = BYTES_MAX
        self.receiver = SnapshotReceiver(
            self.store, wanted=self.wanted, arrived=self.arrived, make_sure_of_room=self.make_sure_of_room
        )

    def wanted(self, meta: SnapshotMeta) -> bool:
        return meta.index > self.commit_index

    def make_sure_of_room(self, meta: SnapshotMeta) -> None:
        if meta.length > self.has_room_for:
            raise Unavailable("cannot take a snapshot", cause="there is no room")

    def arrived(self, source: NodeId, meta: SnapshotMeta, data: SnapshotData) -> None:
        self.seen.append((source, meta.index, data[:]))
        self.commit_index = max(self.commit_index, meta.index)

    async def chunk(self, source: str, offset: int, data: bytes, meta: SnapshotMeta | None = None) -> int:
        return await self.give(source, chunk_of(meta or meta_of(DATA), offset, data))

    async def give(self, source: str, chunk: Chunk) -> int:
        answer = await self.receiver.on_chunk(NodeId(source), encode(chunk))
        return decode_untrusted(answer, Received, bytes_max=64).position


async def test_senders_that_died_half_way_do_not_keep_the_next_leader_out() -> None:
    follower = Follower()
    for number in range(INTAKES_MAX + 1):
        await follower.chunk(f"dead{number}", 0, DATA[:10], meta_of(DATA, index=number + 1))
    assert len(follower.store.spools) == INTAKES_MAX, "what gave way is not kept on the disk"
    await follower.chunk("leader", 0, DATA[:300])
    await follower.chunk("leader", 300, DATA[300:])
    assert follower.seen == [(LEADER, 9, DATA)]
    assert follower.store.spools == [], "older ones are not waited for any more"


async def test_a_question_says_how_much_is_there_and_changes_nothing() -> None:
    follower = Follower()
    assert await follower.chunk("leader", 0, b"") == 0
    assert await follower.chunk("leader", 0, DATA[:10]) == 10
    assert await follower.chunk("leader", 0, b"") == 10


async def test_chunks_that_overlap_or_leave_a_gap_add_only_what_follows() -> None:
    follower = Follower()
    await follower.chunk("leader", 0, DATA[:100])
    assert await follower.chunk("leader", 150, DATA[150:]) == 100, "a gap is not filled with what comes after it"
    assert await follower.chunk("leader", 0, DATA[:50]) == 100
    assert await follower.chunk("leader", 60, DATA[60:200]) == 200
    assert await follower.chunk("leader", 200, DATA[200:]) == len(DATA)
    assert follower.seen == [(LEADER, 9, DATA)]


async def test_a_damaged_chunk_changes_nothing_and_the_right_one_goes_on() -> None:
    follower = Follower()
    await follower.chunk("leader", 0, DATA[:100])
    with pytest.raises(BadMessage, match="checksum"):
        await follower.give("leader", Chunk(meta_of(DATA), 100, DATA[100:], crc32c(DATA[100:]) ^ 1))
    assert await follower.chunk("leader", 100, DATA[100:]) == len(DATA)
    assert follower.seen == [(LEADER, 9, DATA)]


async def test_a_snapshot_whose_bytes_are_not_what_was_announced_is_never_given_on() -> None:
    follower = Follower()
    for chunk in (Chunk(meta_of(DATA), 0, DATA[:-1] + b"x"), chunk_of(meta_of(DATA), 0, DATA + b"x")):
        with pytest.raises(BadMessage):
            await follower.give("leader", chunk)
    with pytest.raises(BadMessage, match="at most"):
        await follower.give("leader", Chunk(meta_of(b"", length=BYTES_MAX + 1), 0, b""))
    assert follower.seen == []
    assert await follower.chunk("leader", 0, DATA) == len(DATA)
    assert follower.seen == [(LEADER, 9, DATA)], "it can be sent again from the beginning"


async def test_a_snapshot_older_than_what_is_committed_is_refused_by_its_description_alone() -> None:
    follower = Follower()
    follower.commit_index = 9
    assert await follower.chunk("leader", 0, b"") == len(DATA), "so much is there already: all of it"
    assert (follower.seen, follower.store.spools) == ([], [])


@pytest.mark.parametrize("first", [1, 2])
async def test_of_two_snapshots_in_quick_succession_the_newer_stays_whichever_is_whole_first(first: int) -> None:
    """etcd #18055."""
    follower = Follower()
    metas = {1: meta_of(DATA, index=5), 2: meta_of(DATA, index=8)}
    for meta in metas.values():
        await follower.chunk("leader", 0, DATA[:100], meta)
    for number in (first, 3 - first):
        await follower.chunk("leader", 100, DATA[100:], metas[number])
    assert follower.seen[-1][1] == 8
    assert len(follower.seen) == (2 if first == 1 else 1), "an older one after a newer one is not given on"
    assert follower.store.spools == []


async def test_a_disk_that_refuses_ends_the_transfer_and_a_later_one_gets_through() -> None:
    follower = Follower()
    await follower.chunk("leader", 0, DATA[:100])
    follower.store.spools_refused = True
    with pytest.raises(Unavailable, match="snapshot"):
        await follower.chunk("leader", 100, DATA[100:])
    with pytest.raises(Unavailable):
        await follower.chunk("leader", 0, b"")
    assert follower.store.spools == []
    follower.store.spools_refused = False
    assert await follower.chunk("leader", 0, b"") == 0
    await follower.chunk("leader", 0, DATA)
    assert follower.seen == [(LEADER, 9, DATA)]


async def test_one_that_does_not_fit_is_refused_before_its_first_byte_and_costs_no_other_its_place() -> None:
    follower = Follower()
    for number in range(INTAKES_MAX):
        await follower.chunk("leader", 0, DATA[:100], meta_of(DATA, index=number + 1))
    follower.has_room_for = len(DATA)
    large = meta_of(DATA * 2)
    for data in (b"", DATA):
        with pytest.raises(Unavailable, match="cannot take a snapshot"):
            await follower.chunk("leader", 0, data, large)
    assert len(follower.store.spools) == INTAKES_MAX
    assert await follower.chunk("leader", 0, b"", meta_of(DATA, index=1)) == 100


class Transfer:
    """Senders and a follower in one network."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.follower = Follower()
        self.done: list[tuple[NodeId, bool]] = []
        self.offsets: list[int] = []
        self.on_chunk: Callable[[int], None] = lambda offset: None
        self.add(FOLLOWER, self._count)

    def add(self, name: NodeId, handler: Callable[[NodeId, bytes], Awaitable[bytes]]) -> None:
        self.network.peers(name).on_call(CALL, handler)

    def sender(self, name: NodeId) -> SnapshotSender:
        peers = self.network.peers(name)
        return SnapshotSender(peers, MemoryStore(), lambda to, arrived: self.done.append((to, arrived)))

    async def _count(self, source: NodeId, payload: bytes) -> bytes:
        chunk = decode_untrusted(payload, Chunk, bytes_max=2**22)
        if chunk.data:
            self.offsets.append(chunk.offset)
            self.on_chunk(chunk.offset)
        return await self.follower.receiver.on_chunk(source, payload)

    def cut_at(self, offset: int, source: NodeId) -> None:
        def maybe_cut(at: int) -> None:
            if at == offset:
                self.network.cuts |= {(source, FOLLOWER), (FOLLOWER, source)}

        self.on_chunk = maybe_cut


async def test_a_broken_transfer_goes_on_where_it_broke_off(autojump_clock: trio.testing.MockClock) -> None:
    transfer = Transfer()
    sender = transfer.sender(LEADER)
    transfer.cut_at(2 * SNAPSHOT_CHUNK_BYTES, LEADER)
    await sender.send(FOLLOWER, meta_of(LARGE), LARGE)
    assert transfer.done == [(FOLLOWER, False)]
    transfer.on_chunk = lambda offset: None
    transfer.network.heal()
    await sender.send(FOLLOWER, meta_of(LARGE), LARGE)
    assert transfer.done[1:] == [(FOLLOWER, True)]
    assert transfer.follower.seen == [(LEADER, 9, LARGE)]
    assert transfer.offsets == [0, *range(SNAPSHOT_CHUNK_BYTES, len(LARGE), SNAPSHOT_CHUNK_BYTES)], "no chunk went twice"


async def test_a_new_leader_with_the_same_snapshot_goes_on_where_the_old_one_died(autojump_clock: trio.testing.MockClock) -> None:
    transfer = Transfer()
    transfer.cut_at(SNAPSHOT_CHUNK_BYTES, LEADER)
    await transfer.sender(LEADER).send(FOLLOWER, meta_of(LARGE), LARGE)
    transfer.on_chunk = lambda offset: None
    await transfer.sender(OTHER).send(FOLLOWER, meta_of(LARGE), LARGE)
    assert transfer.done == [(FOLLOWER, False), (FOLLOWER, True)]
    assert transfer.follower.seen == [(OTHER, 9, LARGE)]
    assert len(transfer.offsets) == len(set(transfer.offsets)), "no chunk went twice"


async def test_a_new_leader_with_another_snapshot_begins_its_own(autojump_clock: trio.testing.MockClock) -> None:
    transfer = Transfer()
    transfer.cut_at(SNAPSHOT_CHUNK_BYTES, LEADER)
    await transfer.sender(LEADER).send(FOLLOWER, meta_of(LARGE), LARGE)
    transfer.on_chunk = lambda offset: None
    await transfer.sender(OTHER).send(FOLLOWER, meta_of(LARGE, index=12), LARGE)
    assert transfer.follower.seen == [(OTHER, 12, LARGE)]
    assert transfer.follower.store.spools == [], "the half of the old leader's is not kept"


async def test_a_receiver_that_says_nothing_gets_everything(autojump_clock: trio.testing.MockClock) -> None:
    """A program of before answers with nothing and takes what follows without a gap."""
    transfer = Transfer()
    got = bytearray()

    async def earlier(_: NodeId, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        got.extend(decode_untrusted(payload, Chunk, bytes_max=2**22).data)
        return b""

    transfer.add(OTHER, earlier)
    await transfer.sender(LEADER).send(OTHER, meta_of(LARGE), LARGE)
    assert (bytes(got), transfer.done) == (LARGE, [(OTHER, True)])


async def test_only_so_many_transfers_run_at_once_with_one_chunk_each_in_flight(autojump_clock: trio.testing.MockClock) -> None:
    transfer = Transfer()
    in_flight: list[NodeId] = []
    most = 0

    def slow(name: NodeId) -> Callable[[NodeId, bytes], Awaitable[bytes]]:
        async def handler(_: NodeId, payload: bytes) -> bytes:
            nonlocal most
            assert name not in in_flight, "two chunks in flight to one node"
            in_flight.append(name)
            most = max(most, len(in_flight))
            await trio.sleep(1)
            in_flight.remove(name)
            return b""

        return handler

    names = [NodeId(f"n{number}") for number in range(TRANSFERS_MAX + 3)]
    for name in names:
        transfer.add(name, slow(name))
    sender = transfer.sender(LEADER)
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(sender.send, name, meta_of(LARGE), LARGE)
    assert most == TRANSFERS_MAX
    assert sorted(transfer.done) == [(name, True) for name in names]


class Offers:
    """A leader that offers whenever the last offer has ended, as it does after the next heartbeat, to a follower without room."""

    def __init__(self) -> None:
        self.transfer = Transfer()
        self.transfer.follower.has_room_for = 0
        self.transfer.add(OTHER, self._refuse)
        self.sender = self.transfer.sender(LEADER)
        self.at: list[float] = []

    async def _refuse(self, source: NodeId, payload: bytes) -> bytes:
        self.at.append(trio.current_time())
        return await self.transfer.follower.receiver.on_chunk(source, payload)

    async def run(self) -> None:
        while not self.transfer.follower.seen:
            await self.sender.send(OTHER, meta_of(DATA), DATA)

    @property
    def pauses(self) -> list[float]:
        return [round(later - earlier) for earlier, later in itertools.pairwise(self.at)]


async def test_offers_to_a_disk_that_refuses_become_rarer_up_to_one_in_five_minutes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    offers = Offers()
    with trio.move_on_after(1500):
        await offers.run()
    assert offers.pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]


async def test_a_receiver_that_was_full_and_says_that_it_has_room_is_offered_it_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    offers = Offers()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(offers.run)
        await trio.sleep(100)
        assert offers.pauses == [5, 10, 20, 40]
        offers.sender.heard(OTHER, full=False)
        await trio.sleep(1)
        assert len(offers.at) == 5, "it did not say that it was full: no news"
        offers.sender.heard(OTHER, full=True)
        offers.sender.heard(FOLLOWER, full=False)
        await trio.sleep(1)
        assert len(offers.at) == 5
        offers.sender.heard(OTHER, full=False)
        await trio.sleep(1)
        assert len(offers.at) == 6
        await trio.sleep(5)
        assert offers.pauses[-1] == 5, "and it begins anew to become rarer"
        offers.transfer.follower.has_room_for = len(DATA)
        await trio.sleep(20)
        assert offers.transfer.follower.seen == [(LEADER, 9, DATA)]
