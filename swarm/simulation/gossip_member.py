"""One member of a simulation of membership alone: its host, its daemon's present life, and the core in it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from swarm.membership import Config, Effect, MemberChanged, MemberIdentity, Membership, Message, SyncState
from swarm.membership.messages import Claim
from swarm.membership.sync import sync_interval_s
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, Sample

NEVER = math.inf


class Core(Membership):
    """The product's core, and what a run asks of it at a price that large runs can pay."""

    def status_of(self, node_id: NodeId) -> MemberStatus | None:
        """What is believed of one member, this one included; None of a stranger. O(1)."""
        record = self._table.me if node_id == self._table.me.node_id else self._table.records.get(node_id)
        return record.status if record else None

    def incarnation_of(self, node_id: NodeId) -> int:
        """The newest incarnation heard of; -1 of a stranger. O(1)."""
        record = self._table.me if node_id == self._table.me.node_id else self._table.records.get(node_id)
        return record.incarnation if record else -1

    def alive_ids(self) -> set[NodeId]:
        """Members believed alive, this one included. O(N)."""
        records = (self._table.me, *self._table.present())
        return {record.node_id for record in records if record.status is MemberStatus.ALIVE}

    @property
    def rumours_waiting(self) -> int:
        """Members there is news of that is still to be told."""
        return len(self._broadcasts)

    def know(self, claims: Iterable[Claim], rng: random.Random, now: float) -> None:
        """As after an hour of calm: everybody's word is known, no rumour is left, rounds and exchanges come at any moment."""
        for claim in claims:
            record = self._table.records.get(claim.node_id)
            if record is not None:
                assert record.status is MemberStatus.SUSPECT and record.generation == 0, "just admitted"
                record.status, record.generation = MemberStatus.ALIVE, claim.generation
        self._round_at = now + self.config.probe_interval_s * rng.random()
        self._sync_at = now + sync_interval_s(self._table.size, self.config) * rng.random()
        self._broadcasts.clear()
        self._outbox.take()


class AnyCore(Protocol):
    """What a run needs of a core: the product's, or one that it is compared with."""

    @property
    def next_deadline(self) -> float: ...
    def take_effects(self) -> list[Effect]: ...
    def status_of(self, node_id: NodeId) -> MemberStatus | None: ...
    def incarnation_of(self, node_id: NodeId) -> int: ...
    def alive_ids(self) -> set[NodeId]: ...
    def know(self, claims: Iterable[Claim], rng: random.Random, now: float) -> None: ...
    def sync_state(self, now: float) -> SyncState: ...
    def check(self) -> None: ...
    def set_admitted(self, nodes: Mapping[NodeId, tuple[str, str]], now: float) -> None: ...
    def leave(self, now: float) -> None: ...
    def observe_sample(self, sample: Sample, now: float) -> None: ...
    def on_stall(self, gap_s: float, now: float) -> None: ...
    def on_connect_result(self, probe_id: int, outcome: str, now: float) -> None: ...
    def on_stream_ping(self, probe_id: int, answered: bool, now: float) -> None: ...
    def on_packet(self, source: tuple[str, int], message: Message, now: float) -> None: ...
    def on_push_pull(self, remote: SyncState, now: float) -> SyncState: ...
    def on_push_pull_reply(self, remote: SyncState, now: float) -> None: ...
    def on_push_pull_failed(self, now: float) -> None: ...
    def tick(self, now: float) -> None: ...


MakeCore = Callable[[MemberIdentity, Config, random.Random, float], AnyCore]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Packets take `latency_s` to twice that; `loss` is the share that never arrives. Overloaded: `late_s`, drawn evenly."""

    latency_s: float = 0.0005
    loss: float = 0.0
    late_s: tuple[float, float] = (1.0, 30.0)
    sample_every_s: float = 1.0
    """0: no samples."""


class OnChange(Protocol):
    """Told of every change of belief: (who believes it, what changed)."""

    def __call__(self, observer: Member, change: MemberChanged, /) -> None: ...


@dataclass(slots=True, eq=False)
class Member:
    """One host and the daemon's present life."""

    number: int
    node_id: NodeId
    address: str
    source: tuple[str, int]
    """The same, as a receiver is told it."""
    core: AnyCore
    generation: int = 1
    power: bool = True
    daemon: bool = True
    overloaded: bool = False
    frozen_at: float = NEVER
    side: int = 0
    """Members on different sides of a split do not reach each other."""
    wake_at: float = NEVER
    held: list[tuple[Callable[..., object], tuple[object, ...]]] = field(default_factory=list)
    sequence: int = 0
    load: tuple[int, int] = (300, 500)
    """Processor and memory used, thousandths; they wander."""
    packets_sent: int = 0
    bytes_sent: int = 0

    @property
    def runs(self) -> bool:
        """Whether its daemon does anything."""
        return self.power and self.daemon and self.frozen_at == NEVER


def node_id(number: int) -> NodeId:
    """The id of member `number`, as long as a real one."""
    return NodeId(f"{number:032x}")


def address(number: int) -> str:
    """Where it is."""
    return f"10.{77 + number // 40000}.{number // 200 % 200}.{number % 200 + 10}:4747"


def claim_of(member: Member, admitted: dict[NodeId, tuple[str, str]]) -> Claim:
    """What a member says of itself."""
    name, where = admitted[member.node_id]
    return Claim(member.node_id, member.generation, 0, MemberStatus.ALIVE, name, where)
