"""Giving one's vote away before leaving for good, so that nobody who stays has to miss it.

A voter that leaves says so to the leader, again and again, until the configuration in force names it no more: the leader's voter
controller replaces it at once, by a learner or by a smaller set. A leader that leaves says it to itself: it is voted out and
names its heir as it goes. What was said is forgotten after a few seconds: nothing is held against a node that changed its mind.

Promise: bounded; a node that is the only voter of others says that it could not give its vote away, and must not leave.
"""

from __future__ import annotations

import logging

import trio

from swarm.catalog import Catalog
from swarm.drivers.consensus import Replica
from swarm.errors import OperatorError, PeerError
from swarm.model.ids import NodeId
from swarm.model.node import Availability
from swarm.ports import Clock, Peers

LOG = logging.getLogger("swarm.leaving")
CALL = "voters.leaving"
GIVE_AWAY_S = 45.0
"""A learner is fit after 10 s of contact, changes are 10 s apart, an election takes 2 s; with the goodbye it stays under 60 s."""
SAY_EVERY_S = 0.5
REMEMBERED_S = 5.0
CALL_S = 2.0


class Leaving:
    """Who said lately that it leaves, to this node as the leader; and this node's own way out."""

    def __init__(self, replica: Replica, catalog: Catalog, peers: Peers, clock: Clock) -> None:
        self._replica = replica
        self._catalog = catalog
        self._peers = peers
        self._clock = clock
        self._said_at: dict[NodeId, float] = {}
        peers.on_call(CALL, self._on_call)

    def ids(self) -> frozenset[NodeId]:
        """Nodes that are about to leave."""
        now = self._clock.now()
        self._said_at = {node_id: at for node_id, at in self._said_at.items() if now - at <= REMEMBERED_S}
        return frozenset(self._said_at)

    async def _on_call(self, source: NodeId, payload: bytes) -> bytes:
        """A member says it of itself."""
        self._said_at[source] = self._clock.now()
        return b""

    async def give_vote_away(self) -> bool:
        """Return when this node votes no more, or after 45 s. False when it is the only voter then, and others stay behind."""
        if not self._stay_behind():
            return True
        with trio.move_on_after(GIVE_AWAY_S):
            while self._is_needed():
                await self._say()
                await trio.sleep(SAY_EVERY_S)
        return len(self._replica.configuration.voters) > 1 or not self._is_needed()

    def _stay_behind(self) -> bool:
        nodes = self._catalog.nodes.values()
        return any(node.id != self._replica.node_id and node.availability is not Availability.LEFT for node in nodes)

    def _is_needed(self) -> bool:
        configuration = self._replica.configuration
        voters = (*configuration.voters, *configuration.outgoing)
        return any(voter.node_id == self._replica.node_id for voter in voters)

    async def _say(self) -> None:
        leader = self._replica.leader_id
        if leader == self._replica.node_id:
            self._said_at[leader] = self._clock.now()
        elif leader:
            try:
                await self._peers.call(leader, CALL, b"", timeout_s=CALL_S)
            except (OperatorError, PeerError) as error:
                LOG.info("the leader does not know yet that this node leaves: %s", error)
