"""What every role of a consensus node shares: identity, term and vote, log, commit index, promise, and the way out.

Pure: no I/O, no clock, no randomness of its own. Followers, elections and leadership each live in a module of their own and work
on this one object.

Invariants: applied <= handed out <= commit <= last; the term never falls; one vote in a term.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from msgspec.structs import replace

from swarm.consensus.config import ConsensusConfig
from swarm.consensus.effects import Apply, Effect, ProposalLost, RestoreSnapshot, Role, RoleChanged, Send
from swarm.consensus.freshness import Freshness
from swarm.consensus.lease import Promise
from swarm.consensus.log import Log, configuration_untrusted
from swarm.consensus.messages import Message
from swarm.consensus.quorum import is_voter
from swarm.consensus.stream import Stream
from swarm.consensus.writes import Writes
from swarm.errors import Bug
from swarm.machine import Outbox
from swarm.model.entry import Committed, Entry, HardState, SnapshotMeta, Voter
from swarm.model.ids import NodeId
from swarm.ports import SnapshotData, Stored

NOBODY = NodeId("")


class State:
    """Shared by the modules of this package; nobody else touches it."""

    def __init__(
        self, *, me: Voter, recovery_generation: int, config: ConsensusConfig, rng: random.Random, stored: Stored, now: float
    ) -> None:
        self.me = me
        self.node_id = NodeId(me.node_id)
        self.recovery_generation = recovery_generation
        self.config = config
        self.rng = rng
        self.now = now
        self.outbox: Outbox[Effect] = Outbox()
        snapshot = stored.snapshot and replace(stored.snapshot, recovery_generation=recovery_generation)  # kept by a recovery
        self.log = Log(stored.entries, snapshot, stored.snapshot_data)
        hard = stored.hard_state if stored.hard_state.recovery_generation == recovery_generation else HardState()
        self.term = max(hard.term, self.log.last_term)
        self.voted_for = NodeId(hard.voted_for) if hard.term == self.term else NodeId("")
        self.writes = Writes(self.log, self.hard_state, self.outbox, now)
        if self.hard_state != stored.hard_state:
            self.writes.save_hard_state(self.hard_state)
        self.disk_full = False
        """What room is left is for terms, votes and compaction: a leader sends entries elsewhere."""
        self.promise = Promise(config, now)
        self.freshness = Freshness()
        self.role = Role.FOLLOWER
        self.leader_id = NodeId("")
        self.leader_contact = float("-inf")
        self.commit_index = self.log.offset
        self.handed_index = self.log.offset
        """Entries up to here were given out in `Apply`."""
        self.applied_index = self.log.offset
        self.election_deadline = now + self.election_timeout_s()
        self.learners: tuple[Voter, ...] = ()
        self.stream = Stream()
        self.abstains = False
        """Votes and acknowledges, but never campaigns: its catalog stands still, so it could commit and never act."""
        if stored.snapshot is not None:
            assert stored.snapshot_data is not None, "a snapshot has data"
            self.outbox.emit(RestoreSnapshot(stored.snapshot, stored.snapshot_data))
        if stored.committed.recovery_generation == recovery_generation:
            self.commit(min(stored.committed.index, self.log.last_index))

    @property
    def hard_state(self) -> HardState:
        return HardState(self.recovery_generation, self.term, self.voted_for)

    def committed(self) -> Committed:
        """The commit index as it is written to the disk."""
        term = self.log.term_at(self.commit_index)
        assert term is not None, "the log holds what was committed last, or begins there"
        return Committed(self.recovery_generation, self.commit_index, term)

    @property
    def is_voter(self) -> bool:
        """Whether this node, under its present store generation, is in a voter set in force."""
        return is_voter(self.log.configuration, self.me)

    @property
    def may_be_needed(self) -> bool:
        """Whether it is a voter, or was one before a configuration that is not known to be committed. The latter may be the only
        one with a log long enough to lead: it must still campaign until that configuration is committed (thesis, section 4.2.2).
        """
        index = self.log.configuration_index
        if self.is_voter or index <= self.commit_index:
            return self.is_voter
        return is_voter(self.log.configuration_at(index - 1)[1], self.me)

    @property
    def knows_cluster(self) -> bool:
        """Whether it holds entry 1 (or a snapshot over it). Without, it votes for nobody."""
        return self.log.last_index > 0

    @property
    def is_disk_stalled(self) -> bool:
        return self.writes.disk_age_s(self.now) > self.config.disk_stall_s

    def observe_now(self, now: float) -> None:
        """Time never goes backwards for a core."""
        self.now = max(self.now, now)

    def election_timeout_s(self) -> float:
        """Drawn anew for every wait (section 5.2). Those whose disk has room go first."""
        behind_s = 2 * self.config.promise_s if self.disk_full else 0.0
        return behind_s + self.rng.uniform(1.0, self.config.election_spread) * self.config.promise_s

    def reset_election(self) -> None:
        self.election_deadline = self.now + self.election_timeout_s()

    def header(self) -> tuple[int, int, int]:
        """The fields every message begins with."""
        return self.term, self.recovery_generation, self.me.store_generation

    def send(self, to: NodeId, message: Message) -> None:
        """Send at once; for messages that promise nothing durable."""
        self.outbox.emit(Send(to, message))

    def release(self, to: NodeId, message: Message) -> None:
        """Send when everything so far is durable, unless the term has changed by then."""
        self.writes.release(Send(to, message))

    def adopt_term(self, term: int, voted_for: NodeId = NOBODY) -> None:
        """Enter a later term, or vote in this one."""
        if term < self.term or (term == self.term and self.voted_for not in ("", voted_for)):
            raise Bug(f"vote for {voted_for} in term {term} after {self.voted_for} in term {self.term}")
        if term > self.term:
            self.stream = Stream()
        self.term, self.voted_for = term, voted_for
        self.writes.save_hard_state(self.hard_state)

    def become(self, role: Role, leader_id: NodeId) -> None:
        """Change role or leader; says so when something changed."""
        self.role, self.leader_id = role, leader_id
        self.outbox.emit(RoleChanged(role, self.term, leader_id))

    def hear_leader(self, leader_id: NodeId) -> None:
        """A message of this term's leader was accepted: follow, promise, wait anew."""
        if self.role is Role.LEADER:
            raise Bug(f"{leader_id} and {self.node_id} both lead term {self.term}")
        if self.role is not Role.FOLLOWER or self.leader_id != leader_id:
            self.become(Role.FOLLOWER, leader_id)
        self.promise.extend(leader_id, self.term, self.now)
        self.leader_contact = self.now
        self.reset_election()

    def take(self, entries: Sequence[Entry]) -> None:
        """Skip what is there already, overwrite what contradicts, append the rest. Raises `BadMessage` before changing
        anything."""
        log = self.log
        new = 0
        while new < len(entries) and (entries[new].index <= log.offset or log.matches(entries[new].index, entries[new].term)):
            new += 1
        if new == len(entries):
            return
        for entry in entries[new:]:
            configuration_untrusted(entry)
        if entries[new].index <= log.last_index:
            self.truncate(entries[new].index)
        log.append(entries[new:])

    def truncate(self, first: int) -> None:
        """Drop entries that a leader contradicts; they were never committed."""
        if first <= self.commit_index:
            raise Bug(f"entry {first} is to be overwritten but {self.commit_index} is committed")
        for entry in self.log.truncate(first):
            self.outbox.emit(ProposalLost(entry.index, entry.term))
        self.writes.truncated(first)

    def commit(self, index: int) -> bool:
        """Everything up to `index` is committed. Hands it out for applying. Returns whether that is news."""
        if index <= self.commit_index:
            return False
        if index > self.log.last_index:
            raise Bug(f"commit {index} beyond the last entry {self.log.last_index}")
        self.commit_index = index
        self.outbox.emit(Apply(self.log.between(self.handed_index + 1, index)))
        self.handed_index = index
        return True

    def maybe_let_go(self) -> None:
        """A node that stopped applying makes no snapshots, so nothing else would ever shorten its log. It keeps acknowledging all
        the same: a voter that did not would take the cluster's majority away with its own upgrade outstanding."""
        if self.abstains:
            self.log.let_go(min(self.commit_index, self.writes.durable_index), at_least=self.config.trailing)

    def snapshot_meta(self, index: int, *, crc32c: int, length: int) -> SnapshotMeta:
        """The description of a catalog snapshot that was made at this applied index."""
        log = self.log
        term = log.term_at(index)
        assert term is not None and index <= self.applied_index
        configuration_index, configuration = log.configuration_at(index)
        time_utc, generation = log.time_at(index), self.recovery_generation
        return SnapshotMeta(index, term, configuration, configuration_index, generation, time_utc, crc32c, length)

    def compact(self, meta: SnapshotMeta, data: SnapshotData) -> None:
        """The catalog's snapshot replaces the log up to `meta.index`. One that is older than the last is ignored."""
        assert meta.index <= self.applied_index, "a snapshot of what is not applied"
        if self.log.snapshot is None or meta.index > self.log.snapshot.index:
            self.log.compact(meta, data, trailing=self.config.trailing)
            self.writes.save_snapshot(meta, data, discard=False)

    def check(self) -> None:
        """Assert every invariant. O(n)."""
        self.log.check()
        self.writes.check(self.hard_state)
        assert self.applied_index <= self.handed_index <= self.commit_index <= self.log.last_index
        assert self.log.offset <= self.applied_index or self.abstains
        assert self.log.last_term <= self.term
