"""What a simulation counts for a message is what the encoder makes of it, to the byte."""

from __future__ import annotations

import random

from swarm.membership import encode_message
from swarm.membership.messages import Ack, Claim, Message, Ping, ProbeReport, ProbeRequest, Rumours, SyncState
from swarm.model.ids import NodeId
from swarm.model.liveness import EngineState, MemberStatus, Sample
from swarm.model.node import VerdictKind
from swarm.simulation.gossip_sizes import plain_bytes


def numbers(rng: random.Random) -> int:
    return rng.choice((0, 1, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53, rng.randrange(2**20)))


def a_claim(rng: random.Random) -> Claim:
    return Claim(
        NodeId("a" * rng.randrange(1, 65)), numbers(rng), numbers(rng), rng.choice(list(MemberStatus)),
        rng.choice(("", "n1", "a-name-of-32-letters-or-somewhat-more", "ü" * 30)), "10.77.0.10:4747",
        rng.choice(("", "b" * 32)), rng.choice((None, *VerdictKind)), rng.choice((0.0, 12.5)),
    )  # fmt: skip


def a_sample(rng: random.Random) -> Sample:
    return Sample(NodeId("a" * 32), *(numbers(rng) for _ in range(7)), rng.choice(list(EngineState)), numbers(rng))


def a_message(rng: random.Random) -> Message:
    me, number, target = a_claim(rng), numbers(rng), NodeId("c" * rng.randrange(1, 65))
    news = (tuple(a_claim(rng) for _ in range(rng.randrange(30))), tuple(a_sample(rng) for _ in range(rng.randrange(30))))
    return rng.choice((
        Ping(me, number, target, *news), Ack(me, number, *news), ProbeRequest(me, number, target, "10.77.0.10:4747", *news),
        ProbeReport(me, number, target, True, rng.choice(("", "accepted")), *news), Rumours(me, *news), SyncState(me, *news),
    ))  # fmt: skip


def test_the_counted_size_is_the_encoded_size() -> None:
    rng = random.Random(1)
    for _ in range(300):
        message = a_message(rng)
        assert plain_bytes(message) == len(encode_message(message)), message
