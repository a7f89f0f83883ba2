"""The cluster's secrets as the log knows them: which there are, which one sends, who has answered; never a secret in the clear.

A secret is named by a number (0 is the founding one) and by the fingerprint of the authority that comes of it. A rotation adds
a record with the next number: first everybody accepts it (`sending` is still below it), then everybody sends with it, then the
older ones are retired. Several may be added before the first is through; the newest is what the cluster is on its way to.

`wants` is the rule by which a node follows the log. It only goes forward: a log that is read again from an earlier point, at a
start, takes nothing back.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from swarm.model.ids import NodeId, RequestId
from swarm.model.node import Availability, Node


class Authority(msgspec.Struct, frozen=True, array_like=True):
    """What is public of a secret: its authority's certificate (DER), and SHA-256 of the SubjectPublicKeyInfo in it."""

    fingerprint: bytes
    certificate: bytes


class SealedSecret(msgspec.Struct, frozen=True, array_like=True):
    """A secret sealed to one node's public key."""

    node_id: NodeId
    sealed: bytes


class SecretRecord(msgspec.Struct, frozen=True, array_like=True):
    """A secret that is not retired. `sealed` is emptied when nobody needs it any more."""

    number: int
    authority: Authority
    sealed: tuple[SealedSecret, ...] = ()
    index: int = 0
    time_utc: float = 0.0
    reason: str = ""
    request_id: RequestId = RequestId("")

    def sealed_to(self, node_id: NodeId) -> bytes:
        """The copy for one node; empty when there is none (it was admitted later)."""
        for copy in self.sealed:
            if copy.node_id == node_id:
                return copy.sealed
        return b""


class SecretAck(msgspec.Struct, frozen=True, array_like=True):
    """A node has these numbers on its disk: the newest it accepts, and the one it sends with."""

    node_id: NodeId
    holds: int
    sends: int


class Secrets(msgspec.Struct, frozen=True, array_like=True):
    """All of it. Empty until the first rotation.

    Invariant: the numbers of `records` ascend, `sending` is one of them, `acks` are sorted by node and empty between rotations.
    """

    records: tuple[SecretRecord, ...] = ()
    sending: int = 0
    retired: tuple[Authority, ...] = ()
    """Oldest first, a bounded number: a node that was away may come back under any of them."""
    acks: tuple[SecretAck, ...] = ()

    @property
    def newest(self) -> int:
        return self.records[-1].number if self.records else 0

    @property
    def rotating(self) -> bool:
        """Whether a rotation is under way."""
        return len(self.records) > 1

    @property
    def phase(self) -> str:
        """`none`, `adding` (not everybody is known to accept the newest) or `switching` (nor to send with it)."""
        if not self.rotating:
            return "none"
        return "adding" if self.sending < self.newest else "switching"

    def unanswered(self, nodes: Mapping[NodeId, Node]) -> tuple[NodeId, ...]:
        """Members, by id, whose answer the present phase still lacks. O(nodes)."""
        if not self.rotating:
            return ()
        acks = {ack.node_id: ack for ack in self.acks}
        newest, switching = self.newest, self.sending == self.newest
        return tuple(
            node_id
            for node_id in sorted(nodes)
            if nodes[node_id].availability is not Availability.LEFT
            and not _answers(acks.get(node_id), newest, switching=switching)
        )


def without(secrets: Secrets, node_id: NodeId) -> Secrets:
    """The same after a node was removed: neither an answer nor a copy of it is kept."""
    if not secrets.records:
        return secrets
    records = tuple(
        replace(record, sealed=tuple(copy for copy in record.sealed if copy.node_id != node_id)) for record in secrets.records
    )
    return replace(secrets, records=records, acks=tuple(ack for ack in secrets.acks if ack.node_id != node_id))


def _answers(ack: SecretAck | None, newest: int, *, switching: bool) -> bool:
    return ack is not None and (ack.sends if switching else ack.holds) >= newest


@dataclass(frozen=True, slots=True)
class Wants:
    """What a node should do to follow: get these secrets, then send with that one, and forget those (fingerprints)."""

    missing: tuple[SecretRecord, ...] = ()
    send: bytes = b""
    forget: tuple[bytes, ...] = ()


def wants(secrets: Secrets, *, held: frozenset[bytes], sends: bytes) -> Wants:
    """The next step of a node that holds the secrets of these authorities and sends with the one of `sends`.

    A log that knows none of them is older than this node's last words with the cluster, and is not followed.
    """
    numbers = {record.authority.fingerprint: record.number for record in secrets.records}
    retired = [authority.fingerprint for authority in secrets.retired]
    if sends not in numbers and sends not in retired:
        return Wants()
    mine = numbers.get(sends, -1)
    missing = tuple(each for each in secrets.records if each.number > mine and each.authority.fingerprint not in held)
    send = sends
    for record in secrets.records:
        if mine < record.number == secrets.sending and record.authority.fingerprint in held:
            send = record.authority.fingerprint
    return Wants(missing, send, tuple(each for each in retired if each in held and each != send))


def ack_of(secrets: Secrets, node_id: NodeId, *, held: frozenset[bytes], sends: bytes) -> SecretAck | None:
    """What this node has to say in the rotation under way; None when there is none, or it was said, or nothing is to be said."""
    numbers = {record.authority.fingerprint: record.number for record in secrets.records}
    if not secrets.rotating or sends not in numbers:
        return None
    ack = SecretAck(node_id, max(numbers[each] for each in sorted(held) if each in numbers), numbers[sends])
    for said in secrets.acks:
        if said.node_id == node_id and said.holds >= ack.holds and said.sends >= ack.sends:
            return None
    return ack
