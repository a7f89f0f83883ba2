"""Finding members that moved, over real TLS on loopback: who is looked for where, who is believed, and when nobody is asked."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from swarm.adapters.certificates import contexts, issue
from swarm.drivers import whereabouts
from swarm.drivers.boot import Belonging, Desk
from swarm.drivers.whereabouts import Whereabouts
from swarm.model.entry import Entry
from swarm.model.ids import ClusterId, NodeId
from swarm.model.liveness import MemberStatus, MemberView
from swarm.model.node import Node
from swarm.ports import PROTOCOL_BOOT, SecureStream
from swarm.wire.keys import FOUND_SALT
from tests.fakes.loopback_members import CLUSTER, SECRET, LoopbackMember, key_of, node_of

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _ask_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "ASK_EVERY_S", 0.02)


async def never(entry: Entry) -> None:
    raise AssertionError("nothing is founded here")


class Mover(LoopbackMember):
    """A member with a desk, whose log has everybody at an address where nobody is."""

    def __init__(self, number: int, *, cluster: ClusterId = CLUSTER, key_number: int | None = None) -> None:
        super().__init__(number, cluster=cluster, key_number=key_number)
        self.members: dict[NodeId, MemberView] = {}
        self.greeted: list[str] = []
        self.told = 0
        self.key_number = key_number
        self.advertised = ""
        """Where it says it is, if that is not where it is."""
        self.asked = 0
        """How many questions came to its desk."""
        self.desk: Any = None
        self.whereabouts: Any = None

    @asynccontextmanager
    async def moved(self, *given: str) -> AsyncIterator[Mover]:
        """At an address of its own, asking at those given."""
        if self.listener is None:
            await self.open()
        key = key_of(self.number if self.key_number is None else self.key_number)
        self.port.use(PROTOCOL_BOOT, contexts(issue(SECRET, FOUND_SALT, self.node_id, key), PROTOCOL_BOOT))
        me = node_of(self.number, self.advertised or self.address, self.key_number)
        self.desk = Desk(me, persist_found=never, belonging=Belonging(self.cluster, 0, b"", (me,)))
        self.port.handle(PROTOCOL_BOOT, self.answer)
        self.whereabouts = Whereabouts(
            self.desk, self.port, given, admitted=self,  # type: ignore[arg-type]
            streams=self.streams, members=lambda: self.members, greet=self.greet, on_found=self.dial, rng=random.Random(1),
        )  # fmt: skip
        async with self.running(), trio.open_nursery() as nursery:
            self.dial()
            nursery.start_soon(self.whereabouts.run)
            yield self
            nursery.cancel_scope.cancel()

    async def answer(self, secure: SecureStream) -> None:
        self.asked += 1
        await self.desk.accept(secure)

    def nodes(self) -> dict[NodeId, Node]:
        return self.admitted

    def greet(self, addresses: Iterable[str]) -> None:
        self.greeted += addresses

    def dial(self) -> None:
        self.told += 1
        self.streams.set_members(self.whereabouts.addresses())

    def knows(self, *others: Node) -> None:
        """By its log; gossip has not heard of them."""
        for node in others:
            self.admitted[node.id] = node
            self.hears(node, MemberStatus.SUSPECT)

    def hears(self, node: Node, status: MemberStatus, address: str = "") -> None:
        self.members[node.id] = MemberView(node.id, node.name, address or node.address, status, 1, 0, 0.0, 1.0)


def movers(*numbers: int) -> list[Mover]:
    """They know each other, at no address at which anybody is."""
    made = [Mover(number) for number in numbers]
    for member in made:
        member.knows(*(node_of(number, NOWHERE) for number in numbers))
    return made


async def until(condition: Any) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.005)


async def quiet(member: Mover, rounds: int = 12) -> None:
    """For some rounds of questions."""
    before = member.told
    await trio.sleep(0.02 * rounds)
    assert member.told == before, "it was told of somebody"


async def test_one_that_moved_is_found_by_an_address_that_was_given_and_greeted_until_gossip_hears_it() -> None:
    one, two = movers(1, 2)
    async with two.moved(), one.moved(NOWHERE, two.address):
        await one.until(two.node_id, True)
        assert one.whereabouts.addresses()[two.node_id] == two.address
        await until(lambda: len(one.greeted) > 1)
        assert set(one.greeted) == {two.address}
        one.hears(node_of(2), MemberStatus.ALIVE, two.address)
        await trio.sleep(0.05)
        greeted = len(one.greeted)
        await quiet(one)
        assert len(one.greeted) == greeted


async def test_nobody_is_asked_while_everybody_is_connected() -> None:
    one, two = movers(1, 2)
    idle = Mover(9)
    async with two.moved(), idle.moved():
        one.knows(node_of(2, two.address))
        async with one.moved(two.address, idle.address):
            await one.until(two.node_id, True)
            before = two.asked + idle.asked
            await quiet(one)
            assert two.asked + idle.asked == before


async def test_while_one_is_missing_those_that_are_connected_are_not_asked() -> None:
    one, two, _ = movers(1, 2, 3)
    idle = Mover(9)
    async with two.moved(), idle.moved():
        one.knows(node_of(2, two.address))
        async with one.moved(two.address, idle.address):
            await one.until(two.node_id, True)
            before = two.asked
            await until(lambda: idle.asked > 1)
            assert two.asked <= before + 1, "at most the question that was under way"


async def test_a_member_that_is_connected_is_not_looked_for_elsewhere() -> None:
    one, two, _ = movers(1, 2, 3)
    two.advertised = "127.0.0.1:9"
    async with two.moved():
        one.knows(node_of(2, two.address))
        async with one.moved(two.address.replace("127.0.0.1", "localhost")):
            await one.until(two.node_id, True)
            await until(lambda: two.asked > 2)
            assert (one.whereabouts.addresses()[two.node_id], one.told) == (two.address, 1)


async def test_one_that_is_where_it_was_and_takes_no_connection_is_no_news() -> None:
    one, two = movers(1, 2)
    two.admitted.clear()
    async with two.moved():
        one.knows(node_of(2, two.address))
        async with one.moved(two.address):
            await until(lambda: two.asked > 2)
            assert one.told == 1


async def test_a_node_neither_asks_itself_nor_finds_itself() -> None:
    one, _ = movers(1, 2)
    await one.open()
    alias = one.address.replace("127.0.0.1", "localhost")
    async with one.moved(one.address, alias):
        await until(lambda: one.asked > 2)
        assert one.told == 1
    two, _ = movers(2, 3)
    await two.open()
    async with two.moved(two.address):
        await quiet(two)
        assert two.asked == 0


async def test_what_is_not_found_is_asked_for_ever_more_rarely() -> None:
    one, _ = movers(1, 2)
    idle = Mover(9)
    async with idle.moved(), one.moved(idle.address):
        await until(lambda: idle.asked)
        await trio.sleep(0.8)
        assert idle.asked <= 8, "with the first pause it would be some 40"


async def test_a_stranger_with_the_token_a_wrong_key_and_another_cluster_are_not_believed() -> None:
    (one,) = movers(1)
    one.knows(node_of(2, NOWHERE))
    stranger, forger, other = Mover(9), Mover(2, key_number=8), Mover(2, cluster=ClusterId("cd" * 16))
    async with stranger.moved(), forger.moved(), other.moved(), one.moved(stranger.address, forger.address, other.address):
        await until(lambda: all(each.asked > 1 for each in (stranger, forger, other)))
        await quiet(one)
        assert one.whereabouts.addresses()[node_of(2).id] == NOWHERE


async def test_what_a_living_member_says_and_what_the_log_says_since_go_before_what_was_found() -> None:
    one, two = movers(1, 2)
    async with two.moved(), one.moved(two.address):
        await one.until(two.node_id, True)
        there = one.whereabouts.addresses
        one.hears(node_of(2), MemberStatus.ALIVE, "127.0.0.1:2")
        assert there()[two.node_id] == "127.0.0.1:2"
        one.hears(node_of(2), MemberStatus.ALIVE, NOWHERE)
        assert there()[two.node_id] == NOWHERE, "as the log has it too"
        one.hears(node_of(2), MemberStatus.DEAD, "127.0.0.1:2")
        assert there()[two.node_id] == two.address
        one.admitted[two.node_id] = msgspec.structs.replace(node_of(2), address="127.0.0.1:3")
        assert there()[two.node_id] == "127.0.0.1:3"
