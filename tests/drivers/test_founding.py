"""Founding and joining over real TLS on loopback: who ends up in which cluster, what is on whose disk, what people are told."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from swarm.adapters.certificates import contexts, issue
from swarm.adapters.clock import SystemClock
from swarm.adapters.tcp import PeerPort, listener_port, open_listener
from swarm.drivers import founding
from swarm.drivers.boot import Belonging, Desk, ask, belonging_of, voters_of
from swarm.drivers.founding import Founding, JoinCluster, ProposeFounding, Wait, check_start, decide
from swarm.drivers.link import close_now
from swarm.drivers.removal import OwnRemoval
from swarm.errors import BadMessage, Conflict, PeerError, StartRefused, StoreFailure, Unauthenticated, Unavailable, Unreachable
from swarm.model.command import Found
from swarm.model.entry import Entry
from swarm.model.ids import ClusterId
from swarm.model.node import Node
from swarm.model.removal import Removal
from swarm.ports import PROTOCOL_BOOT, SecureStream
from swarm.wire import codec
from swarm.wire.boot import BOOT_VERSION, Granted, Greet, Greeting, Join, Propose, Refused, Welcome
from swarm.wire.keys import FOUND_SALT
from tests.fakes.loopback_members import SECRET, key_of, node_id_of, node_of


@pytest.fixture(autouse=True)
def _greet_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(founding, "GREET_EVERY_S", 0.02)


class Starter:
    """A node that is starting: its port and desk, what it has on disk and what it said."""

    def __init__(self, number: int, *, secret: bytes = SECRET, belonging: Belonging | None = None) -> None:
        self.number = number
        self.disk: list[Entry] = []
        self.said: list[str] = []
        self.spoke = trio.Event()
        self.port = PeerPort()
        credentials = issue(secret, FOUND_SALT, node_id_of(number), key_of(number))
        self.port.use(PROTOCOL_BOOT, contexts(credentials, PROTOCOL_BOOT))
        self.desk = Desk(node_of(number), persist_found=self.persist, belonging=belonging)
        self.port.handle(PROTOCOL_BOOT, self.desk.accept)
        self.address = ""

    async def persist(self, entry: Entry) -> None:
        await trio.lowlevel.checkpoint()
        self.disk.append(entry)

    def say(self, text: str) -> None:
        self.said.append(text)
        self.spoke.set()
        self.spoke = trio.Event()

    async def says(self, words: str) -> None:
        """Wait until it has said that; it says anew every `SAY_EVERY_S` what holds it up."""
        with trio.fail_after(20):
            while not any(words in text for text in self.said):
                await self.spoke.wait()

    def founding(self, addresses: Sequence[str]) -> Founding:
        rng = random.Random(self.number)
        return Founding(self.desk, addresses, dialer=self.port, clock=SystemClock(), rng=rng, say=self.say)

    async def settle(self, addresses: Sequence[str]) -> Belonging:
        with trio.fail_after(20):
            return await self.founding(addresses).settle()


@asynccontextmanager
async def serving(*starters: Starter) -> AsyncIterator[list[str]]:
    """Their desks are open; gives their addresses."""
    async with trio.open_nursery() as nursery:
        for starter in starters:
            listener = await open_listener("127.0.0.1", 0)
            starter.address = f"127.0.0.1:{listener_port(listener)}"
            nursery.start_soon(functools.partial(serve, starter, listener))
        yield [starter.address for starter in starters]
        nursery.cancel_scope.cancel()


async def serve(starter: Starter, listener: trio.SocketListener) -> None:
    try:
        await starter.port.serve(listener)
    finally:
        listener.socket.close()


async def settle_all(starters: Sequence[Starter], addresses: Sequence[str]) -> list[Belonging]:
    results: dict[int, Belonging] = {}

    async def one(starter: Starter) -> None:
        results[starter.number] = await starter.settle(addresses)

    async with trio.open_nursery() as nursery:
        for starter in starters:
            nursery.start_soon(one, starter)
    return [results[starter.number] for starter in starters]


def entry_1(nodes: Sequence[Node], cluster: str = "ab" * 16) -> bytes:
    payload = codec.encode(Found(ClusterId(cluster), tuple(nodes), voters_of(tuple(nodes))))
    return codec.encode(Entry(1, 1, "found", 1, payload, 0, 1.0))


# ---- founding together ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "voters"), [(1, 1), (2, 1), (3, 3), (7, 5)])
async def test_the_same_line_on_every_host_founds_one_cluster(count: int, voters: int) -> None:
    starters = [Starter(number) for number in range(1, count + 1)]
    async with serving(*starters) as addresses:
        belongings = await settle_all(starters, addresses if count > 1 else [])
    assert len({belonging.found for belonging in belongings}) == 1, "byte for byte the same"
    for starter in starters:
        assert [codec.encode(entry) for entry in starter.disk] == [belongings[0].found], "once on every disk"
    found = codec.decode_untrusted(starters[0].disk[0].payload, Found, bytes_max=10**6)
    assert [voter.node_id for voter in found.voters] == [node_id_of(number) for number in range(1, voters + 1)]


class Unanswered:
    """Every address takes a second to refuse."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.asked: list[str] = []

    async def dial(self, address: str, protocol: str) -> SecureStream:
        """Raises `Unreachable`."""
        self.asked.append(address)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep(1)
        finally:
            self.now -= 1
        raise Unreachable("refused")


async def test_many_addresses_are_greeted_some_at_a_time_and_each_in_its_turn(autojump_clock: trio.testing.MockClock) -> None:
    dialer, starter = Unanswered(), Starter(1)
    addresses = [f"10.0.0.{number}:4747" for number in range(200)]
    start = Founding(starter.desk, addresses, dialer=dialer, clock=SystemClock(), rng=random.Random(1), say=starter.say)
    with trio.move_on_after(60):
        await start.settle()
    assert dialer.most == founding.GREETINGS_AT_ONCE
    times = [dialer.asked.count(address) for address in addresses]
    assert min(times) >= 1 and max(times) <= min(times) + 1
    assert dialer.asked[:100] != addresses[:100] and len(set(dialer.asked[:200])) == 200, "in an order of its own"


async def test_no_start_ends_for_a_refused_token_before_each_address_was_asked(autojump_clock: trio.testing.MockClock) -> None:
    class OneRefuses(Unanswered):
        async def dial(self, address: str, protocol: str) -> SecureStream:
            if address == "refuses":
                raise Unauthenticated("another token")
            return await super().dial(address, protocol)

    dialer, starter = OneRefuses(), Starter(1)
    addresses = ["refuses", *(f"10.0.0.{number}:4747" for number in range(40))]
    start = Founding(starter.desk, addresses, dialer=dialer, clock=SystemClock(), rng=random.Random(1), say=starter.say)
    with trio.fail_after(60), pytest.raises(StartRefused, match="does not accept this token"):
        await start.settle()
    assert len(set(dialer.asked)) == 40


async def test_addresses_that_reach_the_same_node_twice_are_one_node() -> None:
    starters = [Starter(1), Starter(2)]
    async with serving(*starters) as addresses:
        spellings = [*addresses, *(address.replace("127.0.0.1", "localhost") for address in addresses)]
        belongings = await settle_all(starters, spellings)
    assert len(belongings[0].nodes) == 2


async def test_nobody_founds_while_an_address_is_unheard_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(founding, "FIRST_SAY_S", 0.05)
    monkeypatch.setattr(founding, "SAY_EVERY_S", 0.05)
    one, two = Starter(1), Starter(2)
    async with serving(one, two) as addresses, trio.open_nursery() as nursery:
        listener = await open_listener("127.0.0.1", 0)
        missing = f"127.0.0.1:{listener_port(listener)}"
        await listener.aclose()
        nursery.start_soon(one.settle, [*addresses, missing])
        nursery.start_soon(two.settle, [*addresses, missing])
        await one.says(f"{missing}: connection refused")
        assert one.disk == two.disk == []
        nursery.cancel_scope.cancel()


async def test_different_lists_found_nothing_and_the_difference_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(founding, "FIRST_SAY_S", 0.05)
    monkeypatch.setattr(founding, "SAY_EVERY_S", 0.05)
    one, two, three = Starter(1), Starter(2), Starter(3)
    async with serving(one, two, three) as addresses, trio.open_nursery() as nursery:
        nursery.start_soon(one.settle, addresses)
        nursery.start_soon(two.settle, addresses[:2])
        nursery.start_soon(three.settle, addresses)
        await one.says("n2 has not met n3")
        assert not any(starter.disk for starter in (one, two, three))
        nursery.cancel_scope.cancel()


async def test_a_founder_that_missed_the_proposal_takes_the_entry_over() -> None:
    entry = entry_1([node_of(1), node_of(2), node_of(3)])
    one, three = Starter(1, belonging=belonging_of(entry)), Starter(3)
    async with serving(one, three) as addresses:
        belonging = await three.settle(addresses)
    assert belonging.found == entry and [codec.encode(row) for row in three.disk] == [entry]


async def test_a_proposer_that_restarts_goes_on_with_what_it_has_on_disk() -> None:
    entry = entry_1([node_of(1), node_of(2)])
    one, two = Starter(1, belonging=belonging_of(entry)), Starter(2)
    async with serving(one, two) as addresses:
        belongings = await settle_all([one, two], addresses)
    assert {belonging.found for belonging in belongings} == {entry}
    assert one.disk == [], "nothing new was written"


# ---- granting ---------------------------------------------------------------------------------------------------------------


def met(starter: Starter, *numbers: int) -> None:
    starter.desk.known, starter.desk.complete = tuple(node_id_of(number) for number in numbers), True


async def propose(proposer: Starter, to: Starter, entry: bytes) -> Granted | Refused:
    reply = await ask(proposer.port, to.address, Propose(BOOT_VERSION, node_id_of(proposer.number), entry))
    assert isinstance(reply, Granted | Refused)
    return reply


async def test_one_founding_is_granted_however_many_are_proposed_at_once() -> None:
    one, two = Starter(1), Starter(2)
    met(two, 1, 2)
    entries = [entry_1([node_of(1), node_of(2)], f"{number:032x}") for number in range(10, 15)]
    replies: list[Granted | Refused] = []
    async with serving(two), trio.open_nursery() as nursery:

        async def try_one(entry: bytes) -> None:
            replies.append(await propose(one, two, entry))

        for entry in entries:
            nursery.start_soon(try_one, entry)
            nursery.start_soon(try_one, entry)
        await two.desk.settled.wait()
    assert len(two.disk) == 1
    assert sum(isinstance(reply, Granted) for reply in replies) == 2, "the same one twice, the others never"


@pytest.mark.parametrize(
    ("entry", "knows", "reason"),
    [
        (entry_1([node_of(1), node_of(2)]), (1, 2, 3), "has not met exactly"),
        (entry_1([node_of(2), node_of(3)]), (2, 3), "only the lowest id"),
    ],
)
async def test_a_founding_that_is_not_the_agreed_one_is_refused(entry: bytes, knows: tuple[int, ...], reason: str) -> None:
    one, two = Starter(1), Starter(2)
    met(two, *knows)
    async with serving(two):
        reply = await propose(one, two, entry)
    assert isinstance(reply, Refused) and reason in reply.message and two.disk == []


async def test_a_member_of_a_cluster_grants_no_other() -> None:
    one = Starter(1)
    two = Starter(2, belonging=belonging_of(entry_1([node_of(1), node_of(2)])))
    async with serving(two):
        reply = await propose(one, two, entry_1([node_of(1), node_of(2)], "cd" * 16))
    assert isinstance(reply, Refused) and "ab" * 16 in reply.message and two.disk == []


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b"\x00" * 40,
        codec.encode(Entry(2, 1, "found", 1, b"", 0, 1.0)),
        codec.encode(Entry(1, 1, "noop", 1, b"", 0, 1.0)),
        entry_1([node_of(2), node_of(1)]),
        entry_1([node_of(1), node_of(2, key_number=5)]),
        entry_1([node_of(1), node_of(2)], "short"),
        entry_1([]),
    ],
)
async def test_a_malformed_founding_is_counted_and_granted_by_nobody(entry: bytes) -> None:
    one, two = Starter(1), Starter(2)
    met(two, 1, 2)
    async with serving(two):
        with pytest.raises(Unreachable):
            await propose(one, two, entry)
    assert two.disk == [] and two.desk.counters["boot_bad_message"] == 1


async def test_a_grant_that_cannot_be_written_is_not_given() -> None:
    two = Starter(2)

    async def broken(entry: Entry) -> None:
        raise StoreFailure("no")

    desk = Desk(node_of(2), persist_found=broken)
    with pytest.raises(StoreFailure):
        await desk.grant(entry_1([node_of(2)]))
    assert desk.belonging is None and not desk.settled.is_set() and two.disk == []


async def test_nobody_asks_in_anothers_name_or_with_anothers_key() -> None:
    one, two = Starter(1), Starter(2)
    async with serving(two):
        for question in (Greet(BOOT_VERSION, node_of(3), ()), Join(BOOT_VERSION, node_of(1, key_number=3))):
            with pytest.raises(Unreachable):
                await ask(one.port, two.address, question)
    assert two.desk.counters["boot_unauthenticated"] == 2


async def test_garbage_at_the_desk_is_counted_and_ends_the_connection() -> None:
    one, two = Starter(1), Starter(2)
    rng = random.Random(1)
    async with serving(two):
        for length in (0, 1, 5, 100, 3_000):
            secure = await one.port.dial(two.address, PROTOCOL_BOOT)
            await secure.stream.send_all(rng.randbytes(length) or b"\xff\xff\xff\xff")
            await secure.stream.aclose()
        reply = await ask(one.port, two.address, Greet(BOOT_VERSION, node_of(1), ()))
    assert isinstance(reply, Greeting), "and the next one is answered"


# ---- joining ----------------------------------------------------------------------------------------------------------------


def member(number: int, cluster: str = "ab" * 16) -> Starter:
    starter = Starter(number, belonging=belonging_of(entry_1([node_of(number)], cluster)))

    async def admit(node: Node) -> tuple[Node, ...]:
        return (node_of(number), node)

    starter.desk.admit = admit
    return starter


async def test_a_newcomer_joins_the_cluster_that_any_peer_belongs_to() -> None:
    there, other, newcomer = member(1), Starter(2), Starter(9)
    async with serving(there, other, newcomer) as addresses:
        belonging = await newcomer.settle(addresses)
    assert (belonging.cluster_id, belonging.nodes) == ("ab" * 16, (node_of(1), node_of(9)))
    assert newcomer.disk == [] and belonging.found == b"", "its log comes from the leader"


async def test_peers_of_two_clusters_are_refused_and_both_are_named() -> None:
    views = {"a:1": greeting(1, cluster="ab" * 16), "b:1": greeting(2, cluster="cd" * 16)}
    with pytest.raises(StartRefused, match="different clusters") as caught:
        decide(node_of(9), views)
    assert "a:1 to " + "ab" * 16 in caught.value.cause and "b:1 to " + "cd" * 16 in caught.value.cause
    one, two, newcomer = member(1), member(2, "cd" * 16), Starter(9)
    async with serving(one, two, newcomer) as addresses:
        with pytest.raises(StartRefused, match="different clusters"):
            await newcomer.settle(addresses)
    assert newcomer.desk.belonging is None


async def test_a_newcomer_waits_out_an_election_and_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.drivers.joining.RETRY_S", 0.01)
    there, newcomer = member(1), Starter(9)
    tries = itertools.count()

    async def admit(node: Node) -> tuple[Node, ...]:
        if next(tries) < 3:
            raise Unavailable("cannot admit a node", cause="no leader in reach")
        return (node_of(1), node)

    there.desk.admit = admit
    async with serving(there) as addresses:
        belonging = await newcomer.settle(addresses)
    assert len(belonging.nodes) == 2
    assert len(newcomer.said) == 1 and "no leader in reach" in newcomer.said[0]


async def test_a_refusal_that_waiting_cannot_change_ends_the_start() -> None:
    there, newcomer = member(1), Starter(9)

    async def admit(node: Node) -> tuple[Node, ...]:
        raise Conflict("the name 'n9' is taken", hint="start with another --name")

    there.desk.admit = admit
    async with serving(there) as addresses:
        with pytest.raises(StartRefused, match="the name 'n9' is taken") as caught:
            await newcomer.settle(addresses)
    assert caught.value.hint == "start with another --name"


async def test_through_a_removed_node_nobody_joins_and_another_peer_is_asked_where_there_is_one() -> None:
    removed, there = member(1), member(2)
    out = OwnRemoval(Removal.CERTAIN, save=unsaved, tell=lambda known: None)

    async def admit(node: Node) -> tuple[Node, ...]:
        out.refuse_admission("n1")
        raise AssertionError("a removed node admits nobody")

    removed.desk.admit = admit
    async with serving(removed, there) as addresses:
        with pytest.raises(StartRefused, match=f"{addresses[0]} is no member of its cluster any more") as caught:
            await Starter(9).settle(addresses[:1])
        assert "name another peer" in caught.value.hint
        assert (await Starter(9).settle(addresses)).nodes == (node_of(2), node_of(9))


async def unsaved(known: Removal) -> None:
    await trio.lowlevel.checkpoint()


async def test_a_wrong_token_is_told_at_once_naming_the_peer() -> None:
    there, newcomer = member(1), Starter(9, secret=bytes(32))
    async with serving(there, newcomer) as addresses:
        with pytest.raises(StartRefused, match=f"peer {there.address} does not accept this token") as caught:
            await newcomer.settle(addresses)
    assert "another token" in caught.value.cause and caught.value.hint


async def test_a_peer_without_a_cluster_admits_nobody() -> None:
    one, two = Starter(1), Starter(2)
    async with serving(two):
        reply = await ask(one.port, two.address, Join(BOOT_VERSION, node_of(1)))
    assert isinstance(reply, Refused) and reply.code == "unavailable"


async def test_a_member_welcomes_with_everybody_admitted() -> None:
    one, there = Starter(1), member(2)
    async with serving(there):
        reply = await ask(one.port, there.address, Join(BOOT_VERSION, node_of(1)))
    assert reply == Welcome(ClusterId("ab" * 16), 0, (node_of(2), node_of(1)))


async def test_a_desk_that_does_not_answer_is_given_up() -> None:
    one, two = Starter(1), Starter(2)

    async def silent(secure: SecureStream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await close_now(secure.stream)

    two.port.handle(PROTOCOL_BOOT, silent)
    async with serving(two):
        with pytest.raises(Unreachable, match="no answer within"):
            await ask(one.port, two.address, Greet(BOOT_VERSION, node_of(1), ()), timeout_s=0.1)


# ---- deciding ---------------------------------------------------------------------------------------------------------------


def greeting(number: int, known: Sequence[int] = (), *, cluster: str = "", complete: bool = True, found: bytes = b"") -> Greeting:
    ids = tuple(node_id_of(other) for other in known)
    return Greeting(BOOT_VERSION, node_of(number), ids, complete, ClusterId(cluster), 0, found)


def test_the_lowest_id_proposes_when_all_sets_are_equal() -> None:
    views = {"a": greeting(1, (1, 2)), "b": greeting(2, (1, 2))}
    assert decide(node_of(1), views) == ProposeFounding((node_of(1), node_of(2)))
    waiting = decide(node_of(2), views)
    assert isinstance(waiting, Wait) and "n1" in waiting.reasons[0]


@pytest.mark.parametrize(
    "second",
    [
        None,
        Unreachable("no route to host"),
        Unauthenticated("another token"),
        greeting(2, (2,)),
        greeting(2, (1, 2, 3)),
        greeting(2, (1, 2), complete=False),
    ],
)
def test_anything_less_than_agreement_waits_with_a_reason(second: Greeting | PeerError | None) -> None:
    decision = decide(node_of(1), {"a": greeting(1, (1, 2)), "b": second})
    assert isinstance(decision, Wait) and decision.reasons[0].startswith("b: ")


def test_two_nodes_of_one_name_do_not_found() -> None:
    twin = Node("2".rjust(32, "0"), "n1", *[getattr(node_of(2), field) for field in node_of(2).__struct_fields__[2:]])  # type: ignore[arg-type]
    other = Greeting(BOOT_VERSION, twin, (node_id_of(1), node_id_of(2)), True)
    decision = decide(node_of(1), {"a": greeting(1, (1, 2)), "b": other})
    assert isinstance(decision, Wait) and "named 'n1'" in decision.reasons[0]


def test_a_cluster_is_joined_although_others_are_out_of_reach_once_each_was_tried() -> None:
    views: dict[str, Greeting | PeerError | None] = {"a": None, "b": greeting(2, cluster="ab" * 16, found=b"x")}
    views["c"] = greeting(3, (3,))
    assert decide(node_of(1), views) == Wait(("a: not answered yet",))
    views["a"] = Unreachable("no route to host")
    assert decide(node_of(1), views) == JoinCluster(ClusterId("ab" * 16), ("b",), b"x")


def test_only_its_own_addresses_are_no_founding() -> None:
    decision = decide(node_of(1), {"a": greeting(1, (1,))})
    assert isinstance(decision, Wait) and "this node's own" in decision.reasons[0]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"has_token": True}, "a token, but no peers and no data"),
        ({"has_peers": True}, "without the token"),
        ({"witness": True}, "a witness cannot found a cluster"),
    ],
)
def test_a_start_that_does_not_say_what_to_do_is_refused(given: dict[str, bool], words: str) -> None:
    nothing = dict.fromkeys(("has_cluster", "has_token", "has_peers", "found", "witness"), False)
    with pytest.raises(StartRefused, match=words):
        check_start(**(nothing | given))
    check_start(**(nothing | given | {"has_cluster": True}))


@pytest.mark.parametrize("given", [
    {}, {"has_token": True, "found": True}, {"has_token": True, "has_peers": True},
    {"has_token": True, "has_peers": True, "witness": True},
])
def test_a_start_that_says_what_to_do_is_not_refused(given: dict[str, bool]) -> None:
    check_start(**(dict.fromkeys(("has_cluster", "has_token", "has_peers", "found", "witness"), False) | given))


def test_an_entry_with_voters_against_the_rule_is_no_founding() -> None:
    nodes = (node_of(1), node_of(2), node_of(3))
    payload = codec.encode(Found(ClusterId("ab" * 16), nodes, voters_of(nodes[:1])))
    with pytest.raises(BadMessage):
        belonging_of(codec.encode(Entry(1, 1, "found", 1, payload, 0, 1.0)))


