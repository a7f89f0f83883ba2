"""Two of the three meanings of stopping: a pause that is announced, and leaving for good.

A pause says by when the node will be back, hands the lead over if it has it, and ends; containers run on and nothing is replaced
before then. Leaving drains the node, waits until nothing of it is left here, gives its vote away, says in the log and in gossip
that it has left, and ends. (The third meaning, death, is what others find out.)

Promise: neither stops a container by itself; draining moves work before it stops it. A node whose vote nobody can take does not
leave: it ends as for a pause, and its vote waits in its data folder.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from swarm.catalog import Catalog
from swarm.consensus.effects import Role
from swarm.controllers import heir_of
from swarm.drivers.consensus import Replica
from swarm.drivers.leaving import Leaving
from swarm.drivers.membership import Gossip
from swarm.errors import OperatorError, PeerError, UnknownOutcome
from swarm.model.command import SetNode
from swarm.model.ids import NodeId, RequestId
from swarm.model.node import Availability

LOG = logging.getLogger("swarm.departure")
RETURN_BY_S = 60.0
DECLARE_S = 10.0
RETRY_S = 1.0
HAND_OVER_S = 2.0
LOOK_EVERY_S = 0.2
GOODBYE_S = 3.0
"""Nobody talks to a node that has left: the answer to its goodbye is not waited for longer than this."""


class Departure:
    """How this node goes."""

    def __init__(
        self, replica: Replica, catalog: Catalog, gossip: Gossip, leaving: Leaving, *, request_id: Callable[[], RequestId]
    ) -> None:
        self._leaving = leaving
        self._replica = replica
        self._catalog = catalog
        self._gossip = gossip
        self._request_id = request_id

    async def pause(self) -> None:
        """Announce the return and hand the lead over. A few tenths of a second; bounded."""
        self._gossip.pause(RETURN_BY_S)
        await self._hand_over()
        await self._gossip.flush()

    async def leave(self) -> None:
        """Drain, wait until this node is empty, give the vote away, say goodbye: as long as the moves take, and at most 60 s."""
        node_id = self._replica.node_id
        await self._set(node_id, Availability.DRAIN, "drained")
        while any(not self._catalog.assignments[each].ended for each in self._catalog.by_node.get(node_id, {})):
            await trio.sleep(LOOK_EVERY_S)
        if not await self._leaving.give_vote_away():
            LOG.error("this node does not leave: it has the only vote, and nobody could take it; it ends as for a pause")
            await self.pause()
            return
        await self._hand_over()
        await self._set(node_id, Availability.LEFT, "gone", timeout_s=GOODBYE_S)
        await self._gossip.leave()

    async def _set(self, node_id: NodeId, availability: Availability, word: str, *, timeout_s: float = DECLARE_S) -> None:
        """Until it is in the log: an operator who wants to stop at once still has SIGTERM.

        A goodbye that was sent, and after which nobody answers, was heard: the members end all talk with a node that has left.
        """
        request_id = self._request_id()
        while True:
            try:
                await self._replica.submit(SetNode(node_id, availability), request_id=request_id, timeout_s=timeout_s)
                return
            except UnknownOutcome as error:
                if availability is Availability.LEFT:
                    return
                failure: OperatorError | PeerError = error
            except (OperatorError, PeerError) as error:
                failure = error
            LOG.warning("cannot put into the log yet that this node is %s: %s", word, failure)
            await trio.sleep(RETRY_S)

    async def _hand_over(self) -> None:
        """Give the lead to the best voter that is there; others would only find out by waiting."""
        if self._replica.role is not Role.LEADER:
            return
        replica = self._replica
        heir = heir_of(replica.configuration, replica.followers(), self._catalog.nodes, replica.now())
        if heir is None:
            return
        try:
            self._replica.transfer_leadership(heir)
        except OperatorError as error:
            LOG.info("the lead is not handed over: %s", error)
            return
        with trio.move_on_after(HAND_OVER_S):
            while self._replica.role is Role.LEADER or not self._replica.leader_id:
                await trio.sleep(0.01)
