"""Where to dial each member: where it says it is, where it was found, or where the log has it.

A member that moved alone tells the others, who are where it left them. When all moved at once (a power cut, and a DHCP server
that forgot), nobody is where anybody looks, and only a leader could have the log say otherwise. So whoever lacks members asks who
is there at the addresses a person gave (`swarm up --peers`): the answer names a member, and where it is to be dialed. Once that
stream stands each greets the other in gossip, which tells the rest; one such address of one living member is enough.

Promises: only a node whose key the log names is looked for elsewhere, and only while it has no connection; what a living member
says of itself, or what the log says since, goes before what was found; at most 8 questions are open at once.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence

import trio

from swarm.drivers.boot import Desk, ask
from swarm.drivers.declare import Admitted
from swarm.drivers.streams import Streams
from swarm.errors import PeerError
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView
from swarm.ports import Dialer
from swarm.wire.boot import Greeting

LOG = logging.getLogger("swarm.node")
ASK_EVERY_S = 1.0
"""Before the first questions, times 0.5 to 1.5: after an ordinary restart everybody is connected by then."""
ASK_EVERY_S_MAX = 30.0
"""Twice as long each time that nothing was found: a host that is off costs its address a question in 30 s."""
ASKED_AT_ONCE = 8


class Whereabouts:
    """Asks as long as members are missing. `on_found` is told when `addresses` may be another."""

    def __init__(
        self,
        desk: Desk,
        dialer: Dialer,
        given: Sequence[str],
        *,
        admitted: Admitted,
        streams: Streams,
        members: Callable[[], Mapping[NodeId, MemberView]],
        greet: Callable[[Iterable[str]], None],
        on_found: Callable[[], None],
        rng: random.Random,
    ) -> None:
        """`given`: the addresses of `--peers`, ip:port. `greet` has gossip say hello to addresses."""
        self._desk, self._dialer = desk, dialer
        self._given = [address for address in given if address != desk.me.address]
        self._admitted, self._streams, self._members = admitted, streams, members
        self._greet, self._on_found, self._rng = greet, on_found, rng
        self._found: dict[NodeId, tuple[str, str]] = {}
        """Where each was found, and where the log had it then."""

    def addresses(self) -> dict[NodeId, str]:
        """Of every admitted node. Cost O(nodes)."""
        said = {i: each.address for i, each in self._members().items() if each.status is MemberStatus.ALIVE}
        found = {i: (there, logged) for i, (there, logged) in self._found.items() if i not in said}
        addresses = {node_id: said.get(node_id, node.address) for node_id, node in self._admitted.nodes().items()}
        for node_id, (there, logged) in found.items():
            if addresses.get(node_id) == logged:
                addresses[node_id] = there
        return addresses

    async def run(self) -> None:
        """Until cancelled."""
        pause_s = ASK_EVERY_S
        while self._given:
            await trio.sleep(pause_s * self._rng.uniform(0.5, 1.5))
            found = await self._ask_all(self._unheard())
            self._introduce()
            pause_s = ASK_EVERY_S if found else min(2 * pause_s, ASK_EVERY_S_MAX)

    def _unheard(self) -> list[str]:
        """The given addresses at which no connection to a member stands; none while nobody is missing."""
        addresses = {i: where for i, where in self.addresses().items() if i != self._desk.me.id}
        connected = {where for i, where in addresses.items() if self._streams.connected(i)}
        missing = any(not self._streams.connected(i) for i in addresses)
        return [address for address in self._given if missing and address not in connected]

    async def _ask_all(self, unheard: Sequence[str]) -> bool:
        """Whether somebody was found."""
        found: list[NodeId] = []
        limit = trio.CapacityLimiter(ASKED_AT_ONCE)

        async def one(address: str) -> None:
            async with limit:
                found.extend(await self._ask(address))

        async with trio.open_nursery() as nursery:
            for address in unheard:
                nursery.start_soon(one, address)
        if found:
            self._on_found()
        return bool(found)

    async def _ask(self, address: str) -> list[NodeId]:
        """The member that is there, if it is one and was not known to be."""
        try:
            there = await ask(self._dialer, address, self._desk.question())
        except PeerError as error:
            LOG.debug("nobody to be found at %s: %s", address, error)
            return []
        belonging = self._desk.belonging
        if not isinstance(there, Greeting) or belonging is None or there.cluster_id != belonging.cluster_id:
            return []
        node = self._admitted.nodes().get(there.node.id)
        if node is None or node.id == self._desk.me.id or node.fingerprint != there.node.fingerprint:
            return []
        where = there.node.address
        if self._streams.connected(node.id) or self.addresses()[node.id] == where:
            return []
        LOG.info("found %s at %s; it was last known at %s", node.name, where, self.addresses()[node.id])
        self._found[node.id] = (where, node.address)
        return [node.id]

    def _introduce(self) -> None:
        """Have gossip greet those that were found and do not speak in it yet: they learn where this node is, and probe it."""
        members = self._members()
        silent = [i for i in self._found if i in members and members[i].status is not MemberStatus.ALIVE]
        self._greet(self._found[i][0] for i in silent if self._streams.connected(i))
