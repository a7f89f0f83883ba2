"""Packets that members really send, and what an enemy or a bug makes of them.

The packets come from five membership cores on virtual time, of which one falls silent and comes back, so that every kind occurs:
pings, answers, requests, reports, rumours, accusations and their refutations. A mutation before sealing is what a member gone mad
(or of another version) would send: it passes the seal. One after sealing is what a stranger on the network can do.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2

from swarm.membership import (
    Config,
    MemberIdentity,
    Membership,
    PingOverStream,
    PushPull,
    SendPacket,
    TryConnect,
    decode_message_untrusted,
    encode_message,
)
from swarm.model.ids import NodeId
from swarm.model.liveness import Sample
from swarm.wire.envelope import PLAINTEXT_BYTES_MAX
from swarm.wire.limits import PACKET_BYTES_MAX

MUTE_FROM_S, MUTE_UNTIL_S = 5.0, 15.0
LOSS = 0.05
"""So that requests and reports occur."""
_STEP_S = 0.01
_HEADER = {"version": slice(0, 1), "key": slice(1, 5), "sender": slice(5, 21), "counter": slice(21, 29), "nonce": slice(29, 41)}


@dataclass(frozen=True, slots=True)
class Member:
    """Who the packets are from and to."""

    node_id: NodeId
    name: str
    address: str
    generation: int = 1


def members(count: int = 5) -> list[Member]:
    """Members that exist nowhere; the first receives."""
    return [Member(NodeId(f"{n:032x}"), f"n{n}", f"10.255.0.{n}:4747") for n in range(1, count + 1)]


def admitted(who: list[Member]) -> dict[NodeId, tuple[str, str]]:
    """As the catalog would tell."""
    return {each.node_id: (each.name, each.address) for each in who}


@dataclass(frozen=True, slots=True)
class Plain:
    """A packet before its seal: who sent it, and what."""

    sender: NodeId
    content: bytes


def recorded(who: list[Member], *, seconds: float = 30.0, seed: int = 1) -> list[Plain]:
    """What the first member receives in that time, in order. The last one is mute from 5 to 15 s."""
    rng = random.Random(seed)
    cores = {
        each.address: Membership(
            identity=MemberIdentity(each.node_id, each.name, each.address, each.generation),
            config=Config(), rng=random.Random(rng.random()), now=0.0,
        )
        for each in who
    }  # fmt: skip
    at = {each.node_id: each.address for each in who}
    for core in cores.values():
        core.set_admitted(admitted(who), 0.0)
    kept: list[Plain] = []
    now, second = 0.0, 0
    while now < seconds:
        now += _STEP_S
        mute = who[-1].address if MUTE_FROM_S < now < MUTE_UNTIL_S else ""
        if int(now) > second:
            second = int(now)
            for each in who:
                cores[each.address].observe_sample(Sample(each.node_id, each.generation, second, load_permille=second), now)
        for address, core in cores.items():
            core.tick(now)
            for effect in core.take_effects():
                _carry_out(effect, address, cores, at, mute, now, kept, who[0].address, rng)
    return kept


def _carry_out(
    effect: object, address: str, cores: dict[str, Membership], at: dict[NodeId, str], mute: str, now: float, kept: list[Plain],
    receiver: str, rng: random.Random,
) -> None:  # fmt: skip
    core = cores[address]
    match effect:
        case SendPacket(address=to, message=message) if to in cores and mute not in (address, to) and rng.random() >= LOSS:
            content = encode_message(message)
            if to == receiver:
                kept.append(Plain(message.me.node_id, content))
            host, port = address.split(":")
            cores[to].on_packet((host, int(port)), decode_message_untrusted(content), now)
        case TryConnect(probe_id=probe_id, address=to):
            core.on_connect_result(probe_id, "silent" if to == mute else "accepted", now)
        case PingOverStream(probe_id=probe_id, node_id=node_id):
            core.on_stream_ping(probe_id, at[node_id] != mute, now)
        case PushPull(node_id=node_id) if at[node_id] != mute:
            core.on_push_pull_reply(cores[at[node_id]].on_push_pull(core.sync_state(now), now), now)
        case _:
            pass


class Mutator:
    """Makes bad packets of good ones. The same seed makes the same ones."""

    def __init__(self, corpus: list[Plain], *, seed: int) -> None:
        self.corpus = corpus
        self.rng = random.Random(seed)
        self._by_kind: dict[str, list[Plain]] = {}
        for each in corpus:
            self._by_kind.setdefault(cbor2.loads(each.content)[0], []).append(each)
        self._words = sorted({word for each in corpus for word in _leaves(cbor2.loads(each.content)) if isinstance(word, str)})
        self._on_bytes: list[Callable[[bytearray], bytearray]] = [self._flip, self._cut, self._grow, self._splice, self._repeat]

    def choose(self) -> Plain:
        """A good one; each kind as often as any other."""
        return self.rng.choice(self._by_kind[self.rng.choice(list(self._by_kind))])

    def plain(self) -> Plain:
        """One that a member may have sealed: bytes touched, or whole values exchanged so that it still parses."""
        chosen = self.choose()
        if self.rng.random() < 0.5:
            content = bytes(self.rng.choice(self._on_bytes)(bytearray(chosen.content)))
        else:
            tree = cbor2.loads(chosen.content)
            for _ in range(self.rng.randint(1, 3)):
                tree = self._exchange(tree)
            content = cbor2.dumps(tree)
        return Plain(chosen.sender, content[:PLAINTEXT_BYTES_MAX])

    def sealed(self, packet: bytes, other: bytes) -> bytes:
        """One that a stranger made of sealed packets: touched, with parts of another, or not one at all; never the same."""
        made = packet
        while made == packet:
            made = self._forged(packet, other)
        return made

    def _forged(self, packet: bytes, other: bytes) -> bytes:
        turn = self.rng.random()
        if turn < 0.6:
            return bytes(self.rng.choice(self._on_bytes)(bytearray(packet)))
        if turn < 0.8:
            part, made = self.rng.choice(list(_HEADER.values())), bytearray(packet)
            made[part] = other[part]
            return bytes(made)
        if turn < 0.9:
            made = bytearray(packet)
            part = self.rng.choice(list(_HEADER.values()))
            made[part] = self.rng.randbytes(part.stop - part.start)
            return bytes(made)
        if turn < 0.95:
            return packet[:41] + other[41:]
        return self.rng.randbytes(self.rng.randint(0, PACKET_BYTES_MAX + 400))

    def _flip(self, data: bytearray) -> bytearray:
        for _ in range(self.rng.randint(1, 8)):
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        return data

    def _cut(self, data: bytearray) -> bytearray:
        return data[: self.rng.randrange(len(data))]

    def _grow(self, data: bytearray) -> bytearray:
        return data + self.rng.randbytes(self.rng.randint(1, 400))

    def _splice(self, data: bytearray) -> bytearray:
        other = self.rng.choice(self.corpus).content
        return data[: self.rng.randrange(len(data))] + other[self.rng.randrange(len(other)) :]

    def _repeat(self, data: bytearray) -> bytearray:
        start = self.rng.randrange(len(data))
        piece = data[start : start + self.rng.randint(1, 60)]
        return data[:start] + piece * self.rng.randint(0, 4) + data[start:]

    def _exchange(self, tree: Any) -> Any:
        """One value somewhere in it becomes another."""
        if isinstance(tree, list) and tree and self.rng.random() < 0.9:
            where = self.rng.randrange(len(tree))
            tree[where] = self._exchange(tree[where])
            return tree
        return self._value(tree)

    def _value(self, old: Any) -> Any:
        rng = self.rng
        if isinstance(old, bool):
            return not old
        if isinstance(old, int):
            return rng.choice([old + 1, old - 1, 0, 1, -1, 2**31, 2**50, 2**53, 2**53 + 1, 2**63, 2**64 - 1, rng.getrandbits(53)])
        if isinstance(old, str) and rng.random() < 0.8:
            return rng.choice(self._words)
        if isinstance(old, list) and rng.random() < 0.6:
            return copy.deepcopy(old * rng.randint(0, 3))
        return copy.deepcopy(rng.choice(_ODD))


_ODD: list[Any] = [
    None, True, -1, 0.5, float("nan"), float("inf"), -1e308, "", "\0", "x" * 400, b"", b"\xff" * 40, [], {}, [[[[]]]], {"a": 1},
]  # fmt: skip


def _leaves(tree: Any) -> list[Any]:
    return [leaf for each in tree for leaf in _leaves(each)] if isinstance(tree, list) else [tree]
