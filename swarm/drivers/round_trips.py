"""Who measures which round trip to whom: every member is asked once, all at the same time, for what its own pings have measured.

A member that does not answer in time has a row with a reason instead of figures; the asked node's own row costs no call.

Promise: `collect` takes no longer than `ASK_S`, whoever is slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import trio

from swarm.drivers.membership import Gossip
from swarm.errors import OperatorError, PeerError
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, MemberView
from swarm.ports import Peers
from swarm.wire.codec import decode_untrusted, encode

CALL = "membership.round_trips"
FRESH_S = 0.5
"""For so long an answer is given again."""
ASK_S = 2.0
ANSWER_BYTES_MAX = 1024 * 1024


class Measured(msgspec.Struct, frozen=True, array_like=True):
    """What one member has measured to another: 0 when nothing. `status` is what it believes of it."""

    node_id: NodeId
    rtt_s: float
    status: MemberStatus


class RoundTripAnswer(msgspec.Struct, frozen=True, array_like=True):
    """One member's measurements to all others it knows."""

    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True, slots=True)
class RoundTripRow:
    """One observer's row: its measurements, or the reason why there are none."""

    observer: NodeId
    measured: tuple[Measured, ...] = ()
    reason: str = ""


class RoundTrips:
    """Answers for this node, and asks the others. Make it before the streams start."""

    def __init__(self, gossip: Gossip, peers: Peers, self_id: NodeId) -> None:
        self._gossip = gossip
        self._peers = peers
        self._self_id = self_id
        self._collecting = trio.Lock()
        self._rows: list[RoundTripRow] = []
        self._collected_at = -math.inf
        peers.on_call(CALL, self._on_call)

    async def collect(self) -> list[RoundTripRow]:
        """A row for every admitted member, by id. Asks everybody who is not dead and has not left; once for all who ask
        meanwhile, since each question becomes one to every member."""
        async with self._collecting:
            if trio.current_time() - self._collected_at >= FRESH_S:
                self._rows = await self._collect()
                self._collected_at = trio.current_time()
            return self._rows

    async def _collect(self) -> list[RoundTripRow]:
        members = self._gossip.members()
        rows = {self._self_id: RoundTripRow(self._self_id, self._own().measured)}
        async with trio.open_nursery() as nursery:
            for node_id, member in members.items():
                if member.status in (MemberStatus.DEAD, MemberStatus.LEFT):
                    rows[node_id] = RoundTripRow(node_id, reason=f"{member.name} is {member.status.value}")
                elif node_id != self._self_id:
                    nursery.start_soon(self._ask, member, rows)
        return [rows[node_id] for node_id in sorted(rows)]

    async def _ask(self, member: MemberView, rows: dict[NodeId, RoundTripRow]) -> None:
        try:
            data = await self._peers.call(member.node_id, CALL, b"", timeout_s=ASK_S)
            answer = decode_untrusted(data, RoundTripAnswer, bytes_max=ANSWER_BYTES_MAX)
        except (PeerError, OperatorError) as error:
            rows[member.node_id] = RoundTripRow(member.node_id, reason=f"{member.name} was not asked: {error}")
        else:
            rows[member.node_id] = RoundTripRow(member.node_id, answer.measured)

    async def _on_call(self, source: NodeId, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return encode(self._own())

    def _own(self) -> RoundTripAnswer:
        members = self._gossip.members()
        others = (members[node_id] for node_id in sorted(members) if node_id != self._self_id)
        return RoundTripAnswer(tuple(Measured(m.node_id, m.rtt_s, m.status) for m in others))
