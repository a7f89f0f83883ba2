"""Over real TLS: what a rotation does to who may connect, and how a member that missed it gets back in."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from swarm.adapters.certificates import authority_of, contexts, issue, rejoin_contexts
from swarm.adapters.seal import open_as_node, seal_to_node
from swarm.adapters.tcp import PeerPort, listener_port, open_listener
from swarm.drivers import rejoin
from swarm.drivers.keys import KeyStore
from swarm.drivers.link import close_now
from swarm.drivers.rejoin import Leading, Rejoining, believed
from swarm.drivers.rejoin_desk import STRANGERS_MAX, RejoinDesk
from swarm.drivers.removal import OwnRemoval, removal_said
from swarm.drivers.streams import Streams
from swarm.errors import BadMessage, NoMember, Unauthenticated, Unavailable
from swarm.model.generation import next_generation
from swarm.model.ids import ClusterId, NodeId
from swarm.model.node import Node
from swarm.model.removal import Removal
from swarm.model.secret import Authority, SecretRecord, Secrets
from swarm.ports import PROTOCOL_PEER, PROTOCOL_REJOIN, SecureStream
from swarm.wire.boot import Refused
from swarm.wire.codec import encode
from swarm.wire.frame import PROTOCOL_VERSION, Hello
from swarm.wire.keys import cluster_salt
from swarm.wire.rejoin import GENERATION_UNSAID, Follows, Handed, decode_handed_untrusted, handed_purpose
from tests.fakes.loopback_members import CLUSTER, key_of, node_id_of, node_of

SALT = cluster_salt(CLUSTER)
SECRETS = [bytes([number]) * 32 for number in range(4)]
RECOVERED, RIVAL = (next_generation(0, random.Random(seed)) for seed in (1, 2))
RECOVERED_AGAIN = next_generation(RECOVERED, random.Random(3))
AUTHORITIES = [authority_of(secret, SALT) for secret in SECRETS]


class Held:
    """A `KeyStore` that holds what it is given."""

    def __init__(self, number: int, sending: int, accepted: tuple[int, ...] = ()) -> None:
        self.number = number
        self.handed = Handed(CLUSTER, SECRETS[sending], tuple(SECRETS[each] for each in accepted))
        self.pinned: frozenset[NodeId] = frozenset()

    @property
    def held(self) -> frozenset[bytes]:
        return frozenset(self.fingerprint_of(each) for each in (self.handed.sending, *self.handed.accepted))

    @property
    def sends(self) -> bytes:
        return self.fingerprint_of(self.handed.sending)

    def fingerprint_of(self, secret: bytes) -> bytes:
        return authority_of(secret, SALT).fingerprint

    def open_copy(self, sealed: bytes, fingerprint: bytes) -> bytes | None:
        raise AssertionError("no log here")

    def open_handed(self, sealed: bytes) -> Handed:
        plain = open_as_node(key_of(self.number), sealed, handed_purpose(CLUSTER))
        return decode_handed_untrusted(plain, CLUSTER)

    def hand_to(self, node: Node) -> bytes:
        return seal_to_node(node.public_key, encode(self.handed), handed_purpose(CLUSTER))

    async def change(
        self, *, add: tuple[bytes, ...] = (), send: bytes = b"", forget: tuple[bytes, ...] = (), members: tuple[NodeId, ...] = ()
    ) -> None:
        raise AssertionError("no log here")

    async def learn(self, secrets: Secrets, members: tuple[NodeId, ...]) -> None:
        raise AssertionError("no log here")


class NoLeader:
    """Until `answers` is set."""

    leader_contact_age_s = math.inf
    answers = False
    comes = staticmethod(trio.lowlevel.checkpoint)
    """Waits for the log up to the leader's answer."""

    async def read_barrier(self, timeout_s: float = 3.0) -> int:
        await trio.lowlevel.checkpoint()
        if not self.answers:
            raise Unavailable("no leader in reach")
        return 1

    async def wait_applied(self, index: int) -> None:
        assert index == 1
        await self.comes()


class Member:
    """A daemon's peer port: streams, and the rejoin handshake in both directions."""

    def __init__(
        self, number: int, sending: int, *, accepted: tuple[int, ...] = (), retired: tuple[int, ...] = (), generation: int = 0
    ) -> None:
        self.number, self.node_id = number, node_id_of(number)
        self.store = Held(number, sending, accepted)
        self.admitted: dict[NodeId, Node] = {}
        self.port = PeerPort()
        self.retired = retired
        self.put_in_force()
        hello = Hello(CLUSTER, self.node_id, PROTOCOL_VERSION, 1, generation)
        self.streams = Streams(
            hello=hello, dialer=self.port, admitted=self.admitted.get, rng=random.Random(number), on_stream=self.on_stream
        )
        store: KeyStore = self.store
        self.secrets = Secrets(tuple(SecretRecord(each, AUTHORITIES[each]) for each in sorted({sending, *accepted})), sending)
        self.removed: set[NodeId] = set()
        self.has_read = True
        self.desk = RejoinDesk(
            CLUSTER, generation, store, self.admitted.get, lambda: self.secrets, lambda: self.removed, lambda: self.has_read
        )  # fmt: skip
        self.leader = NoLeader()
        self.marks: list[Removal] = []
        self.told: list[Removal] = []
        self.removal = OwnRemoval(Removal.NONE, self.mark, self.told.append)
        self.is_following = False
        self.heard: list[int] = []
        self.handed: list[Handed | None] = []
        self.rejoining = Rejoining(
            self.node_id, CLUSTER, generation, store, self.streams, self.port, lambda: self.admitted, self.replace,
            leader=self.leader, removal=self.removal, recovery=self,
        )  # fmt: skip
        self.port.handle(PROTOCOL_PEER, self.streams.accept)
        self.port.handle(PROTOCOL_REJOIN, self.desk.accept)
        self.connected = trio.Event()
        self.address = ""

    def on_generation(self, node_id: NodeId, generation: int, handed: Handed | None = None) -> None:
        self.heard.append(generation)
        self.handed.append(handed)

    async def mark(self, known: Removal) -> None:
        await trio.lowlevel.checkpoint()
        self.marks.append(known)

    def forget(self, other: Member) -> None:
        """The log here removes it."""
        del self.admitted[other.node_id]
        self.removed.add(other.node_id)
        self.streams.recheck()

    def put_in_force(self) -> None:
        handed = self.store.handed
        credentials = issue(handed.sending, SALT, self.node_id, key_of(self.number))
        held = [authority_of(each, SALT) for each in handed.accepted]
        self.port.use(PROTOCOL_PEER, contexts(credentials, PROTOCOL_PEER, held))
        trusted = [*(AUTHORITIES[each] for each in self.retired), *held]
        self.port.use(PROTOCOL_REJOIN, rejoin_contexts(credentials, PROTOCOL_REJOIN, trusted))

    async def replace(self, handed: Handed) -> None:
        self.store.handed = handed
        self.put_in_force()

    def on_stream(self, node_id: NodeId, connected: bool) -> None:
        if connected:
            self.connected.set()

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        listener = await open_listener("127.0.0.1", 0)
        self.address = f"127.0.0.1:{listener_port(listener)}"
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(functools.partial(self.port.serve, listener))
                await nursery.start(self.streams.run)
                task_status.started()
        finally:
            listener.socket.close()


@asynccontextmanager
async def running(*members: Member) -> AsyncIterator[trio.Nursery]:
    """All of them, each admitted by all and dialing all."""
    async with trio.open_nursery() as nursery:
        for member in members:
            await nursery.start(member.serve)
        for member in members:
            for other in members:
                member.admitted[other.node_id] = node_of(other.number, other.address)
        for member in members:
            member.streams.set_members({other.node_id: other.address for other in members})
        yield nursery
        nursery.cancel_scope.cancel()


async def estranged(member: Member, *others: Member) -> None:
    """Wait until it knows that it is left behind."""
    wanted = {other.node_id for other in others}
    with trio.fail_after(10):
        while {node_id for node_id, _ in member.streams.estranged()} != wanted:
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_member_that_missed_three_rotations_is_handed_the_present_secret_and_connects() -> None:
    away, one, two = Member(3, 0), Member(1, 3, retired=(0, 1, 2)), Member(2, 3, retired=(0, 1, 2))
    async with running(away, one, two) as nursery:
        await estranged(away, one, two)
        nursery.start_soon(away.rejoining.run)
        with trio.fail_after(10):
            await away.connected.wait()
        assert away.store.handed == Handed(CLUSTER, SECRETS[3])
        assert away.streams.estranged() == []
        assert one.desk.counters["rejoin_handed"] == 1


async def test_one_that_has_the_new_secret_but_still_shows_the_retired_one_comes_back_too() -> None:
    away, one = Member(3, 0, accepted=(1,)), Member(1, 1, retired=(0,))
    async with running(away, one) as nursery:
        await estranged(away, one)
        nursery.start_soon(away.rejoining.run)
        with trio.fail_after(10):
            await away.connected.wait()
        assert away.store.handed == Handed(CLUSTER, SECRETS[1])


async def test_a_removed_node_with_its_old_folder_is_refused_and_told_why() -> None:
    removed, one, two = Member(3, 0), Member(1, 1, retired=(0,)), Member(2, 1, retired=(0,))
    async with running(removed, one, two):
        for member in (one, two):
            member.forget(removed)
        await estranged(removed, one, two)
        await removed.rejoining._round()
        assert "was removed" in removed.rejoining.refused
        assert removed.removal.certain and removed.marks == removed.told == [Removal.CERTAIN]
        assert removed.store.handed.sending == SECRETS[0]
        assert one.desk.counters == {"rejoin_refused": 1}


@pytest.mark.parametrize(
    ("asker", "stale"), [(RECOVERED, 0), (RECOVERED_AGAIN, RECOVERED), (RECOVERED, RIVAL), (GENERATION_UNSAID, 0)]
)
async def test_a_log_of_another_generation_that_took_not_the_place_of_the_askers_says_nothing_of_its_removal(
    asker: int, stale: int
) -> None:
    """A node that was recovered, and may be the only one that works, meets those that had removed it before."""
    recovered = Member(3, 0, generation=asker)
    others = Member(1, 1, retired=(0,), generation=stale), Member(2, 1, retired=(0,), generation=stale)
    async with running(recovered, *others):
        for member in others:
            member.forget(recovered)
        await estranged(recovered, *others)
        await recovered.rejoining._round()
        assert [member.desk.counters for member in others] == 2 * [{"rejoin_refused": 1}]
        assert recovered.marks == recovered.told == []


@pytest.mark.parametrize(("asker", "present"), [(RECOVERED, RECOVERED), (0, RECOVERED), (RECOVERED, RECOVERED_AGAIN)])
async def test_a_log_of_the_askers_generation_or_of_one_that_took_its_place_says_that_it_was_removed(
    asker: int, present: int
) -> None:
    removed, one = Member(3, 0, generation=asker), Member(1, 1, retired=(0,), generation=present)
    async with running(removed, one):
        one.forget(removed)
        await estranged(removed, one)
        await removed.rejoining._round()
        assert removed.told == [Removal.TOLD]


@pytest.mark.parametrize("heard", [True, False])
async def test_a_node_with_a_leader_learns_nothing_of_its_removal_from_others(heard: bool) -> None:
    """Whether it leads itself, hears one, or one only answers it; whatever those others say and however many they are."""
    healthy, one, two = Member(3, 0), Member(1, 1, retired=(0,)), Member(2, 1, retired=(0,))
    async with running(healthy, one, two):
        for member in (one, two):
            member.forget(healthy)
        await estranged(healthy, one, two)
        healthy.leader.leader_contact_age_s = 0.0 if heard else math.inf
        healthy.leader.answers = not heard
        await healthy.rejoining._round()
        assert all(member.desk.counters["rejoin_refused"] == 1 for member in (one, two))
        assert heard != ("was removed" in healthy.rejoining.refused), "nobody is advised to reset a node that works"
        assert healthy.marks == healthy.told == []


async def wait_for(condition: Callable[[], object]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.01)


def hears_a_leader(*members: Member) -> None:
    for member in members:
        member.leader.leader_contact_age_s, member.leader.answers = 0.0, True


async def test_old_voters_that_came_back_together_and_have_a_leader_follow_a_recovery_they_were_removed_in() -> None:
    """A majority of the three that they know, and under a retired secret; the one that was recovered has removed both."""
    first, second, recovered = Member(3, 0), Member(4, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(first, second, recovered) as nursery:
        for member in (first, second):
            recovered.forget(member)
        hears_a_leader(first, second)
        await estranged(first, recovered)
        nursery.start_soon(first.rejoining.run)
        await wait_for(lambda: first.heard)
        assert (first.heard, first.handed) == ([RECOVERED], [None]) and first.store.handed.sending == SECRETS[0]
        assert recovered.desk.counters == {"rejoin_generation_asked": 1, "rejoin_refused": 1}


async def test_those_that_follow_a_recovery_have_its_secret_however_few_can_hand_it_over() -> None:
    """One of four was recovered, and removed nobody: it and the one that asks are no majority, once that has no leader."""
    olds, recovered = [Member(number, 0) for number in (3, 4, 5)], Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(*olds, recovered):
        for member in olds:
            await estranged(member, recovered)
        hears_a_leader(*olds)
        for member in olds:
            assert await member.rejoining._look_for_a_leader() is Leading.SUPERSEDED
            assert (member.heard, member.handed) == ([RECOVERED], [Handed(CLUSTER, SECRETS[1])])
            assert member.store.handed.sending == SECRETS[0], "it goes with the generation, in one write"


async def test_a_recovered_member_that_can_hand_over_no_secret_yet_is_followed_when_it_can() -> None:
    old, recovered = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    present, recovered.secrets = recovered.secrets, Secrets((), 0)
    async with running(old, recovered):
        await estranged(old, recovered)
        hears_a_leader(old)
        assert await old.rejoining._look_for_a_leader() is Leading.SUPERSEDED
        assert old.heard == [] and recovered.desk.counters["rejoin_not_yet"] == 1
        recovered.secrets = present
        assert await old.rejoining._look_for_a_leader() is Leading.SUPERSEDED
        assert (old.heard, old.handed) == ([RECOVERED], [Handed(CLUSTER, SECRETS[1])])


async def test_who_is_unknown_to_the_recovered_cluster_follows_it_without_its_secret() -> None:
    """It was admitted by the others after the recovery, say; an answer from a log that was not read yet is none."""
    old, recovered = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(old, recovered):
        del recovered.admitted[old.node_id]
        recovered.streams.recheck()
        await estranged(old, recovered)
        hears_a_leader(old)
        recovered.has_read = False
        assert await old.rejoining._look_for_a_leader() is Leading.PRESENT
        recovered.has_read = True
        assert await old.rejoining._look_for_a_leader() is Leading.SUPERSEDED
        assert (old.heard, old.handed) == ([RECOVERED], [None])


async def test_one_that_was_removed_while_the_secret_is_still_the_old_one_hears_of_the_recovery_too() -> None:
    """Until the rotation is through the certificates are good, and the removed one is refused in words."""
    old, recovered = Member(3, 0), Member(1, 0, accepted=(1,), generation=RECOVERED)
    async with running(old, recovered) as nursery:
        recovered.forget(old)
        hears_a_leader(old)
        nursery.start_soon(old.rejoining.run)
        await wait_for(lambda: old.heard)
        assert old.heard == [RECOVERED] and old.streams.estranged() == [] != old.streams.refusals()


async def test_the_only_voter_of_an_earlier_generation_learns_that_it_was_removed_although_it_leads() -> None:
    """Of two nodes, the one that was lost, removed after the recovery of the other, and comes back."""
    removed, one = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(removed, one) as nursery:
        one.forget(removed)
        await estranged(removed, one)
        hears_a_leader(removed)
        await removed.rejoining._round()
        assert removed.told == removed.marks == [Removal.TOLD] and removed.heard == [RECOVERED]
        nursery.start_soon(removed.rejoining.run)
        await wait_for(lambda: len(removed.heard) > 1)
        assert removed.told == [Removal.TOLD], "its own answer takes nothing back"


async def test_who_else_is_asked_only_while_a_leader_is_heard_and_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejoin, "LOOK_S", 0.01)
    node, one = Member(3, 0), Member(1, 1, retired=(0,))
    async with running(node, one) as nursery:
        await estranged(node, one)
        rounds = 0

        async def count() -> None:
            nonlocal rounds
            rounds += 1
            await trio.lowlevel.checkpoint()

        node.rejoining._round = count  # type: ignore[method-assign]
        nursery.start_soon(node.rejoining.run)
        node.leader.answers = True
        await wait_for(lambda: rounds >= 10)
        assert one.desk.counters["rejoin_generation_asked"] == 0, "no leader is heard"
        node.leader.leader_contact_age_s = 0.0
        await wait_for(lambda: one.desk.counters["rejoin_generation_asked"])
        rounds = 0
        node.admitted[node_id_of(5)] = node_of(5)  # out of reach, so it is left behind, and the rounds go on
        await wait_for(lambda: rounds >= 10)
        assert one.desk.counters["rejoin_generation_asked"] == 1
        monkeypatch.setattr(rejoin, "GENERATION_EVERY_S", 0.0)
        one.desk._generation = RECOVERED
        await wait_for(lambda: node.heard)
        assert one.desk.counters["rejoin_generation_asked"] >= 2


@pytest.mark.parametrize(
    ("asker", "other", "has_read", "heard"),
    [
        (0, 0, True, []),
        (RECOVERED, RECOVERED, True, []),
        (RECOVERED, 0, True, [0]),
        (RECOVERED, RIVAL, True, [RIVAL]),
        (0, RECOVERED, False, []),
        (RECOVERED, RECOVERED_AGAIN, False, []),
    ],
)
async def test_a_leaders_answer_stands_when_nobody_of_a_later_recovery_with_a_log_is_met(
    asker: int, other: int, has_read: bool, heard: list[int]
) -> None:
    node, one = Member(3, 0, generation=asker), Member(1, 1, retired=(0,), generation=other)
    one.has_read = has_read
    async with running(node, one):
        one.forget(node)
        await estranged(node, one)
        await node.removal.learn(Removal.TOLD)
        node.leader.answers = True
        assert await node.rejoining._look_for_a_leader() is Leading.PRESENT
        assert node.heard == heard
        assert node.told == [Removal.TOLD, Removal.NONE] and node.store.handed.sending == SECRETS[0]


@pytest.mark.parametrize("is_in_reach", [True, False])
async def test_the_leader_of_a_superseded_recovery_takes_no_removal_back(is_in_reach: bool) -> None:
    """It was told by the recovered member; then the other old voters came, and elected one; the recovered member may be gone."""
    removed, one = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(removed, one):
        one.forget(removed)
        await estranged(removed, one)
        await removed.rejoining._round()
        assert removed.told == [Removal.TOLD] and removed.heard == [], "followed only with a leader to vouch for its log"
        hears_a_leader(removed)
        if not is_in_reach:
            one.port.handle(PROTOCOL_REJOIN, lambda secure: close_now(secure.stream))
        await removed.rejoining._look_for_a_leader()
        assert removed.told == [Removal.TOLD] and removed.heard == ([RECOVERED] if is_in_reach else [])


async def test_a_leader_that_was_found_superseded_once_takes_nothing_back_when_the_recovered_member_is_gone() -> None:
    node, one = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(node, one):
        await estranged(node, one)
        await node.removal.learn(Removal.TOLD)
        hears_a_leader(node)
        assert await node.rejoining._look_for_a_leader() is Leading.SUPERSEDED
        one.port.handle(PROTOCOL_REJOIN, lambda secure: close_now(secure.stream))
        assert await node.rejoining._look_for_a_leader() is Leading.SUPERSEDED
        assert node.told == [Removal.TOLD]


async def test_of_two_recoveries_the_later_one_is_followed() -> None:
    node = Member(4, 0)
    former = Member(1, 2, retired=(0,), generation=RECOVERED)
    later = Member(2, 1, retired=(0,), generation=RECOVERED_AGAIN)
    async with running(node, later, former):
        await estranged(node, later, former)
        hears_a_leader(node)
        assert await node.rejoining._look_for_a_leader() is Leading.SUPERSEDED
        assert (node.heard, node.handed) == ([RECOVERED_AGAIN], [Handed(CLUSTER, SECRETS[1])])


@pytest.mark.parametrize("hears", [True, False])
@pytest.mark.parametrize("liars", [1, 2])
async def test_the_lie_of_removed_nodes_ends_when_a_leader_answers_and_the_log_is_read(liars: int, hears: bool) -> None:
    """They make authorities of their own and a recovery that never was; this node was away while they were removed."""
    node, others = Member(3, 0), [Member(each, 1, retired=(0,), generation=RECOVERED) for each in range(4, 4 + liars)]
    async with running(node, *others):
        for liar in others:
            liar.forget(node)
        await estranged(node, *others)

        async def log_comes() -> None:
            await trio.lowlevel.checkpoint()
            for liar in others:
                node.admitted.pop(liar.node_id, None)

        if hears:
            hears_a_leader(node)
            node.leader.comes = log_comes  # type: ignore[method-assign]
            await node.rejoining._round()
            assert node.told == node.heard == [] and not node.rejoining.refused, "nothing while a leader is heard"
            return
        await node.rejoining._round()
        assert node.told == [Removal.CERTAIN if liars == 2 else Removal.TOLD]
        node.leader.comes = log_comes  # type: ignore[method-assign]
        hears_a_leader(node)
        assert await node.rejoining._look_for_a_leader() is Leading.PRESENT
        assert node.told[-1] is Removal.NONE and node.heard == []


@pytest.mark.parametrize(("of_its_own", "known"), [((4, 5), Removal.TOLD), ((4, 5, 6), Removal.CERTAIN)])
async def test_those_of_its_own_and_of_a_later_generation_that_say_a_node_was_removed_are_neither_added_up_nor_hidden(
    of_its_own: tuple[int, ...], known: Removal
) -> None:
    """Three of the four members known would make it certain; three of five do, whatever one says for a later recovery."""
    node = Member(3, 0)
    own = [Member(each, 1, retired=(0,)) for each in of_its_own]
    later = Member(1, 2, retired=(0,), generation=RECOVERED)
    async with running(node, *own, later):
        for member in (*own, later):
            member.forget(node)
        await estranged(node, *own, later)
        await node.rejoining._round()
        assert node.told == [known]


async def test_any_member_of_the_recovered_cluster_may_hand_over_its_secret() -> None:
    old = Member(5, 0)
    there = [Member(each, 1, retired=(0,), generation=RECOVERED) for each in (1, 2, 3)]
    there[0].secrets = Secrets((), 0)  # has not read far enough
    async with running(old, *there):
        there[1].forget(old)
        await estranged(old, *there)
        hears_a_leader(old)
        assert await old.rejoining._look_for_a_leader() is Leading.SUPERSEDED
        assert (old.heard, old.handed) == ([RECOVERED], [Handed(CLUSTER, SECRETS[1])])


async def test_one_that_is_removed_while_it_is_asked_for_its_secret_is_not_followed() -> None:
    node, liar = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(node, liar):
        await estranged(node, liar)
        ask = node.rejoining._ask_secrets

        async def ask_slowly(member: Node) -> Handed:
            handed = await ask(member)
            del node.admitted[liar.node_id]
            return handed

        node.rejoining._ask_secrets = ask_slowly  # type: ignore[method-assign]
        hears_a_leader(node)
        await node.rejoining._look_for_a_leader()
        assert node.heard == []


async def test_a_node_that_is_about_to_follow_takes_no_secret_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would start anew in one recovery with the secret of another."""
    monkeypatch.setattr(rejoin, "LOOK_S", 0.01)
    node, one, two = Member(3, 0), Member(1, 1, retired=(0,)), Member(2, 1, retired=(0,))
    node.is_following = True
    async with running(node, one, two) as nursery:
        await estranged(node, one, two)
        looks, left_behind = 0, node.rejoining._left_behind

        def count() -> bool:
            nonlocal looks
            looks += 1
            return left_behind()

        node.rejoining._left_behind = count  # type: ignore[method-assign]
        nursery.start_soon(node.rejoining.run)
        await wait_for(lambda: looks > 3)
        assert one.desk.counters == two.desk.counters == {} and node.store.handed.sending == SECRETS[0]
        node.is_following = False
        await wait_for(lambda: node.store.handed.sending == SECRETS[1])


async def test_who_is_no_member_by_the_leaders_answer_is_not_counted_with_those_of_a_later_recovery() -> None:
    node, liar, later = Member(3, 0), Member(4, 1, retired=(0,)), Member(1, 2, retired=(0,), generation=RECOVERED)
    async with running(node, liar, later):
        later.forget(node)
        await estranged(node, liar, later)

        async def log_comes() -> None:
            await trio.lowlevel.checkpoint()
            node.admitted.pop(liar.node_id, None)

        node.admitted[node_id_of(5)] = node_of(5)  # three members are left, and two that say so would be a majority of them
        node.leader.comes, node.leader.answers = log_comes, True  # type: ignore[method-assign]
        await node.rejoining._learn({liar.node_id, later.node_id}, {liar.node_id, later.node_id})
        assert node.told == [Removal.TOLD]


async def test_one_that_says_so_is_outweighed_by_those_that_hand_over_a_secret() -> None:
    """It may have missed that a recovery took the removal back, or lie."""
    node, says_so = Member(3, 0), Member(4, 2, retired=(0,))
    others = [Member(each, 1, retired=(0,)) for each in (1, 2)]
    async with running(node, says_so, *others):
        says_so.forget(node)
        await estranged(node, says_so, *others)
        await node.rejoining._round()
        assert node.told == [] and node.store.handed.sending == SECRETS[1]


async def test_what_members_of_a_superseded_leaders_generation_say_of_a_removal_is_not_learned() -> None:
    node, own, later = Member(3, 0), Member(4, 1, retired=(0,)), Member(1, 2, retired=(0,), generation=RECOVERED)
    async with running(node, own, later):
        own.forget(node)
        await estranged(node, own, later)
        node.leader.answers = True
        await node.rejoining._learn({own.node_id}, set())
        assert node.heard == [RECOVERED] and node.told == []


@pytest.mark.parametrize("while_asked", [True, False])
async def test_one_that_the_log_here_has_removed_by_the_leaders_answer_is_not_followed(while_asked: bool) -> None:
    """It says whatever it likes, until the log that the leader's answer stands for names it no more."""
    node, liar = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED_AGAIN)
    async with running(node, liar):
        await estranged(node, liar)

        async def log_comes() -> None:
            await trio.lowlevel.checkpoint()
            del node.admitted[liar.node_id]

        if while_asked:
            ask = node.rejoining._ask_generation

            async def ask_slowly(member: Node) -> int:
                generation = await ask(member)
                await log_comes()
                return generation

            node.rejoining._ask_generation = ask_slowly  # type: ignore[method-assign]
        else:
            node.leader.comes = log_comes  # type: ignore[method-assign]
        node.leader.answers = True
        assert await node.rejoining._look_for_a_leader() is Leading.PRESENT
        assert node.heard == [] and node.store.handed.sending == SECRETS[0]


async def test_another_key_at_a_members_address_is_not_followed() -> None:
    """Whoever ever held the secret, or anybody at all, may listen there: the asker cannot check the authority."""
    node, forger = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED_AGAIN)
    async with running(node, forger):
        node.admitted[forger.node_id] = node_of(1, forger.address, key_number=9)
        await estranged(node, forger)
        node.leader.answers = True
        assert await node.rejoining._look_for_a_leader() is Leading.PRESENT
        assert node.heard == []


async def test_another_clusters_recovery_is_not_told() -> None:
    node, one = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(node, one):
        await estranged(node, one)
        node.rejoining._cluster_id = ClusterId("ef" * 16)
        with pytest.raises(Unauthenticated):
            await node.rejoining._ask_generation(node.admitted[one.node_id])


async def test_while_the_log_is_behind_the_leaders_answer_nothing_is_learned_taken_back_or_followed() -> None:
    node, one = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    async with running(node, one):
        await estranged(node, one)
        node.leader.comes = trio.sleep_forever  # type: ignore[method-assign]
        node.leader.answers = True
        await node.rejoining._learn({one.node_id}, {one.node_id})
        assert node.told == []
        await node.removal.learn(Removal.TOLD)
        assert await node.rejoining._look_for_a_leader() is Leading.BEHIND
        assert node.told == [Removal.TOLD] and node.heard == []


async def test_an_answer_to_another_question_is_none() -> None:
    node, one = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    one.desk._answer = lambda question, secure: Follows(RECOVERED)  # type: ignore[method-assign]
    async with running(node, one):
        await estranged(node, one)
        with pytest.raises(BadMessage, match="another question"):
            await node.rejoining._ask_secrets(node.admitted[one.node_id])


async def test_a_program_that_does_not_know_the_question_is_not_followed() -> None:
    node, older = Member(3, 0), Member(1, 1, retired=(0,), generation=RECOVERED)
    answer = older.desk._answer
    older.desk._answer = lambda question, secure: answer(  # type: ignore[method-assign]
        msgspec.structs.replace(question, generation_only=False), secure
    )
    async with running(node, older):
        await estranged(node, older)
        node.leader.answers = True
        assert await node.rejoining._look_for_a_leader() is Leading.PRESENT
        assert node.heard == []


async def test_a_removal_taken_back_while_the_disk_was_full_is_written_when_there_is_room() -> None:
    marks, is_full = list[Removal](), True

    async def save(known: Removal) -> None:
        if is_full and known is Removal.NONE:
            raise Unavailable("no room")
        marks.append(known)

    removal = OwnRemoval(Removal.NONE, save, lambda known: None)
    await removal.learn(Removal.TOLD)
    await removal.revoke()
    assert (removal.known, removal.is_unsaved, marks) == (Removal.NONE, True, [Removal.TOLD])
    is_full = False
    await removal.revoke()
    assert not removal.is_unsaved and marks == [Removal.TOLD, Removal.NONE]


async def test_what_status_says_of_a_refusal_ends_when_the_node_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejoin, "LOOK_S", 0.01)
    node, one = Member(3, 0), Member(1, 1, retired=(0,))
    async with running(node, one) as nursery:
        one.forget(node)
        await estranged(node, one)
        nursery.start_soon(node.rejoining.run)
        await wait_for(lambda: node.rejoining.refused)
        node.admitted.pop(one.node_id)
        node.streams.set_members({})
        await wait_for(lambda: not node.rejoining.refused)


async def test_the_word_of_others_is_revoked_by_a_leader_also_while_most_members_are_out_of_reach() -> None:
    healthy, one, two = Member(3, 0), Member(1, 1, retired=(0,)), Member(2, 1, retired=(0,))
    async with running(healthy, one, two) as nursery:
        for member in (one, two):
            member.forget(healthy)
        await estranged(healthy, one, two)
        await healthy.rejoining._round()
        assert healthy.told == [Removal.CERTAIN]
        healthy.leader.answers = True
        nursery.start_soon(healthy.rejoining.run)
        with trio.fail_after(10):
            while healthy.removal.known:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert healthy.marks == healthy.told == [Removal.CERTAIN, Removal.NONE]


async def test_the_refusal_of_a_program_that_looks_at_no_generation_is_not_believed() -> None:
    away, older = Member(3, 0), Member(1, 1, retired=(0,))
    older.desk._answer = lambda question, secure: Refused(NoMember.code, "no member any more")  # type: ignore[method-assign]
    async with running(away, older):
        await estranged(away, older)
        await away.rejoining._round()
        assert away.marks == away.told == []


def test_only_a_majority_of_the_members_known_makes_a_node_certain_and_it_does_not_count_itself() -> None:
    pairs = [(known, saying) for known in range(1, 8) for saying in range(known)]
    certain = {pair for pair in pairs if removal_said(*pair) is Removal.CERTAIN}
    assert certain == {(3, 2), (4, 3), (5, 3), (5, 4), (6, 4), (6, 5), (7, 4), (7, 5), (7, 6)}
    assert removal_said(3, 0) is Removal.NONE and removal_said(3, 1) is Removal.TOLD


async def test_two_nodes_that_were_removed_together_are_told_although_they_reach_each_other() -> None:
    """Together a majority of the three that they know; neither would ask anybody if that were enough."""
    first, second, present = Member(3, 0), Member(4, 0), Member(1, 1, retired=(0,))
    async with running(first, second, present) as nursery:
        for member in (first, second):
            present.forget(member)
        with trio.fail_after(10):
            await first.connected.wait()
        await estranged(first, present)
        first.connected = trio.Event()
        nursery.start_soon(first.rejoining.run)
        with trio.fail_after(10):
            while first.removal.known is not Removal.TOLD:
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_one_that_does_not_know_a_node_is_not_taken_to_have_removed_it() -> None:
    """Its log may not have come to the admission yet."""
    newcomer, behind = Member(3, 0), Member(1, 1, retired=(0,))
    async with running(newcomer, behind):
        del behind.admitted[newcomer.node_id]
        behind.streams.recheck()
        await estranged(newcomer, behind)
        await newcomer.rejoining._round()
        assert newcomer.rejoining.refused and newcomer.marks == newcomer.told == []


async def test_the_word_of_a_minority_is_kept_and_a_leaders_answer_revokes_it() -> None:
    away, liar = Member(3, 0), Member(1, 2, retired=(0,))
    async with running(away, liar):
        for number in (4, 5, 6):
            away.admitted[node_id_of(number)] = node_of(number)
        liar.forget(away)
        await estranged(away, liar)
        await away.rejoining._round()
        assert away.marks == [Removal.TOLD] and not away.removal.certain
        await away.rejoining._look_for_a_leader()
        assert away.marks == [Removal.TOLD], "nobody leads"
        away.leader.answers = True
        await away.rejoining._look_for_a_leader()
        assert away.marks == away.told == [Removal.TOLD, Removal.NONE]


async def test_what_the_log_here_says_of_the_removal_is_final() -> None:
    told: list[Removal] = []
    removal = OwnRemoval(Removal.NONE, Member(3, 0).mark, told.append)
    removal.read_in_log(False)
    assert told == []
    removal.read_in_log(True)
    await removal.revoke()
    assert told == [Removal.CERTAIN] and removal.certain and not removal.may_be_wrong


async def test_removed_nodes_that_connect_and_say_nothing_hold_few_places_and_none_of_the_members() -> None:
    removed, away, one = Member(4, 0), Member(3, 0), Member(1, 1, retired=(0,))
    async with running(removed, away, one):
        del one.admitted[removed.node_id]
        silent = [await removed.port.dial(one.address, PROTOCOL_REJOIN) for _ in range(STRANGERS_MAX + 1)]
        try:
            with trio.fail_after(10):
                assert await silent[-1].stream.receive_some() == b"", "the last one is turned away"
            assert one.desk.counters == {"rejoin_strangers_full": 1}
            handed = await away.rejoining._ask_secrets(away.admitted[one.node_id])
            assert handed.sending == SECRETS[1]
        finally:
            for secure in silent:
                await close_now(secure.stream)


async def test_a_secret_that_the_log_here_does_not_tell_of_is_handed_only_to_members_of_the_moment_it_was_taken() -> None:
    """Its log may still admit a node with whose removal the secret was brought in."""
    away, handed = Member(3, 0), Member(1, 1, retired=(0,))
    handed.secrets = Secrets((SecretRecord(0, AUTHORITIES[0]),), 0)
    async with running(away, handed):
        await estranged(away, handed)
        await away.rejoining._round()
        assert handed.desk.counters == {"rejoin_not_yet": 1} and away.rejoining.refused == ""
        assert away.store.handed.sending == SECRETS[0]
        handed.store.pinned = frozenset({away.node_id})
        await away.rejoining._round()
        assert away.store.handed.sending == SECRETS[1]


async def test_another_key_under_a_members_id_is_refused() -> None:
    """A former member has a retired authority's key: it can sign itself a certificate in anybody's name."""
    forger, one = Member(3, 0), Member(1, 1, retired=(0,))
    async with running(forger, one):
        one.admitted[forger.node_id] = node_of(3, forger.address, key_number=4)
        await estranged(forger, one)
        await forger.rejoining._round()
        assert one.desk.counters == {"rejoin_refused": 1}


async def test_a_certificate_of_an_authority_the_cluster_never_had_ends_in_the_handshake() -> None:
    stranger, one = Member(3, 2), Member(1, 1, retired=(0,))
    async with running(stranger, one):
        await estranged(stranger, one)
        await stranger.rejoining._round()
        assert stranger.store.handed.sending == SECRETS[2]
        assert one.desk.counters == {} and one.port.counters["unauthenticated"]


async def test_the_answer_of_a_minority_is_not_believed() -> None:
    """Of five members one that was removed hands over a secret of its own; the others are out of reach."""
    away, liar = Member(3, 0), Member(1, 2, retired=(0,))
    async with running(away, liar):
        for number in (4, 5, 6):
            away.admitted[node_id_of(number)] = node_of(number)
        await estranged(away, liar)
        await away.rejoining._round()
        assert liar.desk.counters["rejoin_handed"] == 1
        assert away.store.handed.sending == SECRETS[0]


def test_only_one_majority_is_believed() -> None:
    true, false = Handed(CLUSTER, SECRETS[1]), Handed(CLUSTER, SECRETS[2])
    assert believed([true, true, false], known=5) == true
    assert believed([true], known=2) == true
    assert believed([true], known=4) is None
    assert believed([true, false], known=3) is None
    assert believed([], known=1) is None


async def dials(one: PeerPort, other: PeerPort) -> str:
    """One handshake to its end, and what came of it at the dialer: `connected` or `refused`."""
    listener, came_of_it = await open_listener("127.0.0.1", 0), "connected"
    async with trio.open_nursery() as nursery:
        await nursery.start(functools.partial(other.serve, listener))
        try:
            secure = await one.dial(f"127.0.0.1:{listener_port(listener)}", PROTOCOL_PEER)
            try:
                await secure.stream.receive_some()
            finally:
                await trio.aclose_forcefully(secure.stream)
        except (Unauthenticated, trio.BrokenResourceError):
            came_of_it = "refused"
        nursery.cancel_scope.cancel()
    listener.socket.close()
    return came_of_it


def port_of(number: int, sending: int, accepted: tuple[int, ...] = ()) -> PeerPort:
    port = PeerPort()
    credentials = issue(SECRETS[sending], SALT, node_id_of(number), key_of(number))
    port.use(PROTOCOL_PEER, contexts(credentials, PROTOCOL_PEER, [AUTHORITIES[each] for each in accepted]))

    async def close(secure: SecureStream) -> None:
        await secure.stream.send_all(b"welcome")
        await close_now(secure.stream)

    port.handle(PROTOCOL_PEER, close)
    return port


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [((0, (1,)), (0, (1,))), ((1, (0,)), (0, (1,))), ((0, (1,)), (1, (0,))), ((1, (0,)), (1,)), ((1,), (1, (0,)))],
)
async def test_members_in_neighbouring_steps_of_a_rotation_connect(mine: tuple, theirs: tuple) -> None:  # type: ignore[type-arg]
    assert await dials(port_of(1, *mine), port_of(2, *theirs)) == "connected"


async def test_after_retirement_the_old_authority_is_refused_in_both_directions() -> None:
    for mine, theirs in ((0, 1), (1, 0)):
        assert await dials(port_of(1, mine), port_of(2, theirs)) == "refused"


def test_an_authority_is_public_and_the_same_for_everybody_but_for_its_signature() -> None:
    again: Authority = authority_of(SECRETS[0], SALT)
    assert again.fingerprint == AUTHORITIES[0].fingerprint
    assert SECRETS[0] not in again.certificate
