"""What consensus asks its driver to do. A closed union; carried out in order.

`Persist` is asynchronous: the driver queues its batch for the disk and goes on with the next effect. Batches become durable in
the order of their numbers; `Consensus.on_persisted(number)` says that all up to that number are. The messages in `release` are
shown for the trace: the core itself emits them as `Send` when the batch is durable, or drops them when the term has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from swarm.consensus.messages import Message
from swarm.model.entry import Entry, SnapshotMeta
from swarm.model.ids import NodeId
from swarm.ports import Batch, SnapshotData


class Role(StrEnum):
    """What a node is in its term. Voter or learner is another matter: the configuration says."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Send:
    """Queue a message for a peer, or drop it; never wait."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Persist:
    """Write a batch; report it with `on_persisted`. Do not send `release` yourself."""

    batch: Batch
    release: tuple[Send, ...] = ()


@dataclass(frozen=True, slots=True)
class Apply:
    """Give committed entries to the catalog, in order; report with `on_applied`."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class RestoreSnapshot:
    """Replace the catalog by this snapshot. Entries that follow come in later `Apply` effects."""

    meta: SnapshotMeta
    data: SnapshotData


@dataclass(frozen=True, slots=True)
class SendSnapshot:
    """Send the current snapshot (`Consensus.snapshot`) to a follower; report with `on_snapshot_sent`."""

    to: NodeId
    meta: SnapshotMeta


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """Role, term or known leader changed. `leader_id` is empty when none is known."""

    role: Role
    term: int
    leader_id: NodeId


@dataclass(frozen=True, slots=True)
class ProposalLost:
    """The entry that stood at `index` with `term` was overwritten: it was not applied and never will be."""

    index: int
    term: int


Effect = Persist | Send | Apply | RestoreSnapshot | SendSnapshot | RoleChanged | ProposalLost
