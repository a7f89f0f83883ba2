"""Round trips of all members, collected over the streams: real cores, peers in memory, mock time."""

from __future__ import annotations

import random

import trio
import trio.testing

from swarm.drivers.membership import Gossip
from swarm.drivers.round_trips import ASK_S, CALL, FRESH_S, Measured, RoundTripAnswer, RoundTrips
from swarm.membership import Config, MemberIdentity, Membership
from swarm.membership.messages import Claim, Rumours
from swarm.model.liveness import MemberStatus
from swarm.wire.codec import encode
from tests.drivers.test_gossip import PlainSealer, RefusingConnects, SilentSocket, TrioClock
from tests.fakes.gossip_network import address, node_id
from tests.fakes.memory_peers import MemoryNetwork

ALIVE = MemberStatus.ALIVE


def member(number: int, network: MemoryNetwork) -> RoundTrips:
    """One of three, all of whom said hello to it."""
    core = Membership(
        identity=MemberIdentity(node_id(number), f"n{number}", address(number), 1), config=Config(), rng=random.Random(1), now=0.0
    )
    core.set_admitted({node_id(n): (f"n{n}", address(n)) for n in (1, 2, 3)}, 0.0)
    for other in {1, 2, 3} - {number}:
        hello = Rumours(Claim(node_id(other), 1, 0, ALIVE, f"n{other}", address(other)))
        core.on_packet(("10.77.0.1", 4747), hello, 0.0)
    peers = network.peers(node_id(number))
    gossip = Gossip(core, SilentSocket(), RefusingConnects(), peers, TrioClock(), PlainSealer())
    return RoundTrips(gossip, peers, node_id(number))


async def test_everybody_is_asked_once_and_ones_own_row_costs_no_call(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    first, *_ = (member(number, network) for number in (1, 2, 3))
    rows = await first.collect()
    assert [row.observer for row in rows] == [node_id(1), node_id(2), node_id(3)]
    for row in rows:
        assert {each.node_id for each in row.measured} == {node_id(n) for n in (1, 2, 3)} - {row.observer}
        assert {(each.rtt_s, each.status) for each in row.measured} == {(0.0, ALIVE)}
        assert row.reason == ""


async def test_who_is_silent_or_answers_nonsense_has_a_row_with_the_reason_in_bounded_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    first = member(1, network)

    async def silent(source: object, payload: bytes) -> bytes:
        await trio.sleep(3600)
        return encode(RoundTripAnswer((Measured(node_id(1), 0.1, ALIVE),)))

    async def nonsense(source: object, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return b"\xff\x00nonsense"

    network.peers(node_id(2)).on_call(CALL, silent)
    network.peers(node_id(3)).on_call(CALL, nonsense)
    started = trio.current_time()
    _, second, third = await first.collect()
    assert trio.current_time() - started <= ASK_S + 0.01
    for row, name in ((second, "n2"), (third, "n3")):
        assert row.measured == () and row.reason.startswith(f"{name} was not asked: ")


async def test_many_who_ask_at_once_cost_each_member_one_question(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork()
    first = member(1, network)
    asked: list[object] = []

    async def counted(source: object, payload: bytes) -> bytes:
        asked.append(source)
        await trio.sleep(0.3)
        return encode(RoundTripAnswer(()))

    for number in (2, 3):
        network.peers(node_id(number)).on_call(CALL, counted)
    found: list[object] = []

    async def one() -> None:
        found.append(await first.collect())

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(one)
    assert len(found) == 200
    assert len(asked) == 2
    await trio.sleep(FRESH_S)
    await first.collect()
    assert len(asked) == 4
