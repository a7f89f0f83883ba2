"""Credentials for an image's registry: in the log they are sealed to nodes, never to a key that outlives a node or a secret.

The node that takes a submit seals the credentials under a random key, and that key once to each member that might be chosen.
One that is chosen though it has no copy (admitted later, or beyond `RECIPIENTS_MAX`) asks one that has: it is answered when the
log has assigned it the very task, with the key sealed to the one that the log pins for it.

Promise: nobody opens credentials but the members at the time of the submit, and later ones that were assigned the task.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import trio

from swarm.adapters.certificates import fingerprint
from swarm.adapters.identity import DataFolder
from swarm.adapters.seal import open_as_node, open_with_key, seal_to_node, seal_with_key
from swarm.catalog import Catalog
from swarm.errors import BadMessage, OperatorError, PeerError, Unauthenticated
from swarm.model.container import ContainerPlan
from swarm.model.ids import NodeId, TaskId
from swarm.model.node import Availability, Node
from swarm.ports import Peers
from swarm.runner.labels import TASK
from swarm.wire.codec import decode_untrusted, encode

KEY_CALL = "registry.key"
ASK_TIMEOUT_S = 3.0
RECIPIENTS_MAX = 64
"""Copies of the key in one entry, 160 bytes each: 10 KiB a task at most."""
_SEALED_BYTES_MAX = 256 * 1024
_PURPOSE = b"registry 2"


class SealedKey(msgspec.Struct, frozen=True, array_like=True):
    """The key of the credentials, sealed to one node."""

    node_id: NodeId
    sealed: bytes


class SealedAuth(msgspec.Struct, frozen=True, array_like=True):
    """`TaskSpec.registry_auth`, encoded."""

    auth: bytes
    keys: tuple[SealedKey, ...]


class RegistryCredentials:
    """Seals at the submit, opens at the start, answers who asks."""

    def __init__(
        self, folder: DataFolder, catalog: Catalog, peers: Peers, members: Callable[[], Mapping[NodeId, Node]]
    ) -> None:
        self._folder = folder
        self._catalog = catalog
        self._peers = peers
        self._members = members
        peers.on_call(KEY_CALL, self._on_ask)

    async def seal(self, auth: bytes) -> bytes:
        """Credentials as they go into the log. In a thread: some 150 us a member."""
        nodes = [node for node in self._members().values() if node.availability is not Availability.LEFT and not node.witness]
        nodes.sort(key=lambda node: (node.id != self._folder.node_id, node.id))
        return await trio.to_thread.run_sync(_seal, auth, nodes)

    async def open(self, plan: ContainerPlan) -> dict[str, str]:
        """The credentials for a container to be made here. Raises `PeerError` saying why there are none."""
        sealed = decode_untrusted(plan.spec.registry_auth, SealedAuth, bytes_max=_SEALED_BYTES_MAX)
        task_id = TaskId(plan.labels.get(TASK, ""))
        key = self._own_key(sealed) or await self._ask(task_id, sealed)
        try:
            found: Any = json.loads(open_with_key(key, sealed.auth, _PURPOSE))
        except ValueError:
            raise BadMessage("they are no credentials") from None
        if not isinstance(found, dict):
            raise BadMessage("they are no credentials")
        return found

    def _own_key(self, sealed: SealedAuth) -> bytes | None:
        for copy in sealed.keys:
            if copy.node_id == self._folder.node_id:
                return open_as_node(self._folder.private_key, copy.sealed, _PURPOSE)
        return None

    async def _ask(self, task_id: TaskId, sealed: SealedAuth) -> bytes:
        """The key, from any member that has it."""
        reason = "no member that has them is in reach"
        for copy in sealed.keys:
            if not self._peers.connected(copy.node_id):
                continue
            try:
                answer = await self._peers.call(copy.node_id, KEY_CALL, task_id.encode(), timeout_s=ASK_TIMEOUT_S)
                return open_as_node(self._folder.private_key, answer, _PURPOSE)
            except (OperatorError, PeerError) as error:
                reason = str(error)
        raise Unauthenticated(f"they were sealed before this node was a member, and {reason}")

    async def _on_ask(self, source: NodeId, payload: bytes) -> bytes:
        """A member wants the key of a task's credentials: only for a task that the log has assigned to it."""
        task = self._catalog.tasks.get(TaskId(payload.decode("ascii", "replace")))
        node = self._catalog.nodes.get(source)
        if task is None or node is None or not self._is_assigned(task.assignment, task.previous, source):
            raise Unauthenticated("the log, as far as it is known here, has not assigned that task to the node that asks")
        key = self._own_key(decode_untrusted(task.spec.registry_auth, SealedAuth, bytes_max=_SEALED_BYTES_MAX))
        if key is None:
            raise Unauthenticated("they are not sealed to this node either")
        return await trio.to_thread.run_sync(_seal_key, node, key)

    def _is_assigned(self, current: str, previous: str, node_id: NodeId) -> bool:
        found = [self._catalog.assignments.get(each) for each in (current, previous)]
        return any(each is not None and each.node_id == node_id and not each.ended for each in found)


def _seal(auth: bytes, nodes: list[Node]) -> bytes:
    key, keys = os.urandom(32), []
    for node in nodes[:RECIPIENTS_MAX]:
        try:
            keys.append(SealedKey(node.id, _seal_key(node, key)))
        except Unauthenticated:
            continue  # its record holds no usable key: it will have to ask, and will be told so
    return encode(SealedAuth(seal_with_key(key, auth, _PURPOSE), tuple(keys)))


def _seal_key(node: Node, key: bytes) -> bytes:
    if fingerprint(node.public_key) != node.fingerprint:
        raise Unauthenticated("the log holds another key than the pinned one")
    return seal_to_node(node.public_key, key, _PURPOSE)
