"""Verdicts: what gossip believes of a node becomes a decision in the log, with its kind and its evidence.

Gossip may say DEAD in under a second; that is an observation of one node. The leader's verdict is what everything else acts on. A
verdict is taken back when the node is alive again, may grow worse (its daemon was gone, now its host is silent), and one that an
operator gave stands until the node is alive.

**The brake.** When more than half of the nodes that were alive 30 s ago, and at least three, became dead within 30 s, it is
usually the network or the leader's own host. The verdicts are passed (people must see them), but replacing waits 60 s, or for
`swarm node confirm-dead`. Voter repair does not wait. A new leader counts the deaths that its own gossip saw
before, so that it brakes as well when its predecessor was among the dead.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from swarm.model.command import PassVerdict
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView
from swarm.model.node import Availability, Node, VerdictKind
from swarm.model.view import ClusterView

BRAKE_WINDOW_S = 30.0
BRAKE_NODES_MIN = 3
BRAKE_WAIT_S = 60.0


class VerdictController:
    """One leadership's memory of who was alive when. `brake_until` is CLOCK_BOOTTIME seconds, 0 when not braking."""

    def __init__(self) -> None:
        self._alive: dict[NodeId, None] = {}
        self._died_at: dict[NodeId, float] = {}
        self.brake_until = 0.0

    def reconcile(self, view: ClusterView) -> list[PassVerdict]:
        """The verdicts to pass now. Asked again after they are applied, it returns nothing."""
        self._remember(view)
        commands = []
        for node_id in sorted(view.nodes):
            node, member = view.nodes[node_id], view.members.get(node_id)
            if member is None or node.availability is Availability.LEFT:
                continue  # a leader takes back what an earlier one said of it; gossip never calls the node it runs on dead
            command = _verdict(node, member)
            if command is not None:
                commands.append(command)
        return commands

    def _remember(self, view: ClusterView) -> None:
        for node_id in sorted(view.nodes):
            member = view.members.get(node_id)
            if member is not None and member.status in (MemberStatus.ALIVE, MemberStatus.SUSPECT):
                self._alive[node_id] = None
                self._died_at.pop(node_id, None)
            elif member is not None and member.status is MemberStatus.DEAD:
                self._died_at.setdefault(node_id, view.now if node_id in self._alive else member.since)
                self._alive.pop(node_id, None)
            else:
                self._alive.pop(node_id, None)
        self._died_at = {node_id: at for node_id, at in self._died_at.items() if node_id in view.nodes}
        lately = [at for at in self._died_at.values() if view.now - at <= BRAKE_WINDOW_S]
        if len(lately) >= BRAKE_NODES_MIN and len(lately) > len(self._alive):
            self.brake_until = max(self.brake_until, max(lately) + BRAKE_WAIT_S)


def _verdict(node: Node, member: MemberView) -> PassVerdict | None:
    standing = node.verdict.kind
    if member.status is MemberStatus.ALIVE:
        if standing is VerdictKind.ALIVE:
            return None
        return PassVerdict(node.id, VerdictKind.ALIVE, "it answers again")
    if member.status is not MemberStatus.DEAD or standing is VerdictKind.CONFIRMED:
        return None
    kind = member.death_kind or VerdictKind.HOST_SILENT
    worse = standing is not VerdictKind.ALIVE and kind is VerdictKind.HOST_SILENT
    if standing is kind or (standing is not VerdictKind.ALIVE and not worse):
        return None
    return PassVerdict(node.id, kind, member.evidence)
