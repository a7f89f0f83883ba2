"""Where to dial each member: where gossip or the log has it, or where it was found.

A member that moved alone tells the others, who are where it left them. When all moved at once (a power cut, and a DHCP server
that forgot), nobody is where anybody looks, and only a leader could have the log say otherwise. So whoever lacks members asks who
is there at the addresses a person gave (`swarm up --peers`): the answer names a member, and where it is to be dialed. Once that
stream stands each greets the other in gossip, which tells the rest; one such address of one living member is enough.

Promises: only a node whose key the log names is looked for elsewhere, and only while it has no connection; what was found counts
until gossip hears of that member again, or the log has it elsewhere; at most `ASKED_AT_ONCE` questions are open at once, and an
address that answers late holds nobody else up but by its place among those.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence

import trio

from swarm.drivers.boot import Desk, ask
from swarm.drivers.declare import Admitted
from swarm.drivers.membership import Gossip
from swarm.drivers.streams import Streams
from swarm.errors import PeerError
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus
from swarm.ports import Dialer
from swarm.wire.boot import Greeting

LOG = logging.getLogger("swarm.node")
LOOK_EVERY_S = 1.0
"""Times 0.5 to 1.5: after an ordinary restart everybody is connected before the first look."""
ASK_AGAIN_S = 1.0
ASK_AGAIN_S_MAX = 10.0
"""Before an address is asked again: twice as long each time. A host that is off costs an attempt in 10 s, if it was given."""
ASKED_AT_ONCE = 8
"""Handshakes cost each side some 3 ms of a processor, and after a power cut everybody asks everybody."""
Word = tuple[str, int, int]
"""Where a member is, and how new that is."""


class Whereabouts:
    """Asks as long as members are missing. `on_found` is told whenever `addresses` may be another, and now and then."""

    def __init__(
        self,
        desk: Desk,
        dialer: Dialer,
        given: Sequence[str],
        *,
        admitted: Admitted,
        streams: Streams,
        gossip: Gossip,
        suspect_twin: Callable[[str], None],
        on_found: Callable[[], None],
        rng: random.Random,
    ) -> None:
        """`given`: the addresses of `--peers`, host:port. `suspect_twin` is told where this node's own identity answered."""
        self._desk, self._dialer = desk, dialer
        self._given = [address for address in given if address != desk.me.address]
        self._admitted, self._streams, self._gossip = admitted, streams, gossip
        self._suspect_twin, self._on_found, self._rng = suspect_twin, on_found, rng
        self._found: dict[NodeId, tuple[str, Word]] = {}
        """Where each was found, and what was known of it then."""
        self._answered: dict[str, NodeId] = {}
        """Who answered last at a given address, which may be a name, or one of several."""
        self._asking: set[str] = set()
        self._pauses: dict[str, tuple[float, float]] = {}
        """When an address may be asked again, and how long after that."""

    def addresses(self) -> dict[NodeId, str]:
        """Of every admitted node. Cost O(nodes)."""
        known = self._known()
        found = {i: there for i, (there, word) in self._found.items() if known.get(i) == word}
        return {i: found.get(i, address) for i, (address, _, _) in known.items()}

    def _known(self) -> dict[NodeId, Word]:
        members = self._gossip.members()
        words = {i: (each.address, each.generation, each.incarnation) for i, each in members.items()}
        return {i: words.get(i, (node.address, 0, 0)) for i, node in self._admitted.nodes().items()}

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            while self._given:
                await trio.sleep(LOOK_EVERY_S * self._rng.uniform(0.5, 1.5))
                self._introduce()
                for address in self._due():
                    self._asking.add(address)
                    nursery.start_soon(self._ask, address)

    def _due(self) -> list[str]:
        """The given addresses to be asked now, in any order: none while nobody is missing, and none where a member is that has a
        connection."""
        connected = self._streams.connected_at()
        if not self._streams.is_anybody_missing():
            self._pauses.clear()
            return []
        now, there = trio.current_time(), set(connected.values())
        due = [
            address for address in self._given
            if address not in self._asking and address not in there and self._answered.get(address) not in connected
            and self._pauses.get(address, (0.0, 0.0))[0] <= now
        ]  # fmt: skip
        return self._rng.sample(due, min(len(due), ASKED_AT_ONCE - len(self._asking)))

    async def _ask(self, address: str) -> None:
        """Who is there. A find is told at once."""
        try:
            there = await ask(self._dialer, address, self._desk.question())
        except PeerError as error:
            LOG.debug("nobody to be found at %s: %s", address, error)
        else:
            if isinstance(there, Greeting):
                self._hear(address, there)
        finally:
            self._asking.discard(address)
        _, pause_s = self._pauses.get(address, (0.0, ASK_AGAIN_S))
        self._pauses[address] = (trio.current_time() + pause_s, min(2 * pause_s, ASK_AGAIN_S_MAX))

    def _hear(self, address: str, there: Greeting) -> None:
        """Believe it, if it is a member that is missing where it is dialed."""
        belonging = self._desk.belonging
        if self._desk.is_twin(there):
            self._suspect_twin(address)
        node = self._admitted.nodes().get(there.node.id)
        if node is None or node.fingerprint != there.node.fingerprint or node.id == self._desk.me.id:
            return
        if belonging is None or there.cluster_id != belonging.cluster_id:
            return
        self._answered[address] = node.id
        where, dialed = there.node.address, self.addresses()[node.id]
        if self._streams.connected(node.id) or where == dialed:
            return
        LOG.info("found %s at %s; it was last known at %s", node.name, where, dialed)
        self._found[node.id] = (where, self._known()[node.id])
        self._on_found()

    def _introduce(self) -> None:
        """Have gossip greet those that were found and do not speak in it yet: they learn where this node is, and probe it."""
        if not self._found:
            return
        self._on_found()  # what was found may count no more
        members, known = self._gossip.members(), self._known()
        self._found = {i: find for i, find in self._found.items() if known.get(i) == find[1]}
        silent = [i for i in self._found if i in members and members[i].status is not MemberStatus.ALIVE]
        self._gossip.join(self._found[i][0] for i in silent if self._streams.connected(i))
