"""After a quorum is lost for good: which survivor should go on, and what it writes to begin a new recovery generation.

Nobody can say what of this log the lost voters had committed. The node that goes on keeps all of it, uncommitted entries too, and
adds a configuration of itself alone under the new generation. A voter set of one commits what it holds, in the new generation
only: no message, vote or acknowledgement of the old one is ever read by it, nor the other way round. So it matters which survivor
goes on: the one whose last entry is of the latest term, and among those the longest log, as in an election (Raft, section 5.4.1).

Pure: no I/O, no clock, no randomness of its own. Promises kept here: terms go on far above those of the old generation, so a term
tells leaders apart across it; term, vote and configuration are one write; what this gives is written once.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from swarm.consensus.quorum import has_quorum, is_small, voters_of
from swarm.model.entry import KIND_CONFIGURATION, Configuration, Entry, HardState, Voter
from swarm.model.generation import TERMS_APART
from swarm.model.ids import NodeId
from swarm.ports import Batch, Stored
from swarm.wire.codec import encode


def begin_generation(stored: Stored, *, me: Voter, generation: int, time_utc: float) -> Batch | None:
    """The write that makes this store the beginning of `generation`; None when that was done already."""
    if stored.hard_state.recovery_generation == generation:
        return None
    assert stored.entries or stored.snapshot is not None, "a log that knows no cluster begins nothing"
    assert me.store_generation == stored.store_generation
    last_index, last_term, last_utc = _end(stored)
    term = max(stored.hard_state.term, last_term) + TERMS_APART
    payload = encode(Configuration((me,)))
    entry = Entry(last_index + 1, term, KIND_CONFIGURATION, 1, payload, generation, max(time_utc, last_utc))
    return Batch(number=1, entries=(entry,), hard_state=HardState(generation, term, ""))


def _end(stored: Stored) -> tuple[int, int, float]:
    """(index, term, wall time) of the last entry."""
    if stored.entries:
        last = stored.entries[-1]
        return last.index, last.term, last.time_utc
    assert stored.snapshot is not None
    return stored.snapshot.index, stored.snapshot.term, stored.snapshot.time_utc


class Look(msgspec.Struct, frozen=True, array_like=True):
    """Where one node stands, as it says itself."""

    node_id: NodeId
    store_generation: int
    term: int
    last_index: int
    last_term: int
    commit_index: int
    applied_index: int
    leader_age_s: float
    """Since a leader was last heard; below 0 when none was since the start."""
    leads: bool
    """Inside its lease."""

    @property
    def order(self) -> tuple[int, int]:
        """Of two survivors the one that compares greater has every entry that the other may have seen committed."""
        return self.last_term, self.last_index


LEADER_LATELY_S = 5.0
"""A leader heard within this may only be changing: several elections fit in."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a survivor knows before it recovers: itself, the nodes that answer it, and the voters it lost."""

    mine: Look
    others: tuple[Look, ...]
    """By id."""
    configuration: Configuration
    """In force here."""
    has_rival: bool = False
    """Another recovery of the same number was met: the leader here may recover once more, so that one of the two stays."""

    @property
    def missing(self) -> tuple[Voter, ...]:
        """Voters that do not answer, or came back without the log they voted with; by id."""
        there = self._there()
        return tuple(voter for voter in voters_of(self.configuration) if voter not in there)

    @property
    def has_quorum(self) -> bool:
        """Whether a majority of every set in force is there: then nothing is lost, and a leader will be elected."""
        there = self._there()
        return has_quorum(self.configuration, lambda voter: voter in there)

    @property
    def leader(self) -> Look | None:
        """A node that leads, or has heard a leader lately."""
        for look in (self.mine, *self.others):
            if look.leads or 0 <= look.leader_age_s < LEADER_LATELY_S:
                return look
        return None

    @property
    def best(self) -> Look:
        """The survivor with the newest log: this node, unless another has a newer one."""
        return max((self.mine, *self.others), key=lambda look: (look.order, look.node_id == self.mine.node_id))

    @property
    def is_small(self) -> bool:
        """Below three voters what was acknowledged is on every learner that answered then, on at most two."""
        return is_small(self.configuration)

    def _there(self) -> set[Voter]:
        return {Voter(look.node_id, look.store_generation) for look in (self.mine, *self.others)}
