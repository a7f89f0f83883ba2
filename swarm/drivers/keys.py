"""A node follows the cluster's secret: takes what the log brings in, sends with what it says, forgets what it retires, answers.

Each step is on disk before it is in force, and in force before it is answered: what a member has acknowledged it can do, also
after a crash. A copy that is missing (the node was admitted later) or does not open is asked for at a connected member, which
seals what it holds to the key that the log pins. `model.secret.wants` has the rule; this drives it.

Promises: a secret is taken only if its authority is the one that the log names; nobody but an admitted node is handed anything,
and nothing that was brought in with its removal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import trio

from swarm.catalog import Catalog
from swarm.drivers.consensus import Replica
from swarm.drivers.replica_apply import Changes
from swarm.errors import OperatorError, PeerError, Unauthenticated, Unreachable
from swarm.model.command import AckSecret
from swarm.model.ids import NodeId, RequestId
from swarm.model.node import Availability, Node
from swarm.model.secret import SecretRecord, Secrets, ack_of, wants
from swarm.ports import Peers
from swarm.wire.rejoin import Handed

LOG = logging.getLogger("swarm.keys")
HAND_CALL = "secret.hand"
HAND_TIMEOUT_S = 3.0
RETRY_S = 1.0


class KeyStore(Protocol):
    """The secrets of this node, on its disk and in force. Named by the fingerprints of their authorities."""

    @property
    def held(self) -> frozenset[bytes]: ...
    @property
    def sends(self) -> bytes: ...
    @property
    def pinned(self) -> frozenset[NodeId]:
        """Members when the newest secret was taken out of the log; empty when it came from others since."""

    def open_copy(self, sealed: bytes, fingerprint: bytes) -> bytes | None:
        """The secret in a copy from the log, if it is the one of that authority."""

    def open_handed(self, sealed: bytes) -> Handed:
        """What another member sealed to this node. Raises `PeerError`."""

    def fingerprint_of(self, secret: bytes) -> bytes:
        """Of the authority that comes of a secret. About 0.2 ms."""

    def hand_to(self, node: Node) -> bytes:
        """Everything held, sealed to a member's key. Raises `Unauthenticated` when its record holds no such key."""

    async def change(
        self, *, add: tuple[bytes, ...] = (), send: bytes = b"", forget: tuple[bytes, ...] = (), members: tuple[NodeId, ...] = ()
    ) -> None:
        """Accept secrets, send with another, forget some; durable, and then in force, when it returns. `members` are those of the
        log that brought the secrets in."""

    async def learn(self, secrets: Secrets, members: tuple[NodeId, ...]) -> None:
        """What the log says is public: whom to take at the rejoin handshake, what the API shows; and who is a member, where it
        names every secret held."""


def may_hand(store: KeyStore, secrets: Secrets, node_id: NodeId) -> bool:
    """Whether this node knows enough to hand what it holds to a node that its log admits.

    A secret that was brought in with the removal of a node must not reach that node through a member whose log does not tell of
    the removal yet: one that was itself handed the secret, or has restarted and reads its log again. So either the log read here
    names everything held, or the node was a member when the newest secret was taken out of it.
    """
    named = {record.authority.fingerprint for record in secrets.records}
    retired = {authority.fingerprint for authority in secrets.retired}
    return store.held - retired <= named or node_id in store.pinned


class KeyFollower:
    """Runs on every node."""

    def __init__(
        self,
        store: KeyStore,
        replica: Replica,
        catalog: Catalog,
        peers: Peers,
        admitted: Callable[[NodeId], Node | None],
        *,
        request_id: Callable[[], RequestId],
    ) -> None:
        self._store = store
        self._replica = replica
        self._catalog = catalog
        self._peers = peers
        self._admitted = admitted
        self._request_id = request_id
        self._seen: Secrets | None = None
        self._wake = trio.Event()
        peers.on_call(HAND_CALL, self._on_hand)
        replica.subscribe(self._on_changes)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        task_status.started()
        while True:
            self._wake = trio.Event()
            self._seen = self._catalog.secrets
            settled = False
            try:
                settled = await self._follow()
            except (OperatorError, PeerError) as error:
                LOG.debug("the secret is not followed yet: %s", error)
            with trio.move_on_after(float("inf") if settled else RETRY_S):
                await self._wake.wait()

    def _on_changes(self, changes: Changes) -> None:
        if self._catalog.secrets is not self._seen:
            self._wake.set()

    async def _follow(self) -> bool:
        """Everything that can be done now; whether nothing is left to do."""
        store, missing = self._store, await self._take_missing()
        todo = wants(self._catalog.secrets, held=store.held, sends=store.sends)
        if (todo.send and todo.send != store.sends) or todo.forget:
            await store.change(send=todo.send, forget=todo.forget)
            LOG.info("the secret was %s", "switched" if not todo.forget else "rotated: older ones are retired")
        secrets = self._catalog.secrets
        await store.learn(secrets, tuple(sorted(self._catalog.nodes)))
        ack = ack_of(secrets, self._replica.node_id, held=store.held, sends=store.sends)
        if ack is not None:
            command = AckSecret(ack.node_id, ack.holds, ack.sends)
            await self._replica.submit(command, request_id=self._request_id())
        return not missing

    async def _take_missing(self) -> bool:
        """Accept what the log brings in; whether something could not be got."""
        todo = wants(self._catalog.secrets, held=self._store.held, sends=self._store.sends)
        if not todo.missing:
            return False
        got, lacking = [], []
        for record in todo.missing:
            secret = self._open(record)
            if secret is not None:
                got.append(secret)
            else:
                lacking.append(record.authority.fingerprint)
        if lacking:
            got += await self._ask(frozenset(lacking))
        if got:
            await self._store.change(add=tuple(got), members=tuple(sorted(self._catalog.nodes)))
        return len(got) < len(todo.missing)

    def _open(self, record: SecretRecord) -> bytes | None:
        sealed = record.sealed_to(self._replica.node_id)
        return self._store.open_copy(sealed, record.authority.fingerprint) if sealed else None

    async def _ask(self, lacking: frozenset[bytes]) -> list[bytes]:
        """Whatever of it the members in reach hold."""
        found: dict[bytes, bytes] = {}
        for node_id in sorted(self._catalog.nodes):
            if lacking <= found.keys() or not self._peers.connected(node_id):
                continue
            try:
                answer = await self._peers.call(node_id, HAND_CALL, b"", timeout_s=HAND_TIMEOUT_S)
                handed = self._store.open_handed(answer)
            except (OperatorError, PeerError) as error:
                LOG.info("%s handed over no secret: %s", node_id, error)
                continue
            for secret in (handed.sending, *handed.accepted):
                fingerprint = self._store.fingerprint_of(secret)
                if fingerprint in lacking:
                    found[fingerprint] = secret
        return list(found.values())

    async def _on_hand(self, source: NodeId, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        node = self._admitted(source)
        if node is None or node.availability is Availability.LEFT:
            raise Unauthenticated("no member")
        if not may_hand(self._store, self._catalog.secrets, source):
            raise Unreachable("this node has not read the log far enough to hand over a secret")
        return self._store.hand_to(node)
