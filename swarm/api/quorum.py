"""Who may fail now, and whether there can be a leader, as the node asked knows it.

A leader knows of its voters what they answer: whether they are heard, whether their disk takes entries. Another node knows that
of itself alone, and of the others what gossip says. A voter that hears no leader for a while counts itself as cut off only where
the others, as gossip sees them, could have one without it; else there is none, and it counts like every voter that is there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from swarm.api.face import ConsensusStatus, NodeFace
from swarm.errors import DiskFull, Unavailable
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus
from swarm.model.node import VerdictKind
from swarm.schema.shapes import UNREACHABLE, node_status
from swarm.schema.tolerance import HANGS, IS_FULL, Tolerance, tolerance, ways_out

UNHEARD_S = 3.0
"""Without an answer to the leader for so long a voter does not count for what may fail: thirty heartbeats. Nor is a leader in
reach that was not heard for so long and does not answer gossip either."""


WAS_REMOVED = "this node was removed from the cluster; the last known phase is shown"


@dataclass(frozen=True, slots=True)
class Quorum:
    """What there is to say. Names where not stated otherwise."""

    may: Tolerance
    idle: dict[str, str]
    """Voters that answer and acknowledge nothing, and what is the matter with their disks."""
    cut_off: tuple[str, ...]
    """Voters that answer gossip and not the leader, or the other way round."""


def quorum_of(face: NodeFace) -> Quorum:
    """As of this moment. Cost O(nodes)."""
    consensus, catalog = face.consensus(), face.catalog
    voters = {*consensus.voters, *consensus.outgoing}
    alive = _nodes_that_are(face, MemberStatus.ALIVE)
    unheard = _unheard(face, consensus, alive)
    nodes = sorted(catalog.nodes.values(), key=lambda node: (node.name, node.id))
    rows = [(node.name, node.id in consensus.voters, node.id in alive and node.id not in unheard) for node in nodes]
    rows += [(str(node_id), True, False) for node_id in consensus.voters if node_id not in catalog.nodes]
    idle = {name_of(face, node_id): why for node_id in sorted(voters) if (why := _matter(face, consensus, node_id))}
    may = tolerance(rows, outgoing=[name_of(face, node_id) for node_id in consensus.outgoing], idle=idle)
    cut_off = tuple(node.name for node in nodes if node.id in alive and node.id in unheard)
    return Quorum(may, idle, cut_off)


def leader_in_reach(face: NodeFace) -> NodeId | None:
    """Whom this node believes to lead, unless it was not heard for a while and does not answer gossip either."""
    consensus = face.consensus()
    leader_id = consensus.leader_id
    if leader_id is None or leader_id == face.node_id or consensus.leader_contact_age_s <= UNHEARD_S:
        return leader_id
    member = face.members().get(leader_id)
    return leader_id if member is not None and member.status is MemberStatus.ALIVE else None


def with_what_is_missing(face: NodeFace, error: Unavailable) -> Unavailable:
    """The same refusal, naming the voters that do not answer or have no room, when they are why, and what can be done."""
    refusals = face.refusals()
    if refusals:
        return Unavailable("the request was not carried out", cause=refusals[0], hint="see swarm status")
    quorum = quorum_of(face)
    if quorum.may.quorum or not face.catalog.nodes:
        return error
    told = DiskFull if isinstance(error, DiskFull) or quorum.may.idle else Unavailable
    why = "no majority of the voters has room on its disk" if quorum.may.idle else "there is no quorum"
    cause = f"{quorum.may.missing}; containers run on, and reads are answered from what was known last"
    return told(f"the request was not carried out: {why}", cause=cause, hint=ways_out(quorum.may, quorum.idle))


def name_of(face: NodeFace, node_id: NodeId) -> str:
    node = face.catalog.nodes.get(node_id)
    return node.name if node is not None else str(node_id)


def silent_nodes(face: NodeFace) -> dict[NodeId, str]:
    """The nodes of whose tasks only the last known phase can be shown, and why: they are dead, by the log or as gossip here sees
    them, or this node was removed and hears of nothing. Cost O(nodes)."""
    if face.removed():
        return dict.fromkeys(face.catalog.nodes, WAS_REMOVED)
    dead = _nodes_that_are(face, MemberStatus.DEAD)
    dead |= {node.id for node in face.catalog.nodes.values() if node.verdict.kind is not VerdictKind.ALIVE}
    return dict.fromkeys(dead, UNREACHABLE)


def _nodes_that_are(face: NodeFace, status: MemberStatus) -> set[NodeId]:
    members = face.members()
    return {
        node.id
        for node in face.catalog.nodes.values()
        if node_status(node, members.get(node.id), is_self=node.id == face.node_id) == status
    }


def _unheard(face: NodeFace, consensus: ConsensusStatus, alive: Collection[NodeId]) -> tuple[NodeId, ...]:
    if consensus.role == "leader" or face.node_id not in consensus.unheard:
        return consensus.unheard
    sets = [voters for voters in (consensus.voters, consensus.outgoing) if voters]
    others = [sum(voter in alive for voter in voters if voter != face.node_id) for voters in sets]
    could = all(2 * count > len(voters) for count, voters in zip(others, sets, strict=True))
    return consensus.unheard if could else ()


def _matter(face: NodeFace, consensus: ConsensusStatus, node_id: NodeId) -> str:
    """What is the matter with a voter's disk; empty while it takes entries, as far as is known."""
    if node_id in consensus.full:
        return IS_FULL
    if node_id in consensus.stalled:
        return HANGS
    member = face.members().get(node_id)
    known = consensus.role == "leader" or node_id == face.node_id
    return "" if known or member is None or member.sample is None or not member.sample.disk_full else IS_FULL
