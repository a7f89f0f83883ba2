"""Submits of a node that is cut off from the leader and reaches other nodes: one of those carries the request on.

The relay submits the command itself, straight to the leader or nowhere: one hop, so a request never goes in a circle. It waits
for the result in its own catalog and sends that back, because the log does not reach the node that asked.

Promises kept here: a relayed request carries its request id, so that it is applied once by whichever ways it went; no more than
`ANSWERED_MAX` are carried for others at once; what is raised says by its class whether the request may have been carried out.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec

from swarm.errors import OperatorError, Overloaded, PeerError, Unavailable, UnknownOutcome
from swarm.model.ids import NodeId, RequestId
from swarm.model.outcome import Applied, Rejected
from swarm.ports import Peers
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import FRAME_BYTES_MAX

RELAY_CALL = "consensus.relay"
RELAY_S_MAX = 5.0
RELAYS_TRIED_MAX = 3
ANSWERED_MAX = 64
"""Requests carried for other nodes at once; a cut that parts many from the leader is no time to queue."""
_ID = re.compile(r"\b[0-9a-f]{32}\b")
ErrorT = TypeVar("ErrorT", bound=OperatorError)


class RelayCall(msgspec.Struct, frozen=True, array_like=True):
    """A packed command, as `ProposeCall`; the request id is not empty."""

    kind: str
    version: int
    payload: bytes
    request_id: RequestId


class RelayReply(msgspec.Struct, frozen=True, array_like=True):
    """What applying it gave, there."""

    index: int
    rejected: Rejected | None
    value: str
    repeated: bool
    refused: tuple[tuple[int, Rejected], ...] = ()


Submit = Callable[[RelayCall, float], Awaitable[Applied]]


class Relay:
    """Both ends. `submit` carries a request to the leader directly and gives its result, for at most so many seconds."""

    def __init__(self, peers: Peers, submit: Submit, others: Callable[[], Iterable[NodeId]]) -> None:
        self._peers = peers
        self._submit = submit
        self._others = others
        self._answering = 0

    def register(self) -> None:
        """Answer the calls of other nodes."""
        self._peers.on_call(RELAY_CALL, self._on_relay)

    async def _on_relay(self, source: NodeId, payload: bytes) -> bytes:
        call = decode_untrusted(payload, RelayCall, bytes_max=FRAME_BYTES_MAX)
        if self._answering >= ANSWERED_MAX:
            raise Overloaded("too many requests are carried for other nodes", hint="try again in a moment")
        self._answering += 1
        try:
            applied = await self._submit(call, RELAY_S_MAX)
        finally:
            self._answering -= 1
        return encode(RelayReply(applied.index, applied.outcome, applied.value, applied.repeated, applied.refused))

    async def submit(self, call: RelayCall, *, leader_id: NodeId, me: NodeId, timeout_s: float) -> Applied:
        """Have another node submit it. Raises `Unavailable` or `Overloaded` (no node has carried it out), or `UnknownOutcome`."""
        failure: OperatorError = Unavailable(
            f"cannot reach the leader {leader_id}" if leader_id else "no leader is known",
            cause="no other node is in reach that could carry the request on", hint="see `swarm status`",
        )  # fmt: skip
        for node_id in self._candidates(leader_id, me):
            try:
                answer = await self._peers.call(node_id, RELAY_CALL, encode(call), timeout_s=min(timeout_s, RELAY_S_MAX + 1.0))
                reply = decode_untrusted(answer, RelayReply, bytes_max=FRAME_BYTES_MAX)
            except (Unavailable, Overloaded) as error:
                failure = error
                continue
            except PeerError as error:
                raise UnknownOutcome(
                    "the request may or may not have been carried out",
                    cause=f"{node_id}, which was to carry it on, did not answer in time ({error}); it may have done so",
                    hint="ask again with the same request id",
                ) from error
            return Applied(
                reply.index, reply.rejected, reply.value, repeated=reply.repeated, refused=reply.refused, relayed_by=node_id
            )
        raise failure

    def _candidates(self, leader_id: NodeId, me: NodeId) -> list[NodeId]:
        """Connected nodes, those heard last first."""
        near = [node_id for node_id in self._others() if node_id not in (leader_id, me) and self._peers.connected(node_id)]
        return sorted(near, key=lambda node_id: (self._peers.silent_s(node_id), node_id))[:RELAYS_TRIED_MAX]


def with_names(error: ErrorT, name_of: Callable[[NodeId], str]) -> ErrorT:
    """The same error with nodes called by their names, in place."""
    error.message, error.cause, error.hint = (
        _ID.sub(lambda found: name_of(NodeId(found[0])), text) for text in (error.message, error.cause, error.hint)
    )
    error.args = (error.message,)
    return error
