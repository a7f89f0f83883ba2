"""Consensus cores beside each other on virtual time: every message, write and tick happens when the test says, or on a heap.

Time is true time; each node's clock may have a rate and an offset of its own. A crash loses what was not durable. Everything is
written to `trace`, one line an event, so that a scenario's text file can be compared with it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.core import Consensus
from swarm.consensus.effects import (
    Apply,
    Effect,
    Persist,
    ProposalLost,
    RestoreSnapshot,
    Role,
    RoleChanged,
    Send,
    SendSnapshot,
)
from swarm.consensus.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    TimeoutNow,
    Vote,
    VoteReply,
    decode_message_untrusted,
    encode_message,
)
from swarm.model.command import Found
from swarm.model.entry import KIND_FOUND, Entry, HardState, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId
from swarm.ports import Batch, Stored
from swarm.wire.checksum import crc32c
from swarm.wire.codec import encode
from tests.fakes.memory_store import MemoryStore

MESSAGE_S = 0.001
WRITE_S = 0.002


def voters(names: str) -> tuple[Voter, ...]:
    return tuple(Voter(name, 1) for name in names)


def founding(names: str) -> Entry:
    return Entry(1, 1, KIND_FOUND, 1, encode(Found(ClusterId("c"), (), voters(names))), 0, 0.0)


def stored(*entries: Entry, term: int = 1, voted_for: str = "") -> Stored:
    return Stored(1, HardState(0, term, voted_for), entries, None, None)


def core(name: str, held: Stored, *, now: float = 0.0, seed: str = "", config: ConsensusConfig | None = None) -> Consensus:
    """One core alone."""
    return Consensus(
        me=Voter(name, held.store_generation),
        recovery_generation=0,
        config=config or ConsensusConfig(),
        rng=random.Random(name + seed),
        stored=held,
        now=now,
    )


class Cluster:
    """`names` are founded together as voters; `others` begin with nothing and are learners."""

    def __init__(self, names: str, others: str = "", *, config: ConsensusConfig | None = None, seed: str = "") -> None:
        self.now = 0.0
        self.config = config or ConsensusConfig()
        self.seed = seed
        self.trace: list[str] = []
        self.nodes: dict[str, Consensus] = {}
        self.disks: dict[str, MemoryStore] = {}
        self.applied: dict[str, list[Entry]] = {}
        self.clocks: dict[str, tuple[float, float]] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.slow_disks: set[str] = set()
        self.learners = voters(names + others)
        self.message_s: Callable[[], float] = lambda: MESSAGE_S
        self.write_s: Callable[[], float] = lambda: WRITE_S
        self.loss: Callable[[], bool] = lambda: False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        for name in names + others:
            self.disks[name] = MemoryStore()
            if name in names:
                self.disks[name].keep(Batch(1, (founding(names),), hard_state=HardState(0, 1)))
            self.start(name)

    def local(self, name: str) -> float:
        rate, offset = self.clocks.get(name, (1.0, 0.0))
        return offset + rate * self.now

    def start(self, name: str) -> None:
        self.nodes[name] = core(name, self.disks[name].durable, now=self.local(name), seed=self.seed, config=self.config)
        self.nodes[name].set_learners(self.learners, self.local(name))
        self.applied[name] = []

    def crash(self, name: str) -> None:
        """Everything not durable is lost; messages on their way to it and from it may still arrive."""
        self.trace.append(f"{name} crashes")
        del self.nodes[name]

    def wipe(self, name: str) -> None:
        """The disk is replaced: it comes back empty under the next store generation."""
        self.disks[name] = MemoryStore(self.disks[name].durable.store_generation + 1)

    def isolate(self, name: str) -> None:
        for other in self.disks:
            self.cuts |= {(name, other), (other, name)}

    def later(self, delay_s: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (self.now + delay_s, self._sequence, action))

    # ---- running

    def run(self, seconds: float, *, each: Callable[[], None] = lambda: None) -> None:
        """Let everything happen for a while; `each` is called after every event."""
        until = self.now + seconds
        self.collect()
        while True:
            at, ticking = min(((self._true(name), name) for name in self.nodes), default=(math.inf, ""))
            if min([at, *(event[0] for event in self._events[:1])]) > until:
                break
            if self._events and self._events[0][0] <= at:
                at, _, action = heapq.heappop(self._events)
                self.now = max(self.now, at)
                action()
            else:
                self.now = max(self.now, at)
                self.nodes[ticking].tick(self.local(ticking) + 1e-9)
            self.collect()
            each()
        self.now = until

    def _true(self, name: str) -> float:
        rate, offset = self.clocks.get(name, (1.0, 0.0))
        return (self.nodes[name].next_deadline - offset) / rate

    def collect(self) -> None:
        """Carry out what the cores want, until none wants anything."""
        busy = True
        while busy:
            busy = False
            for name in sorted(self.nodes):
                node = self.nodes[name]
                node.check()
                for effect in node.take_effects():
                    busy = True
                    self._carry_out(name, effect)

    def _carry_out(self, name: str, effect: Effect) -> None:
        line = describe(effect)
        if line:
            self.trace.append(f"{name} {line}")
        node = self.nodes[name]
        match effect:
            case Send():
                self._send(name, effect.to, effect.message)
            case Persist():
                if name not in self.slow_disks:
                    self.later(self.write_s(), lambda: self._write(name, node, effect.batch))
            case Apply():
                self.applied[name].extend(effect.entries)
                node.on_applied(effect.entries[-1].index, self.local(name))
            case RestoreSnapshot():
                self.applied[name] = list(SNAPSHOTS[effect.data])
            case SendSnapshot():
                self._send_snapshot(name, node, effect.to)
            case RoleChanged() | ProposalLost():
                pass

    def _send(self, name: str, to: str, message: Message) -> None:
        if (name, to) in self.cuts or self.loss():
            return
        data = encode_message(message)
        self.later(self.message_s(), lambda: self._deliver(name, to, data))

    def _deliver(self, name: str, to: str, data: bytes) -> None:
        if to in self.nodes and (name, to) not in self.cuts:
            self.nodes[to].on_message(NodeId(name), decode_message_untrusted(data), self.local(to))

    def _write(self, name: str, node: Consensus, batch: Batch) -> None:
        if self.nodes.get(name) is node:
            self.disks[name].keep(batch)
            node.on_persisted(batch.number, self.local(name))

    def _send_snapshot(self, name: str, node: Consensus, to: str) -> None:
        snapshot = node.snapshot
        assert snapshot is not None
        if (name, to) in self.cuts or to not in self.nodes:
            node.on_snapshot_sent(NodeId(to), arrived=False, now=self.local(name))
            return
        self.nodes[to].on_snapshot(NodeId(name), *snapshot, self.local(to))
        node.on_snapshot_sent(NodeId(to), arrived=True, now=self.local(name))

    # ---- asking

    def leader(self) -> str:
        """The one that may act. There must be one."""
        (name,) = [name for name, node in sorted(self.nodes.items()) if node.may_act(self.local(name))]
        return name

    def leases(self) -> list[str]:
        """Who holds a valid lease at this instant of true time."""
        return [name for name, node in sorted(self.nodes.items()) if node.lease_valid(self.local(name))]

    def propose(self, text: str, name: str = "") -> None:
        name = name or self.leader()
        self.nodes[name].propose("task.reason", 1, text.encode(), RequestId(""), self.local(name), self.now)

    def compact(self, name: str) -> None:
        """A snapshot of everything applied."""
        node = self.nodes[name]
        data = b"%s %d" % (name.encode(), node.applied_index)
        SNAPSHOTS[data] = tuple(self.applied[name])
        meta = node.snapshot_meta(node.applied_index, crc32c=crc32c(data), length=len(data))
        node.compact(meta, data, self.local(name))

    def texts(self, name: str) -> list[str]:
        return [entry.payload.decode() for entry in self.applied[name] if entry.kind == "task.reason"]


SNAPSHOTS: dict[bytes, tuple[Entry, ...]] = {}
"""What the data of a snapshot stands for."""


def describe(effect: Effect) -> str:
    """One effect in one line; empty for what no reader of a trace misses."""
    match effect:
        case Send():
            return f"-> {effect.to} {describe_message(effect.message)}"
        case Persist():
            return describe_batch(effect.batch)
        case Apply():
            return f"applies {effect.entries[0].index}..{effect.entries[-1].index}"
        case RoleChanged():
            known = f", led by {effect.leader_id}" if effect.leader_id and effect.role is not Role.LEADER else ""
            return f"is {effect.role} in term {effect.term}{known}"
        case ProposalLost():
            return f"lost {effect.index} of term {effect.term}"
        case RestoreSnapshot():
            return f"restores a snapshot at {effect.meta.index}"
        case SendSnapshot():
            return f"-> {effect.to} snapshot at {effect.meta.index}"


def describe_batch(batch: Batch) -> str:
    parts = [f"writes #{batch.number}"]
    if batch.snapshot:
        parts.append(f"snapshot at {batch.snapshot.index}" + (" instead of its log" if batch.discard_log else ""))
    if batch.truncate_from:
        parts.append(f"without {batch.truncate_from} on")
    if batch.entries:
        parts.append("entries " + describe_entries(batch.entries))
    if batch.hard_state:
        parts.append(f"term {batch.hard_state.term}, vote {batch.hard_state.voted_for or 'none'}")
    return ": ".join((parts[0], ", ".join(parts[1:])))


def describe_entries(entries: tuple[Entry, ...]) -> str:
    return " ".join(f"{entry.index}@{entry.term}" for entry in entries) or "none"


def describe_message(message: Message) -> str:
    match message:
        case PreVote():
            return f"PreVote for term {message.term}, log {message.last_index}@{message.last_term}"
        case Vote():
            released = f", released by {message.released_by} of {message.released_term}" if message.released_by else ""
            return f"Vote for term {message.term}, log {message.last_index}@{message.last_term}{released}"
        case PreVoteReply() | VoteReply():
            return f"{type(message).__name__} {'yes' if message.granted else 'no'}, term {message.term}"
        case Append():
            after = f"{message.previous_index}@{message.previous_term}"
            return f"Append after {after}: {describe_entries(message.entries)}, commit {message.commit}"
        case AppendReply():
            return f"AppendReply {'durable to' if message.accepted else 'no, try from'} {message.index}"
        case Heartbeat():
            return f"Heartbeat {message.round}, commit {message.commit}"
        case HeartbeatReply():
            return f"HeartbeatReply {message.round}, term {message.term}, log {message.last_index}@{message.last_term}"
        case TimeoutNow():
            return f"TimeoutNow in term {message.term}"
