"""What a member answers on `swarm-rejoin/1` to those that no stream comes about with: its secrets, its recovery, or a refusal.

A node that was away is admitted by its very key, which the log pins for its id, under any authority the cluster ever had. Whoever
ever held the secret can open such a connection; so those whom the log does not admit get few places, apart from the members', and
cannot use up this process's file descriptors. They can keep each other waiting.

Promises: secrets go only to a node that the log admits, sealed to its key; a log that another recovery took the place of says of
nobody that it was removed; at most `STRANGERS_MAX` connections of others than members are held at once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container

import trio

from swarm.drivers.boot import receive_body, send_body, wait_for_end
from swarm.drivers.keys import KeyStore, may_hand
from swarm.drivers.link import close_now
from swarm.errors import PeerError, Unauthenticated
from swarm.model.generation import has_say, supersedes
from swarm.model.ids import ClusterId, NodeId
from swarm.model.node import Node
from swarm.model.secret import Secrets
from swarm.ports import SecureStream
from swarm.wire import codec
from swarm.wire.boot import Refused
from swarm.wire.rejoin import (
    GENERATION_UNSAID,
    REJOIN_VERSION,
    REMOVED,
    REMOVED_LATER,
    UNKNOWN,
    Follows,
    Recall,
    Recalled,
    Reply,
    decode_recall_untrusted,
)

LOG = logging.getLogger("swarm.keys")
ANSWER_S = 5.0
STRANGERS_MAX = 32
"""Removed nodes that are being told so; one more is dropped, and asks again in a second. More would hold more descriptors."""
ADMITTED_NOT = "the log admits no node of this id with this key"


class RejoinDesk:
    """Answers those who come back."""

    def __init__(
        self,
        cluster_id: ClusterId,
        recovery_generation: int,
        store: KeyStore,
        admitted: Callable[[NodeId], Node | None],
        secrets: Callable[[], Secrets],
        removed: Callable[[], Container[NodeId]],
        has_read: Callable[[], bool] = lambda: True,
    ) -> None:
        """`removed` are the ids that the log here has removed; `has_read`: whether the log here was applied up to a leader's word
        in this life of the daemon."""
        self._removed = removed
        self._has_read = has_read
        self.counters: Counter[str] = Counter()
        self._cluster_id = cluster_id
        self._generation = recovery_generation
        self._store = store
        self._admitted = admitted
        self._secrets = secrets
        self._strangers = 0

    async def accept(self, secure: SecureStream) -> None:
        """Answer one question and close. The listener's handler for `PROTOCOL_REJOIN`."""
        stranger = not self._is_member(secure)
        if stranger and self._strangers >= STRANGERS_MAX:
            self.counters["rejoin_strangers_full"] += 1
            await close_now(secure.stream)
            return
        self._strangers += stranger
        try:
            with trio.move_on_after(ANSWER_S):
                question = decode_recall_untrusted(await receive_body(secure.stream))
                await send_body(secure.stream, codec.encode(self._answer(question, secure)))
                await wait_for_end(secure.stream)
        except PeerError as error:
            self.counters[f"rejoin_{error.reason}"] += 1
        finally:
            self._strangers -= stranger
            await close_now(secure.stream)

    def _is_member(self, secure: SecureStream) -> bool:
        node = self._admitted(secure.node_id)
        return node is not None and node.fingerprint == secure.fingerprint

    def _has_removed(self, question: Recall) -> bool:
        """And the log here has a say in that."""
        theirs = question.recovery_generation
        if question.cluster_id != self._cluster_id or theirs == GENERATION_UNSAID or not has_say(self._generation, theirs):
            return False
        return question.node_id in self._removed()

    def _answer(self, question: Recall, secure: SecureStream) -> Reply:
        if question.node_id != secure.node_id or question.version != REJOIN_VERSION:
            raise Unauthenticated("a question in another node's name, or of another version")
        if question.generation_only and question.cluster_id == self._cluster_id:
            self.counters["rejoin_generation_asked"] += 1
            return Follows(self._generation if self._has_read() else GENERATION_UNSAID)
        node = self._admitted(secure.node_id)
        if question.cluster_id != self._cluster_id or node is None or node.fingerprint != secure.fingerprint:
            self.counters["rejoin_refused"] += 1
            if self._has_removed(question):
                later = supersedes(self._generation, question.recovery_generation)
                code = REMOVED_LATER if later else REMOVED
                return Refused(code, "this node is no member of the cluster any more", "it was removed")
            return Refused(UNKNOWN, "this node is not known as a member of the cluster", ADMITTED_NOT)
        if not may_hand(self._store, self._secrets(), secure.node_id):
            self.counters["rejoin_not_yet"] += 1
            return Refused("unavailable", "this member has not read the log far enough to hand over a secret")
        self.counters["rejoin_handed"] += 1
        LOG.info("%s has not the present secret, and is handed it", node.name)
        return Recalled(self._store.hand_to(node))
