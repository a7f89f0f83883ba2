"""Consensus: one node's part in a lease-elected leadership and a replicated log (Raft, with the lease made explicit).

Pure: no I/O, no clock, no randomness of its own. This module is the door: it checks where a message belongs, enters later
terms, and passes on to the election, the follower or the leadership of the moment. What is to be written and sent is collected
while inputs are fed and comes out of `take_effects` in order: one write for everything that changed, beside it the messages.

Promises kept here: a message of another recovery generation is ignored; a message of an earlier term changes nothing; a later
term is entered before its message is read, unless a promise says not to read it; proposals are taken only inside the lease.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from swarm.consensus import follower, streaming
from swarm.consensus.config import ConsensusConfig
from swarm.consensus.effects import Effect, Role
from swarm.consensus.election import Election
from swarm.consensus.freshness import Freshness
from swarm.consensus.leader import Leadership
from swarm.consensus.messages import (
    Append,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    Message,
    PreVote,
    PreVoteReply,
    Pull,
    Pulled,
    TimeoutNow,
    Vote,
    VoteReply,
)
from swarm.consensus.state import State
from swarm.errors import BadMessage, OperatorError, PeerError, Unavailable
from swarm.machine import ends_when_broken
from swarm.model.entry import Committed, Configuration, Entry, SnapshotMeta, Voter
from swarm.model.ids import NodeId, RequestId
from swarm.model.view import FollowerView
from swarm.ports import SnapshotData, Stored

TERMS_AHEAD_MAX = 2**32
"""A term that is further beyond one's own is none: elections raise it by one, a recovery by a million. Without a limit a single
message could use all terms up, and nobody would ever be elected again."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """Where a proposal stands. It is carried out if and only if the entry applied at `index` has this `term`."""

    index: int
    term: int


@ends_when_broken(OperatorError, PeerError)
class Consensus:
    """The core. `me` is this node's id and store generation; `stored` what its store held when it was opened."""

    def __init__(
        self, *, me: Voter, recovery_generation: int, config: ConsensusConfig, rng: random.Random, stored: Stored, now: float
    ) -> None:
        self._state = State(me=me, recovery_generation=recovery_generation, config=config, rng=rng, stored=stored, now=now)
        self._election = Election(self._state, self._become_leader)
        self._leadership: Leadership | None = None

    # ---- what it knows

    @property
    def me(self) -> Voter:
        return self._state.me

    @property
    def role(self) -> Role:
        return self._state.role

    @property
    def term(self) -> int:
        return self._state.term

    @property
    def leader_id(self) -> NodeId:
        """The leader last heard of, this node included; a hint. Empty when none is known."""
        return self._state.leader_id

    @property
    def leader_contact(self) -> float:
        """When a message of a leader was last accepted (for the leader: its own last round); -inf if never."""
        return self._state.leader_contact

    @property
    def freshness(self) -> Freshness:
        """How old the catalog here is; for reading only."""
        return self._state.freshness

    @property
    def commit_index(self) -> int:
        return self._state.commit_index

    @property
    def applied_index(self) -> int:
        return self._state.applied_index

    @property
    def last_index(self) -> int:
        return self._state.log.last_index

    @property
    def durable_index(self) -> int:
        return self._state.writes.durable_index

    @property
    def configuration(self) -> Configuration:
        """In force: appended, perhaps not committed (see `is_configuration_committed`)."""
        return self._state.log.configuration

    @property
    def is_configuration_committed(self) -> bool:
        """No change is under way."""
        log = self._state.log
        return not log.configuration.outgoing and log.configuration_index <= self._state.commit_index

    @property
    def is_voter(self) -> bool:
        """Whether this node under its present store generation votes."""
        return self._state.is_voter

    @property
    def snapshot(self) -> tuple[SnapshotMeta, SnapshotData] | None:
        """The newest snapshot, for sending."""
        meta, data = self._state.log.snapshot, self._state.log.snapshot_data
        return (meta, data) if meta is not None and data is not None else None

    def entry_at(self, index: int) -> Entry | None:
        """The log's entry, or None when it is compacted or not there yet."""
        log = self._state.log
        return log.entry(index) if log.offset < index <= log.last_index else None

    def term_at(self, index: int) -> int | None:
        """The term of the entry at `index`; None when the log does not hold it."""
        return self._state.log.term_at(index)

    def lease_valid(self, now: float) -> bool:
        """Whether this node leads inside its lease: nobody else can be acting as leader at `now`."""
        return self._leadership is not None and self._leadership.is_lease_valid(now)

    def lease_until(self) -> float:
        """When the lease ends unless it is renewed; -inf without one."""
        return self._leadership.lease_from() + self._state.config.lease_s if self._leadership else float("-inf")

    def may_act(self, now: float) -> bool:
        """Whether a side effect may be started now: inside the lease, with everything before this term applied."""
        leadership = self._leadership
        return leadership is not None and self.lease_valid(now) and self._state.applied_index >= leadership.noop_index

    def read_index(self, now: float) -> int:
        """The commit index as a leader inside its lease names it: everything acknowledged before `now` is at or below it.
        Raises `Unavailable`."""
        leadership = self._leadership
        if leadership is None or not self.lease_valid(now) or self._state.commit_index < leadership.noop_index:
            raise Unavailable("cannot confirm the newest state: this node is not a leader inside its lease", hint=self._hint())
        return self._state.commit_index

    def followers(self) -> Mapping[NodeId, FollowerView]:
        """What a leader knows of the others; empty for anybody else."""
        return self._leadership.replication.views() if self._leadership else {}

    @property
    def next_deadline(self) -> float:
        if self._leadership:
            return self._leadership.next_deadline
        return min(self._election.next_deadline, streaming.next_deadline(self._state))

    def take_effects(self) -> list[Effect]:
        """Everything to be done since the last call, in order: messages that need no disk, then the write."""
        if self._leadership is not None:
            self._leadership.replication.flush()
        streaming.serve(self._state)
        self._state.writes.flush(self._state.now, self._state.committed)
        return self._state.outbox.take()

    # ---- time

    def tick(self, now: float) -> None:
        """Do what is due."""
        self._state.observe_now(now)
        if self._leadership is not None:
            self._leadership.tick()
            self._maybe_end_leadership()
        else:
            self._election.tick()
            streaming.tick(self._state)

    def on_stall(self, gap_s: float, now: float) -> None:
        """This process stood still: its election timeout says nothing about the leader, nor its silence about the disk."""
        assert gap_s >= 0
        self._state.observe_now(now)
        self._state.writes.excuse(now)
        self._state.freshness.stood_still(gap_s, now)
        self._state.reset_election()
        if self._leadership is not None:
            self._leadership.on_stall()

    # ---- messages

    def on_message(self, source: NodeId, message: Message, now: float) -> None:
        """One message of an authenticated peer. Raises `BadMessage` for entries that do not decode and terms far beyond all."""
        state = self._state
        state.observe_now(now)
        if message.recovery_generation != state.recovery_generation or source == state.node_id:
            return
        if isinstance(message, Vote) and self._election.ignore_vote(message):
            return
        if message.term > state.term and not self._is_hypothetical(message):
            self._enter_term(message.term)
        if message.term < state.term and not isinstance(message, PreVote):
            follower.answer_earlier_term(state, source, message)
            return
        self._dispatch(source, message)
        self._maybe_end_leadership()

    @staticmethod
    def _is_hypothetical(message: Message) -> bool:
        """A pre-vote and a grant of one name a term that nobody has entered yet. Streams between peers enter none."""
        return isinstance(message, PreVote | Pull | Pulled) or (isinstance(message, PreVoteReply) and message.granted)

    def _dispatch(self, source: NodeId, message: Message) -> None:
        match message:
            case Append():
                self._election.give_up()
                follower.on_append(self._state, source, message)
            case Heartbeat():
                self._election.give_up()
                follower.on_heartbeat(self._state, source, message)
            case AppendReply():
                if self._leadership is not None:
                    self._leadership.on_append_reply(source, message)
            case HeartbeatReply():
                if self._leadership is not None:
                    self._leadership.on_heartbeat_reply(source, message)
            case PreVote():
                self._election.on_pre_vote(source, message)
            case PreVoteReply():
                self._election.on_pre_vote_reply(source, message)
            case Vote():
                self._election.on_vote(source, message)
            case VoteReply():
                self._election.on_vote_reply(source, message)
            case TimeoutNow():
                self._election.on_timeout_now(source, message)
            case Pull() | Pulled():
                streaming.on_message(self._state, source, message)
            case _:
                assert_never(message)

    def _enter_term(self, term: int) -> None:
        """A later term exists: whatever this node was, it is a follower in it. Raises `BadMessage`, changing nothing."""
        if term > self._state.term + TERMS_AHEAD_MAX:
            raise BadMessage(f"term {term} is impossibly far beyond this node's, {self._state.term}")
        self._election.give_up()
        self._leadership = None
        self._state.adopt_term(term)
        self._state.become(Role.FOLLOWER, NodeId(""))
        self._state.election_deadline = max(self._state.election_deadline, self._state.now)

    def _become_leader(self) -> None:
        self._state.become(Role.LEADER, self._state.node_id)
        self._leadership = Leadership(self._state)
        self._leadership.tick()

    def _maybe_end_leadership(self) -> None:
        if self._leadership is not None and self._leadership.over:
            self._leadership = None
            self._state.become(Role.FOLLOWER, NodeId(""))
            self._state.reset_election()

    # ---- the disk, the catalog

    def on_persisted(self, batch_number: int, now: float) -> None:
        """Everything up to this batch is durable."""
        self._state.observe_now(now)
        if not self._state.writes.complete(batch_number, self._state.term, now):
            return
        self._election.on_persisted()
        if self._leadership is not None:
            self._leadership.maybe_commit()
            self._maybe_end_leadership()
        self._state.maybe_let_go()

    def on_disk(self, last_write_completed: float, now: float, *, full: bool = False) -> None:
        """The driver's own small write, once a second, completed then. `full`: no entries from now on, but what must be."""
        self._state.observe_now(now)
        self._state.disk_full = full
        self._state.writes.probed(last_write_completed)

    def lazy_commit(self) -> Committed | None:
        """The commit index, for a write made anyway; None when the disk has it."""
        return self._state.writes.lazy_commit(self._state.committed())

    def on_applied(self, index: int, now: float) -> None:
        """The catalog has applied everything up to `index`."""
        self._state.observe_now(now)
        assert index <= self._state.handed_index, "applied what was never given out"
        self._state.applied_index = max(self._state.applied_index, index)
        self._state.freshness.applied(index)

    def snapshot_meta(self, index: int, *, crc32c: int, length: int) -> SnapshotMeta:
        """The description of a catalog snapshot that was made at this applied index."""
        return self._state.snapshot_meta(index, crc32c=crc32c, length=length)

    def compact(self, meta: SnapshotMeta, data: SnapshotData, now: float) -> None:
        """The catalog's snapshot replaces the log up to `meta.index`. One that is older than the last is ignored."""
        self._state.observe_now(now)
        self._state.compact(meta, data)

    def wants_snapshot(self, meta: SnapshotMeta) -> bool:
        """Whether this snapshot holds more than what is committed here."""
        return meta.recovery_generation == self._state.recovery_generation and meta.index > self._state.commit_index

    def on_snapshot(self, source: NodeId, meta: SnapshotMeta, data: SnapshotData, now: float) -> None:
        """A whole, verified snapshot arrived."""
        self._state.observe_now(now)
        if meta.recovery_generation == self._state.recovery_generation and meta.term > self._state.term:
            self._enter_term(meta.term)
        follower.on_snapshot(self._state, source, meta, data)

    def on_snapshot_sent(self, to: NodeId, *, arrived: bool, now: float) -> None:
        """A transfer asked for by `SendSnapshot` ended."""
        self._state.observe_now(now)
        if self._leadership is not None:
            self._leadership.replication.on_snapshot_sent(to, arrived=arrived)

    # ---- intents

    def _lead(self, doing: str, now: float) -> Leadership:
        """The leadership, if it may take proposals now. Raises `Unavailable`."""
        self._state.observe_now(now)
        leadership = self._leadership
        if leadership is None:
            raise Unavailable(f"cannot {doing}: this node does not lead", hint=self._hint())
        if leadership.is_transferring:
            raise Unavailable(f"cannot {doing}: leadership is being handed over", hint="try again in a second")
        if not leadership.is_lease_valid(now):
            raise Unavailable(f"cannot {doing}: no majority of the voters has answered lately", hint="see `swarm status`")
        return leadership

    def _hint(self) -> str:
        return f"the leader is {self._state.leader_id}" if self._state.leader_id else "no leader is known"

    def propose(self, kind: str, version: int, payload: bytes, request_id: RequestId, now: float, now_utc: float) -> Proposed:
        """Append an entry. Raises `Unavailable`, `Overloaded` or `UsageError`, having done nothing."""
        entry = self._lead(f"propose {kind}", now).propose(kind, version, payload, request_id, now_utc)
        return Proposed(entry.index, entry.term)

    def propose_configuration(self, voters: tuple[Voter, ...], now: float, now_utc: float) -> Proposed:
        """Begin a joint change to these voters; the second step follows by itself. Raises `Unavailable`, having done nothing."""
        entry = self._lead("change the voters", now).propose_configuration(voters, now_utc)
        return Proposed(entry.index, entry.term)

    def set_learners(self, learners: tuple[Voter, ...], now: float) -> None:
        """Every admitted node that is to have the log; voters among them are voters all the same."""
        self._state.observe_now(now)
        if learners != self._state.learners:
            self._state.learners = learners
            if self._leadership is not None:
                self._leadership.refresh_followers()

    def deliver(self, nodes: Iterable[NodeId], now: float) -> None:
        """Committed assignments name these nodes: a leader has them know at once, from itself."""
        self._state.observe_now(now)
        if self._leadership is not None:
            self._leadership.replication.deliver(nodes)

    def transfer_leadership(self, to: NodeId, now: float) -> None:
        """Hand over to a voter. Raises `Unavailable`, having done nothing."""
        self._lead("hand over", now).transfer(to)
        self._maybe_end_leadership()

    def step_down(self, now: float, *, for_good: bool = False) -> None:
        """Stop leading; somebody is elected when the promises run out. `for_good`: nothing is applied here any more, until this
        process ends; voting goes on, and the log in memory stays short."""
        self._state.observe_now(now)
        self._state.abstains = self._state.abstains or for_good
        self._state.maybe_let_go()
        if self._leadership is not None:
            self._leadership.over = "asked to step down"
            self._maybe_end_leadership()

    def check(self) -> None:
        """Assert every invariant. O(n)."""
        self._state.check()
        assert (self._leadership is not None) == (self._state.role is Role.LEADER)
        for node_id, progress in self._leadership.replication.followers.items() if self._leadership else ():
            assert progress.match < progress.next, f"{node_id}: match {progress.match}, next {progress.next}"
