"""Recordings across restarts: a daemon that starts anew hears its members, and none of what was recorded of them."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from swarm.drivers.membership import Gossip
from swarm.drivers.proofs import Proofs
from swarm.errors import PeerError, Unauthenticated
from swarm.membership import Config, MemberIdentity, Membership, encode_message
from swarm.membership.messages import Claim, Ping
from swarm.model.ids import ClusterId, NodeId
from swarm.model.liveness import MemberStatus
from swarm.model.node import VerdictKind
from swarm.wire.envelope import Sealer, Unproven
from swarm.wire.keys import Keyring
from tests.drivers.test_gossip import RefusingConnects, SilentSocket, TrioClock
from tests.fakes.memory_peers import MemoryNetwork

CLUSTER, OTHER = ClusterId("ab" * 16), ClusterId("cd" * 16)
ONE, TWO, THREE = NodeId("11" * 16), NodeId("22" * 16), NodeId("33" * 16)
KEY = bytes(32)


def life(network: MemoryNetwork, node_id: NodeId, generation: int, cluster: ClusterId = CLUSTER) -> tuple[Sealer, Proofs]:
    """One start of a daemon."""
    sealer = Sealer(cluster, Keyring(KEY), node_id, generation)
    return sealer, Proofs(network.peers(node_id), sealer)


async def test_one_stream_in_either_direction_proves_both_and_nothing_recorded_is_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    one, asking = life(network, ONE, 1)
    recorded = [one.seal(ONE, b"%d" % number) for number in range(20)]
    two, _ = life(network, TWO, 7)
    with pytest.raises(Unproven):
        two.open_untrusted(recorded[0])
    async with trio.open_nursery() as nursery:
        await nursery.start(asking.run)
        asking.on_stream(TWO, True)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for packet in recorded:
        with pytest.raises(Unauthenticated, match="older than"):
            two.open_untrusted(packet)
    assert two.open_untrusted(one.seal(ONE, b"now")) == (ONE, b"now")
    assert one.open_untrusted(two.seal(TWO, b"now")) == (TWO, b"now")


async def test_an_answer_that_does_not_come_is_asked_for_again_while_the_stream_stands(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = MemoryNetwork()
    one, asking = life(network, ONE, 1)
    two, _ = life(network, TWO, 1)
    network.cuts.add((TWO, ONE))  # the question arrives, the answer does not
    async with trio.open_nursery() as nursery:
        await nursery.start(asking.run)
        asking.on_stream(TWO, True)
        await trio.sleep(5)
        with pytest.raises(Unproven):
            one.open_untrusted(two.seal(TWO, b"unheard"))
        network.heal()
        await trio.sleep(5)
        assert one.open_untrusted(two.seal(TWO, b"heard")) == (TWO, b"heard")
        nursery.cancel_scope.cancel()
    assert asking.counters["packet_proofs_failed"] >= 1


@pytest.mark.parametrize("said", [b"", b"\x81\x20", b"\x81\x1b" + b"\xff" * 8 + b"x", b"\x81\x61a"])
async def test_a_counter_that_is_none_proves_nothing(said: bytes) -> None:
    network = MemoryNetwork()
    one, asked = life(network, ONE, 1)
    with pytest.raises(PeerError):
        await asked._on_ask(TWO, said)
    with pytest.raises(Unproven):
        one.open_untrusted(life(network, TWO, 1)[0].seal(TWO, b"x"))


def test_a_recording_of_another_cluster_is_refused_packet_by_packet_even_with_the_same_token() -> None:
    network = MemoryNetwork()
    one, _ = life(network, ONE, 1)
    two, _ = life(network, TWO, 1, OTHER)
    one.prove(TWO, 0)
    for number in range(50):
        with pytest.raises(Unauthenticated):
            one.open_untrusted(two.seal(TWO, b"%d" % number))


async def test_a_recording_replayed_across_a_restart_changes_no_status(autojump_clock: trio.testing.MockClock) -> None:
    """Pings of ONE that say that THREE is dead, recorded and played to TWO's next life: before and after ONE is heard."""
    network = MemoryNetwork()
    one, asking = life(network, ONE, 1)
    dead = Claim(THREE, 5, 0, MemberStatus.DEAD, "n3", "127.0.0.1:3", accuser=ONE, kind=VerdictKind.HOST_SILENT)
    me = Claim(ONE, 1, 0, MemberStatus.ALIVE, "n1", "127.0.0.1:1")
    recorded = [one.seal(ONE, encode_message(Ping(me, number, TWO, (dead,)))) for number in range(30)]
    two, _ = life(network, TWO, 2)
    clock = TrioClock()
    identity = MemberIdentity(TWO, "n2", "127.0.0.1:2", 2)
    core = Membership(identity=identity, config=Config(), rng=random.Random(1), now=clock.now())
    gossip = Gossip(core, SilentSocket(), RefusingConnects(), network.nodes[TWO], clock, two)
    gossip.set_admitted({ONE: ("n1", "127.0.0.1:1"), TWO: ("n2", "127.0.0.1:2"), THREE: ("n3", "127.0.0.1:3")})

    answered: list[object] = []

    def play() -> dict[NodeId, tuple[MemberStatus, int, int]]:
        gossip._feed([(packet, ("127.0.0.1", 9)) for packet in recorded], clock.now())
        answered.extend(effect for effect in core.take_effects() if getattr(effect, "address", "") == "127.0.0.1:9")
        return {each.node_id: (each.status, each.generation, each.incarnation) for each in gossip.members().values()}

    fresh = {each.node_id: (each.status, each.generation, each.incarnation) for each in gossip.members().values()}
    assert play() == fresh
    async with trio.open_nursery() as nursery:
        await nursery.start(asking.run)
        asking.on_stream(TWO, True)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert play() == fresh
    assert answered == [], "whoever plays it gets not one byte"
    assert gossip.drops()["dropped_unproven"] == gossip.drops()["dropped_replayed"] == 30
    recorded.append(one.seal(ONE, encode_message(Ping(me, 99, TWO, (dead,)))))
    assert play() != fresh and answered, "the same words, said now, do count"
