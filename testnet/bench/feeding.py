"""Mutated packets into a daemon's gossip in this process, and recordings played again across lives and clusters.

What is looked for: an error that would end the daemon, a refusal that is not counted, and anything that grows with the number of
packets. A test does the same with fewer of them (`tests/properties/test_membership_mutations.py`).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import trio
import trio.testing

from swarm.membership import encode_message
from swarm.membership.messages import Claim, Rumours
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus
from swarm.wire.envelope import Sealer
from swarm.wire.keys import gossip_key
from testnet.bench.fed_gossip import CLUSTER, OTHER_CLUSTER, SECRET, FedGossip, fed_gossip, objects, sealer_of
from testnet.bench.membership_net import memory_kib
from testnet.bench.mutations import Member, Mutator, members, recorded

Datagram = tuple[bytes, tuple[str, int]]
LIFE = 1_000
GROWTH_OBJECTS_MAX = 2_000
GROWTH_KIB_MAX = 4_096
"""Between a look after the first quarter of the packets to one receiver and a look after all of them."""
STRANGER = ("10.255.9.9", 4747)


@dataclass(slots=True)
class Growth:
    """Before and after."""

    objects: tuple[int, int] = (0, 0)
    memory_kib: tuple[int, int] = (0, 0)
    members: tuple[int, int] = (0, 0)
    reasons: tuple[int, int] = (0, 0)

    @property
    def more_objects(self) -> int:
        return self.objects[1] - self.objects[0]

    @property
    def more_kib(self) -> int:
        return self.memory_kib[1] - self.memory_kib[0]


@dataclass(slots=True)
class Fed:
    """What was fed of one kind, and what was counted."""

    what: str
    packets: int = 0
    counted: Counter[str] = field(default_factory=Counter)
    bytes_in: int = 0
    bytes_out: int = 0

    async def add(self, receiver: FedGossip, packets: Iterator[Datagram], count: int) -> None:
        """Feed these and add up what was counted."""
        received, sent = receiver.bytes_received, receiver.socket.bytes_sent
        self.counted += await receiver.feed(packets)
        self.packets += count
        self.bytes_in += receiver.bytes_received - received
        self.bytes_out += receiver.socket.bytes_sent - sent

    @property
    def dropped(self) -> int:
        """Before they reached the core."""
        return sum(count for name, count in self.counted.items() if name.startswith("dropped_"))

    @property
    def uncounted(self) -> int:
        """Fed, but never seen."""
        return self.packets - self.counted["packets_received"]


@dataclass(slots=True)
class Outcome:
    """Of all that was fed."""

    mutated: list[Fed] = field(default_factory=list)
    growth: Growth = field(default_factory=Growth)


def sealed_by(who: list[Member]) -> dict[NodeId, Sealer]:
    """Everybody's seal but the receiver's."""
    return {member.node_id: sealer_of(member) for member in who[1:]}


def mutate_before(mutator: Mutator, seals: dict[NodeId, Sealer], count: int) -> Iterator[Datagram]:
    """Mutated, then sealed: they open."""
    for _ in range(count):
        plain = mutator.plain()
        yield seals[plain.sender].seal(plain.sender, plain.content), STRANGER


def mutate_after(mutator: Mutator, seals: dict[NodeId, Sealer], count: int) -> Iterator[Datagram]:
    """Sealed, then mutated."""
    other = b"\0" * 100
    for _ in range(count):
        plain = mutator.choose()
        packet = seals[plain.sender].seal(plain.sender, plain.content)
        yield mutator.sealed(packet, other), STRANGER
        other = packet


Maker = Callable[[Mutator, dict[NodeId, Sealer], int], Iterator[Datagram]]
KINDS: dict[str, Maker] = {"mutated before sealing": mutate_before, "mutated after sealing": mutate_after}


def feed_mutated(count: int, *, seed: int = 1) -> Outcome:
    """`count` packets, half of each kind. Whatever would end a daemon ends this, as an exception.

    Four fifths go to receivers that live for `LIFE` packets each: a mutated packet that raises a member's generation makes all
    that it says later old, so a receiver that lived on would soon do nothing but drop. The rest goes to one that does live on, to
    see whether it grows.
    """
    clock = trio.testing.MockClock()

    async def main() -> Outcome:
        who, outcome = members(), Outcome()
        mutator = Mutator(recorded(who), seed=seed)
        for what, make in KINDS.items():
            fed = Fed(what)
            for life in range(count * 2 // 5 // LIFE):
                seals = sealed_by(who)
                async with fed_gossip(who, clock=clock, seed=seed + life) as receiver:
                    receiver.prove(seals)
                    await fed.add(receiver, make(mutator, seals, LIFE), LIFE)
            outcome.mutated.append(fed)
        seals, left = sealed_by(who), count // 10
        async with fed_gossip(who, clock=clock, seed=seed) as receiver:
            receiver.prove(seals)
            looks = []
            for quarter in (4, 2, 4):
                looks.append(_look(receiver))
                for fed, make in zip(outcome.mutated, KINDS.values(), strict=True):
                    await fed.add(receiver, make(mutator, seals, left // quarter), left // quarter)
            looks.append(_look(receiver))
        outcome.growth = Growth(*zip(looks[1], looks[-1], strict=True))
        return outcome

    return trio.run(main, clock=clock)


def _look(fed: FedGossip) -> tuple[int, int, int, int]:
    return objects(), memory_kib(os.getpid()), len(fed.core.members()), len(fed.gossip.drops())


# ---- recordings -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Replay:
    """A recording played to somebody, and what became of it."""

    what: str
    packets: int
    counted: Counter[str]
    not_alive: list[str]
    """Members that the receiver does not call alive after it and a second of what they really say."""

    @property
    def accepted(self) -> int:
        return self.counted["packets_received"] - sum(n for name, n in self.counted.items() if name.startswith("dropped_"))


def replay_all(*, seed: int = 1) -> list[Replay]:
    """A recording of 30 s that was played once already, played again to the same life and to others."""
    clock = trio.testing.MockClock()

    async def main() -> list[Replay]:
        who = members()
        plains = recorded(who, seed=seed)
        seals = sealed_by(who)
        me, found = who[0], []
        async with fed_gossip(who, clock=clock) as same:
            same.prove(seals)
            recording = [(seals[plain.sender].seal(plain.sender, plain.content), STRANGER) for plain in plains]
            await same.feed(recording)
            found.append(await _replay(same, "to the same life", recording, who, seals))
            later = [replace(member, generation=2) for member in who]
            reborn = sealed_by(later)
            same.prove(reborn)
            found.append(await _replay(same, "of members that have restarted since", recording, later, reborn))
        again = [replace(me, generation=2), *who[1:]]
        async with fed_gossip(again, clock=clock) as fresh:
            found.append(await _replay(fresh, "to a receiver that has just restarted", recording, who, seals))
        async with fed_gossip(again, clock=clock) as heard:
            heard.prove(seals)
            found.append(await _replay(heard, "to a restarted receiver that all streams have reached", recording, who, seals))
        theirs = {member.node_id: sealer_of(member, cluster=OTHER_CLUSTER) for member in who[1:]}
        async with fed_gossip(who, clock=clock, sealer=sealer_of(me, cluster=OTHER_CLUSTER)) as other:
            other.prove(theirs)
            found.append(await _replay(other, "to another cluster of the same token", recording, who, theirs))
        key = gossip_key(SECRET, CLUSTER)
        forced = {member.node_id: sealer_of(member, cluster=OTHER_CLUSTER, key=key) for member in who[1:]}
        async with fed_gossip(who, clock=clock, sealer=sealer_of(me, cluster=OTHER_CLUSTER, key=key)) as other:
            other.prove(forced)
            found.append(await _replay(other, "to another cluster that has the same key", recording, who, forced))
        return found

    return trio.run(main, clock=clock)


async def _replay(
    fed: FedGossip, what: str, recording: list[Datagram], who: list[Member], seals: dict[NodeId, Sealer]
) -> Replay:
    counted = await fed.feed(recording)
    fed.prove(seals)
    await fed.feed(_alive(who, seals))
    views = fed.gossip.members()
    not_alive = [f"{view.name} {view.status}" for view in views.values() if view.status is not MemberStatus.ALIVE]
    return Replay(what, len(recording), counted, not_alive)


def _alive(who: list[Member], seals: dict[NodeId, Sealer]) -> list[Datagram]:
    """What each member says of itself after it has refuted whatever was said of it."""
    said = []
    for member in who[1:]:
        me = Claim(member.node_id, member.generation, 1_000, MemberStatus.ALIVE, member.name, member.address)
        said.append((seals[member.node_id].seal(member.node_id, encode_message(Rumours(me))), STRANGER))
    return said
