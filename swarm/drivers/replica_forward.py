"""Any node takes any command: finds the leader, forwards, retries, and asks it for a fresh commit index.

A node that leads proposes by itself. Any other sends the packed command to the leader it knows, gets back (index, term) as soon
as the leader has appended it, and then waits for its *own* catalog to apply that index: so no question stays with a leader that
died, and what a node acknowledged it can also show. Another term at that index means: not carried out, try again.

A node that does not reach the leader has another one carry the request there (`replica_relay`), and takes the result from it.

Promises kept here: every try of one request carries its request id, so it is applied once however often it is sent; `Unavailable`
is raised only when no try can have been carried out; with no leader for 5 s a request fails at once instead of waiting; no
request waits for a former leader's answer once another is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec
import trio

from swarm.consensus.core import Consensus, Proposed
from swarm.drivers.replica_relay import Relay, RelayCall, with_names
from swarm.errors import DiskFull, NotSent, OperatorError, Overloaded, PeerError, Unavailable, UnknownOutcome, Unreachable
from swarm.model.command import COMMANDS, KIND_OF
from swarm.model.ids import NodeId, RequestId
from swarm.model.outcome import Applied
from swarm.ports import Clock, Peers
from swarm.wire.codec import decode_untrusted, encode
from swarm.wire.limits import FRAME_BYTES_MAX

PROPOSE_CALL = "consensus.propose"
BARRIER_CALL = "consensus.barrier"
CALL_TIMEOUT_S = 2.0
RETRY_S = 0.1
GIVEN_UP_S = 5.0
"""With no word of a leader for this long, and no majority of voters in sight, a request fails at once: there is no election
that could soon succeed."""

OVERLOADED_S = 1.0
"""A leader that takes nothing more for so long is busy and not in a burst: whoever asks is refused, not kept waiting."""
LEADERLESS_S = 1.5
"""An election takes some 1.2 s; a node that hears of no leader for longer may be the only one that does not."""
SILENT_S = 1.0


class ProposeCall(msgspec.Struct, frozen=True, array_like=True):
    """A packed command and the request id of whoever asked first."""

    kind: str
    version: int
    payload: bytes
    request_id: RequestId


class ProposeReply(msgspec.Struct, frozen=True, array_like=True):
    """Where it stands in the leader's log. Not a promise that it stays there."""

    index: int
    term: int


class BarrierReply(msgspec.Struct, frozen=True, array_like=True):
    """A commit index that a leader inside its lease named."""

    index: int


class _Replica(Protocol):
    """What forwarding needs of the replica it belongs to."""

    @property
    def core(self) -> Consensus: ...
    @property
    def node_id(self) -> NodeId: ...
    @property
    def leader_contact_age_s(self) -> float: ...
    def now(self) -> float: ...
    def propose_packed(self, kind: str, version: int, payload: bytes, request_id: RequestId) -> Proposed: ...
    def check_known(self, kind: str, version: int, payload: bytes) -> None: ...
    async def result_of(self, proposed: Proposed, timeout_s: float) -> Applied: ...
    async def applied_by(self, proposed: Proposed, timeout_s: float) -> Applied: ...


def pack_command(command: Any) -> tuple[str, int, bytes]:
    """(kind, version, payload) of a command struct."""
    kind = KIND_OF[type(command)]
    return kind, COMMANDS[kind][0], encode(command)


class Forwarding:
    """Submits and barriers, on whichever node they are asked."""

    def __init__(
        self,
        replica: _Replica,
        peers: Peers,
        clock: Clock,
        quorum_in_sight: Callable[[], bool] = lambda: False,
        *,
        others: Callable[[], Iterable[NodeId]] = tuple,
        name_of: Callable[[NodeId], str] = str,
        is_full: Callable[[], bool] = lambda: False,
        is_dead: Callable[[NodeId], bool] = lambda node_id: False,
    ) -> None:
        """`others` are the nodes that may carry a request to the leader; `name_of` gives a node's name for people. `is_full`:
        this node gets no entries for want of room, so that its catalog cannot show what came of a request. `is_dead`: nothing
        is asked of such a node, whatever stands of a connection to it: the outcome would be unknown."""
        self._quorum_in_sight = quorum_in_sight
        self._name_of = name_of
        self._is_full = is_full
        self._is_dead = is_dead
        self._relay = Relay(peers, self._submit_for_another, lambda: [each for each in others() if not is_dead(each)])
        self._replica = replica
        self._peers = peers
        self._clock = clock
        self._started_at = clock.now()
        self._role_changed = trio.Event()
        self._asked: dict[trio.CancelScope, NodeId] = {}
        """The calls under way, each with the node that led when it was made."""

    def register(self) -> None:
        """Answer the calls of other nodes."""
        self._peers.on_call(PROPOSE_CALL, self._on_propose)
        self._peers.on_call(BARRIER_CALL, self._on_barrier)
        self._relay.register()

    def on_role(self) -> None:
        """Role or leader changed: whoever waits for a leader looks again, and nobody waits for a former one."""
        for scope, leader_id in self._asked.items():
            if leader_id != self._replica.core.leader_id:
                scope.cancel()
        self._role_changed.set()
        self._role_changed = trio.Event()

    async def _on_propose(self, source: NodeId, payload: bytes) -> bytes:
        call = decode_untrusted(payload, ProposeCall, bytes_max=FRAME_BYTES_MAX)
        proposed = self._replica.propose_packed(call.kind, call.version, call.payload, call.request_id)
        return encode(ProposeReply(proposed.index, proposed.term))

    async def _on_barrier(self, source: NodeId, payload: bytes) -> bytes:
        return encode(BarrierReply(self._replica.core.read_index(self._replica.now())))

    # ---- submit

    async def submit(self, command: Any, request_id: RequestId, timeout_s: float) -> Applied:
        """See `Replica.submit`."""
        call = ProposeCall(*pack_command(command), request_id)
        began_at = self._clock.now()
        deadline = began_at + timeout_s
        maybe_done: UnknownOutcome | None = None
        while True:
            try:
                if self._is_cut_off(call, tried=maybe_done is not None):
                    return unless_rejected(await self._through_another(call, deadline))
                proposed = await self._propose_anywhere(call, deadline)
                return await self._replica.result_of(proposed, deadline - self._clock.now())
            except UnknownOutcome as error:
                maybe_done = error
                failure: OperatorError = error
            except (Unavailable, Overloaded) as error:
                failure = error
            if isinstance(failure, Overloaded) and self._clock.now() + RETRY_S >= began_at + OVERLOADED_S:
                raise with_names(maybe_done or failure, self._name_of)
            if self._must_give_up(deadline) or isinstance(failure, DiskFull) or (maybe_done is not None and request_id == ""):
                raise with_names(maybe_done or failure, self._name_of)
            await self._wait_for_change()

    def _is_cut_off(self, call: ProposeCall, *, tried: bool) -> bool:
        """Whether to go through another node: the leader is out of reach, silent, or none is known for longer than an election
        takes. `tried`: an attempt has ended without an answer."""
        leader_id = self._replica.core.leader_id
        if call.request_id == "" or leader_id == self._replica.node_id:
            return False
        if leader_id == "":
            return self._replica.leader_contact_age_s > LEADERLESS_S
        if self._is_full():
            return True
        silent = tried and self._peers.silent_s(leader_id) > SILENT_S
        return silent or self._is_dead(leader_id) or not self._peers.connected(leader_id)

    async def _through_another(self, call: ProposeCall, deadline: float) -> Applied:
        relayed = RelayCall(call.kind, call.version, call.payload, call.request_id)
        left_s = max(0.01, deadline - self._clock.now())
        skipped = NodeId("") if self._is_full() else self._replica.core.leader_id  # with a full disk the leader is as good as any
        return await self._relay.submit(
            relayed, leader_id=skipped, me=self._replica.node_id, timeout_s=left_s
        )

    async def _submit_for_another(self, call: RelayCall, timeout_s: float) -> Applied:
        """Straight to the leader, or not at all. A rejection is a result here, for the other node to raise."""
        deadline = self._clock.now() + timeout_s
        if self._replica.core.leader_id == "":
            raise Unavailable("cannot carry the request on: no leader is known here either", hint="see `swarm status`")
        proposed = await self._propose_anywhere(
            ProposeCall(call.kind, call.version, call.payload, call.request_id), deadline
        )
        return await self._replica.applied_by(proposed, deadline - self._clock.now())

    async def _propose_anywhere(self, call: ProposeCall, deadline: float) -> Proposed:
        """Append it to the leader's log. Raises `Unavailable`, `Overloaded` (not carried out) or `UnknownOutcome`."""
        leader_id = self._replica.core.leader_id
        if leader_id in ("", self._replica.node_id):
            return self._replica.propose_packed(call.kind, call.version, call.payload, call.request_id)
        if not self._peers.connected(leader_id):
            raise Unavailable(f"cannot reach the leader {leader_id}", hint="see `swarm status`")
        self._replica.check_known(call.kind, call.version, call.payload)
        bound_s = max(0.01, min(CALL_TIMEOUT_S, deadline - self._clock.now()))
        try:
            answer = await self._ask(leader_id, PROPOSE_CALL, encode(call), bound_s)
            reply = decode_untrusted(answer, ProposeReply, bytes_max=1024)
        except NotSent as error:
            raise Overloaded(f"cannot ask the leader {leader_id}: {error}", hint="try again in a moment") from error
        except PeerError as error:
            raise UnknownOutcome(
                "the request may or may not have been carried out",
                cause=f"the leader {leader_id} did not answer in time ({error}); it may have taken it",
                hint="ask again with the same request id",
            ) from error
        return Proposed(reply.index, reply.term)

    async def _ask(self, leader_id: NodeId, kind: str, payload: bytes, timeout_s: float) -> bytes:
        """The leader's answer. Raises `Unreachable` as soon as it is known not to lead any more: a host that lost its power
        sends no refusal, and its successor is elected long before a call to it times out."""
        with trio.CancelScope() as scope:
            self._asked[scope] = leader_id
            try:
                return await self._peers.call(leader_id, kind, payload, timeout_s=timeout_s)
            finally:
                del self._asked[scope]
        raise Unreachable(f"{leader_id} does not lead any more")

    def _must_give_up(self, deadline: float) -> bool:
        now = self._clock.now()
        lonely_s = min(self._replica.leader_contact_age_s, now - self._started_at)
        return now + RETRY_S >= deadline or (lonely_s > GIVEN_UP_S and not self._quorum_in_sight())

    async def _wait_for_change(self) -> None:
        with trio.move_on_after(RETRY_S):
            await self._role_changed.wait()

    # ---- barrier

    async def read_barrier(self, timeout_s: float) -> int:
        """See `Replica.read_barrier`."""
        deadline = self._clock.now() + timeout_s
        while True:
            try:
                return await self._barrier_anywhere(deadline)
            except (Unavailable, PeerError) as error:
                if self._must_give_up(deadline):
                    failure = Unavailable("cannot confirm the newest state: no leader answers", cause=str(error))
                    raise with_names(failure, self._name_of) from error
            await self._wait_for_change()

    async def _barrier_anywhere(self, deadline: float) -> int:
        leader_id = self._replica.core.leader_id
        if leader_id in ("", self._replica.node_id):
            return self._replica.core.read_index(self._replica.now())
        bound_s = max(0.01, min(CALL_TIMEOUT_S, deadline - self._clock.now()))
        answer = await self._ask(leader_id, BARRIER_CALL, b"", bound_s)
        return decode_untrusted(answer, BarrierReply, bytes_max=1024).index


def unless_rejected(applied: Applied) -> Applied:
    """The result, or its rejection as an exception."""
    if applied.outcome is not None:
        raise applied.outcome.to_error()
    return applied
