"""Outgoing packets: each says who sends it and carries as much news as fits.

First what the receiver must hear about itself (Lifeguard's buddy system: a suspect is told with the very ping), then rumours,
fewest sent first, then samples. Nothing rides on an answer to an address that the sender of the question does not claim as
its own, so that no reply is larger than its cause.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from swarm.machine import Outbox
from swarm.membership.broadcast import Broadcasts, retransmit_limit
from swarm.membership.config import Config
from swarm.membership.effects import Effect, SendPacket
from swarm.membership.messages import HEADER_BYTES_MAX, Ack, Claim, Ping, ProbeReport, ProbeRequest, Rumours, claim_bytes
from swarm.membership.samples import SampleBoard
from swarm.membership.table import Record, Table
from swarm.model.liveness import MemberStatus

_CLAIM_BYTES_MIN = 70
"""No claim is counted with less (`claim_bytes`); the two that take no room here are this node's own and the receiver's."""

PacketT = TypeVar("PacketT", Ping, Ack, ProbeRequest, ProbeReport, Rumours)


class Mail:
    """Composes and emits packets."""

    def __init__(
        self, config: Config, table: Table, broadcasts: Broadcasts, samples: SampleBoard, outbox: Outbox[Effect]
    ) -> None:
        self._config = config
        self._table = table
        self._broadcasts = broadcasts
        self._samples = samples
        self._outbox = outbox

    def me(self, now: float) -> Claim:
        """What this node says of itself, on every packet."""
        return self._table.claim(self._table.me, now)

    def post(self, to: Record, packet: PacketT, now: float) -> None:
        """Send to a member at its address, with news."""
        self._outbox.emit(SendPacket(to.address, self._loaded(to, packet, now)))

    def reply(self, to: Record, address: str, packet: PacketT, now: float) -> None:
        """Answer to where the question came from."""
        if address == to.address:
            packet = self._loaded(to, packet, now)
        self._outbox.emit(SendPacket(address, packet))

    def _sample_sends(self) -> int:
        """Where everybody pings everybody: a whole round of pings, and as many answers that may take some of them."""
        config, others = self._config, self._table.size - 1
        return 2 * others if others < config.everyone_probes_max else config.sample_sends

    def _loaded(self, to: Record, packet: PacketT, now: float) -> PacketT:
        limit = retransmit_limit(self._table.size, self._config.retransmit_factor)
        bytes_left = self._config.packet_bytes_max - HEADER_BYTES_MAX
        claims: list[Claim] = []
        about_it = to.accusation
        if about_it is None and to.status is not MemberStatus.ALIVE and to.generation > 0:
            about_it = self._table.claim(to, now)
        if about_it is not None:
            claims.append(about_it)
            bytes_left -= claim_bytes(about_it)
        for node_id in self._broadcasts.waiting(bytes_left // _CLAIM_BYTES_MIN + 2) if self._broadcasts.counts else ():
            record = self._table.me if node_id == self._table.me.node_id else self._table.records[node_id]
            if record is to:
                if self._table.size == 2:  # nobody else is there to be told: what it said counts as passed on
                    self._broadcasts.sent(node_id, limit=limit)
                continue
            if record is not self._table.me:  # one's own claim rides on every packet anyway: it only counts as sent
                claim = self._table.claim(record, now)
                if claim_bytes(claim) > bytes_left:
                    break
                claims.append(claim)
                bytes_left -= claim_bytes(claim)
            self._broadcasts.sent(node_id, limit=limit)
        samples = self._samples.take(min(self._config.sample_bytes_max, bytes_left), limit=self._sample_sends())
        if not claims and not samples:
            return packet
        return msgspec.structs.replace(packet, claims=tuple(claims), samples=samples)
