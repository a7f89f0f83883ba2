"""A node says through the log where it is and what it has: at each start, and whenever the log does not say the same.

It compares what the catalog holds of this node with the facts of this start, and submits a declaration until they agree. A node
that had left and is started again takes work again. The other direction too: who is admitted goes to gossip, to the streams and
to the data folder, so that a cluster whose hosts were all rebooted at once finds itself again.

Promise: facts are declared by their own node only, and never change its key.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from swarm.catalog import Catalog
from swarm.drivers.consensus import Replica
from swarm.drivers.replica_apply import Changes
from swarm.errors import OperatorError, PeerError
from swarm.model.command import COMMANDS, SCHEMA_SINCE, Declare, RotateSecret, SetNode
from swarm.model.ids import NodeId, RequestId
from swarm.model.node import Availability, Node
from swarm.wire.codec import decode_untrusted
from swarm.wire.limits import PAYLOAD_BYTES_MAX

LOG = logging.getLogger("swarm.declare")
RETRY_S = 2.0
REJOIN_AFTER_S = 5.0
"""An election after a start takes 2 s at most; a node that hears of no leader for longer may have left before."""
_FACTS = (
    "name", "address", "api_address", "store_generation", "arch", "os", "capacity", "engine_version", "schema_known", "witness",
)  # fmt: skip


class Facts(Protocol):
    """What is true of this node at this moment; its capacity may appear only when the engine does."""

    def __call__(self) -> Node: ...


class Declaring:
    """Keeps the catalog's record of this node true."""

    def __init__(
        self,
        replica: Replica,
        catalog: Catalog,
        facts: Facts,
        *,
        request_id: Callable[[], RequestId],
        rejoin: Callable[[], Awaitable[None]] | None = None,
        elder_at: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """`rejoin` asks the members' desk to be admitted again, under the same id and key; `elder_at` an address whether another
        daemon with this node's identity was there first."""
        self._rejoin = rejoin
        self._elder_at = elder_at
        self._started_at = trio.current_time()
        self._replica = replica
        self._catalog = catalog
        self._facts = facts
        self._request_id = request_id
        self._returned = False
        self._wake = trio.Event()

    def wake(self) -> None:
        """The facts changed: look again."""
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        task_status.started()
        while True:
            try:
                await self._declare()
            except (OperatorError, PeerError) as error:
                LOG.debug("not declared yet: %s", error)
            with trio.move_on_after(RETRY_S):
                await self._wake.wait()
            self._wake = trio.Event()

    async def _declare(self) -> None:
        facts = self._facts()
        known = self._catalog.nodes.get(facts.id)
        if known is None or (known.availability is Availability.LEFT and not self._replica.leader_id):
            await self._maybe_rejoin()
            return
        if known.address not in ("", facts.address) and self._elder_at is not None and await self._elder_at(known.address):
            return
        if known.availability is Availability.LEFT and not self._returned:
            await self._replica.submit(SetNode(facts.id, Availability.ACTIVE), request_id=self._request_id())
        self._returned = True
        if not _says_the_same(known, facts):
            await self._replica.submit(_declaration(facts), request_id=self._request_id())
            LOG.info("declared: %s at %s, engine %s", facts.name, facts.address, facts.engine_version or "unknown")

    async def _maybe_rejoin(self) -> None:
        """No leader speaks to this node: perhaps it had left, and is back. Admission is the same entry again."""
        if self._rejoin is not None and not self._replica.leader_id and trio.current_time() - self._started_at > REJOIN_AFTER_S:
            await self._rejoin()


def _declaration(facts: Node) -> Declare:
    return Declare(
        node_id=facts.id,
        name=facts.name,
        address=facts.address,
        api_address=facts.api_address,
        store_generation=facts.store_generation,
        labels=facts.labels,
        arch=facts.arch,
        os=facts.os,
        capacity=facts.capacity,
        engine_version=facts.engine_version,
        schema_known=facts.schema_known,
        witness=facts.witness,
    )


def _says_the_same(known: Node, facts: Node) -> bool:
    edited = {key for key, _ in known.label_edits}
    labels = {key: value for key, value in known.labels if key not in edited}
    declared = {key: value for key, value in facts.labels if key not in edited}
    return labels == declared and all(
        getattr(known, name) == getattr(facts, name)
        for name in _FACTS
    )


class Admitted:
    """Who is a member, told to whoever must know, each time it changes. Before the log is read it is what was saved."""

    def __init__(
        self, catalog: Catalog, saved: tuple[Node, ...], tell: Callable[[dict[NodeId, Node]], None]
    ) -> None:
        self._catalog = catalog
        self._saved = {node.id: node for node in saved}
        self._tell = tell

    def nodes(self) -> dict[NodeId, Node]:
        """Every admitted node that has not left."""
        known = dict(self._catalog.nodes) if self._catalog.applied_index else self._saved
        return {node_id: node for node_id, node in known.items() if node.availability is not Availability.LEFT}

    def find(self, node_id: NodeId) -> Node | None:
        """The admitted node of that id; one that has left may return."""
        if self._catalog.applied_index:
            return self._catalog.nodes.get(node_id)
        return self._saved.get(node_id)

    def held_back(self, kind: str, version: int, payload: bytes) -> str:
        """Which members have not declared that they know this kind of entry; empty when all do. One that the entry itself
        removes is not asked. O(1) for kinds of the first schema, else O(nodes)."""
        if not 1 <= version <= COMMANDS.get(kind, (0, None))[0]:
            return f"version {version} of it is of a newer swarm than that of the node that leads"
        since = SCHEMA_SINCE.get((kind, version), 1)
        if since == 1:
            return ""
        leaving = ""
        if kind == "secret.rotate":
            leaving = decode_untrusted(payload, RotateSecret, bytes_max=PAYLOAD_BYTES_MAX).remove
        old = sorted(node.name for node in self.nodes().values() if node.schema_known < since and node.id != leaving)
        return f"it needs schema {since}, which {', '.join(old)} did not declare to know" if old else ""

    def too_old(self, node: Node) -> str:
        """Why a node may not be admitted: it would know less than every member does, and there may be entries that it could not
        apply. Empty when it may. O(nodes)."""
        known = min((member.schema_known for member in self.nodes().values()), default=0)
        if node.schema_known >= known:
            return ""
        return f"its swarm is older than that of every member: it knows schema {node.schema_known}, they {known}"

    def on_changes(self, changes: Changes) -> None:
        """Subscribe this to the replica."""
        if changes.restored or any(applied.touched_nodes for applied in changes.applied):
            self._tell(self.nodes())
