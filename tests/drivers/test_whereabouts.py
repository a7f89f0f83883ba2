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
from swarm.drivers.presence import Run
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
    monkeypatch.setattr(whereabouts, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(whereabouts, "ASK_AGAIN_S", 0.02)
    monkeypatch.setattr(whereabouts, "ASK_AGAIN_S_MAX", 0.08)


async def never(entry: Entry) -> None:
    raise AssertionError("nothing is founded here")


class Mover(LoopbackMember):
    """A member with a desk, whose log has everybody at an address where nobody is."""

    def __init__(self, number: int, *, cluster: ClusterId = CLUSTER, key_number: int | None = None) -> None:
        super().__init__(number, cluster=cluster, key_number=key_number)
        self.heard: dict[NodeId, MemberView] = {}
        self.greeted: list[str] = []
        self.twins: list[str] = []
        self.dialed: list[dict[NodeId, str]] = []
        self.told = 0
        self.key_number = key_number
        self.advertised = ""
        """Where it says it is, if that is not where it is."""
        self.instance = ""
        self.answers: trio.Event | None = None
        """What the desk waits for before it answers, if anything."""
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
        self.desk = Desk(me, persist_found=never, belonging=Belonging(self.cluster, 0, b"", (me,)), run=self.run_of())
        self.port.handle(PROTOCOL_BOOT, self.answer)
        self.whereabouts = Whereabouts(
            self.desk, self.port, given, admitted=self, gossip=self, streams=self.streams,  # type: ignore[arg-type]
            suspect_twin=self.twins.append, on_found=self.dial, rng=random.Random(1),
        )  # fmt: skip
        async with self.running(), trio.open_nursery() as nursery:
            self.dial()
            nursery.start_soon(self.whereabouts.run)
            yield self
            nursery.cancel_scope.cancel()

    def run_of(self) -> Run:
        return Run(self.instance, 0.0, lambda: 100.0 if self.instance == "elder" else 1.0)

    async def answer(self, secure: SecureStream) -> None:
        self.asked += 1
        if self.answers is not None:
            await self.answers.wait()
        await self.desk.accept(secure)

    def nodes(self) -> dict[NodeId, Node]:
        return self.admitted

    def members(self) -> dict[NodeId, MemberView]:
        return self.heard

    def join(self, addresses: Iterable[str]) -> None:
        self.greeted += addresses

    def dial(self) -> None:
        """As the daemon does; a repetition is none."""
        self.told += 1
        addresses = self.whereabouts.addresses()
        if addresses not in self.dialed[-1:]:
            self.dialed.append(addresses)
        self.streams.set_members(addresses)

    def knows(self, *others: Node) -> None:
        """By its log; gossip has not heard of them."""
        for node in others:
            self.admitted[node.id] = node
            self.hears(node, MemberStatus.SUSPECT)

    def hears(self, node: Node, status: MemberStatus, address: str = "", *, incarnation: int = 0) -> None:
        where = address or node.address
        self.heard[node.id] = MemberView(node.id, node.name, where, status, 1, incarnation, 0.0, 1.0)


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
    """For some looks."""
    before = len(member.dialed)
    await trio.sleep(0.02 * rounds)
    assert len(member.dialed) == before, "it dials elsewhere"


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


async def test_while_one_is_missing_those_that_are_connected_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, _ = movers(1, 2, 3)
    idle = Mover(9)
    monkeypatch.setattr(whereabouts, "LOOK_EVERY_S", 0.5)  # the connection stands before the first look
    async with two.moved(), idle.moved():
        one.knows(node_of(2, two.address))
        async with one.moved(two.address, idle.address):
            await one.until(two.node_id, True)
            await until(lambda: idle.asked > 1)
            assert two.asked == 0


async def test_a_find_is_dialed_at_once_and_not_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = movers(1, 2)
    two.answers = trio.Event()
    async with two.moved(), one.moved(two.address):
        await until(lambda: two.asked)
        monkeypatch.setattr(whereabouts, "LOOK_EVERY_S", 3600.0)
        await quiet(one)
        two.answers.set()
        await one.until(two.node_id, True)


async def test_a_member_that_is_connected_is_not_looked_for_elsewhere_and_not_asked_by_another_name_again() -> None:
    one, two, _ = movers(1, 2, 3)
    two.advertised = "127.0.0.1:9"
    async with two.moved():
        one.knows(node_of(2, two.address))
        async with one.moved(two.address.replace("127.0.0.1", "localhost")):
            await one.until(two.node_id, True)
            await until(lambda: two.asked)
            await quiet(one)
            assert (one.whereabouts.addresses()[two.node_id], two.asked) == (two.address, 1)


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
        assert len(one.dialed) == 1
    two, _ = movers(2, 3)
    await two.open()
    async with two.moved(two.address):
        await quiet(two)
        assert two.asked == 0


async def test_what_is_not_found_is_asked_for_ever_more_rarely_and_soon_again_once_somebody_else_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(whereabouts, "ASK_AGAIN_S_MAX", 60.0)
    one, two = movers(1, 2)
    idle = Mover(9)
    async with two.moved(), idle.moved(), one.moved(idle.address):
        await until(lambda: idle.asked)
        await trio.sleep(0.8)
        assert idle.asked <= 8, "with the first pause it would be some 20"
        one.knows(node_of(2, two.address))
        one.dial()
        await one.until(two.node_id, True)
        await trio.sleep(0.1)
        before = idle.asked
        one.knows(node_of(2, NOWHERE))
        one.dial()
        await until(lambda: idle.asked >= before + 5)


async def test_an_address_that_answers_late_holds_nobody_up() -> None:
    one, two, _ = movers(1, 2, 3)
    late = Mover(9)
    late.answers = trio.Event()
    async with two.moved(), late.moved(), one.moved(late.address, two.address):
        await one.until(two.node_id, True)
        await quiet(one)
        assert (late.asked, late.answers.is_set()) == (1, False), "nor is it asked again meanwhile"
        late.answers.set()


async def test_only_so_many_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "ASKED_AT_ONCE", 2)
    one, _ = movers(1, 2)
    late = [Mover(number) for number in (7, 8, 9)]
    for each in late:
        each.answers = trio.Event()
    async with late[0].moved(), late[1].moved(), late[2].moved(), one.moved(*(each.address for each in late)):
        await until(lambda: sum(each.asked for each in late) == 2)
        await quiet(one)
        assert sum(each.asked for each in late) == 2
        for each in late:
            each.answers.set()
        await until(lambda: all(each.asked for each in late))


async def test_a_daemon_with_this_nodes_identity_at_an_address_that_was_given_is_suspected() -> None:
    one, _ = movers(1, 2)
    copy = Mover(1)
    one.instance, copy.instance = "elder", "younger"
    async with copy.moved(), one.moved(copy.address):
        await until(lambda: one.twins)
        assert (one.twins[0], len(one.dialed)) == (copy.address, 1)


async def test_a_stranger_with_the_token_a_wrong_key_and_another_cluster_are_not_believed() -> None:
    (one,) = movers(1)
    one.knows(node_of(2, NOWHERE))
    stranger, forger, other = Mover(9), Mover(2, key_number=8), Mover(2, cluster=ClusterId("cd" * 16))
    async with stranger.moved(), forger.moved(), other.moved(), one.moved(stranger.address, forger.address, other.address):
        await until(lambda: all(each.asked > 1 for each in (stranger, forger, other)))
        await quiet(one)
        assert one.whereabouts.addresses()[node_of(2).id] == NOWHERE


async def test_what_was_found_counts_until_gossip_or_the_log_has_news() -> None:
    one, two = movers(1, 2)
    async with two.moved(), one.moved(two.address):
        await one.until(two.node_id, True)
        there = one.whereabouts.addresses
        one.hears(node_of(2), MemberStatus.ALIVE, two.address, incarnation=1)
        assert there()[two.node_id] == two.address
        one.hears(node_of(2), MemberStatus.SUSPECT, two.address, incarnation=1)
        await quiet(one)
        assert there()[two.node_id] == two.address, "as it said, though the log has it elsewhere"
        one.hears(node_of(2), MemberStatus.ALIVE, "127.0.0.1:2", incarnation=2)
        assert there()[two.node_id] == "127.0.0.1:2"


async def test_what_was_found_goes_before_gossip_that_has_not_noticed_yet() -> None:
    one, two = movers(1, 2)
    one.hears(node_of(2, NOWHERE), MemberStatus.ALIVE)
    async with two.moved(), one.moved(two.address):
        await one.until(two.node_id, True)
        await quiet(one)
        assert one.greeted == []
        one.hears(node_of(2, NOWHERE), MemberStatus.SUSPECT)
        await quiet(one)
        assert one.streams.connected(two.node_id) and one.greeted


async def test_a_find_that_leads_nowhere_is_forgotten_as_soon_as_gossip_hears_of_that_member() -> None:
    one, two = movers(1, 2)
    two.advertised = "127.0.0.1:9"
    async with two.moved(), one.moved(two.address):
        await until(lambda: one.dialed[-1][two.node_id] == two.advertised)
        await quiet(one)
        assert one.greeted == [], "nothing of this node's can be opened there before a connection stands"
        one.hears(node_of(2), MemberStatus.ALIVE, two.address, incarnation=7)
        await one.until(two.node_id, True)
        await trio.sleep(0.05)
        told = one.told
        await quiet(one)
        assert one.told == told


async def test_of_one_that_gossip_does_not_know_the_log_decides() -> None:
    one, two = movers(1, 2)
    async with two.moved(), one.moved(two.address):
        await one.until(two.node_id, True)
        del one.heard[two.node_id]
        one.admitted[two.node_id] = msgspec.structs.replace(node_of(2), address="127.0.0.1:3")
        assert one.whereabouts.addresses()[two.node_id] == "127.0.0.1:3"
