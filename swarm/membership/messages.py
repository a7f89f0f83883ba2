"""Gossip on the wire: five packets and the table exchanged by push-pull, each CBOR with its kind first.

Every packet says who sends it (`me`, a claim about the sender by itself), so a restart, a new address or a pause is known with
the first packet; the driver checks that the seal names the same sender. What is left of the packet carries rumours (`claims`)
and samples.

Promise: `decode_message_untrusted` raises only `BadMessage`. Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import msgspec

from swarm.errors import BadMessage
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus, Sample
from swarm.model.node import VerdictKind
from swarm.wire import codec
from swarm.wire.limits import FRAME_BYTES_MAX

_COUNTER_MAX = 2**53
Counter = Annotated[int, msgspec.Meta(ge=0, le=_COUNTER_MAX)]
Id = Annotated[NodeId, msgspec.Meta(min_length=1, max_length=64)]
Name = Annotated[str, msgspec.Meta(max_length=63)]
Address = Annotated[str, msgspec.Meta(max_length=64)]
Outcome = Annotated[str, msgspec.Meta(max_length=16)]

GENERATION_MAX = 2**23
"""Eight million starts, half of what the packet counter has room for. More is no message: its member could not outbid it."""
INCARNATION_MAX = 2**51
"""The same for incarnations, of 53 bits."""
CONNECT_OUTCOMES = ("", "accepted", "refused", "silent", "unreachable")
"""What a kernel did with a connect; empty while unknown."""
PAUSE_S_MAX = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class MemberIdentity:
    """Who this node is. `generation` is the persisted count of the daemon's starts: it grew by one before this start, so
    incarnations begin at 0 each time and nothing else has to be remembered."""

    node_id: NodeId
    name: str
    address: str
    generation: int


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """Somebody says that a member has this status. Only the member itself makes new (generation, incarnation) pairs."""

    node_id: Id
    generation: Counter
    incarnation: Counter
    status: MemberStatus
    name: Name
    address: Address
    accuser: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """Id of the member that says suspect or dead; empty for what the member says of itself."""
    kind: VerdictKind | None = None
    paused_s: float = 0.0
    """Time left of an announced pause, when this was sent; relative because no two hosts share a clock."""


class _Packet(msgspec.Struct, frozen=True, array_like=True):
    me: Claim


class Ping(_Packet, frozen=True, array_like=True, tag="ping"):
    """Answer, if you are `target`: another daemon at this address must not answer for it."""

    sequence: Counter
    target: Id
    claims: tuple[Claim, ...] = ()
    samples: tuple[Sample, ...] = ()


class Ack(_Packet, frozen=True, array_like=True, tag="ack"):
    """The answer to the ping of that sequence."""

    sequence: Counter
    claims: tuple[Claim, ...] = ()
    samples: tuple[Sample, ...] = ()


class ProbeRequest(_Packet, frozen=True, array_like=True, tag="request"):
    """Ping `target` for me, and try a connect to its port."""

    sequence: Counter
    target: Id
    address: Address
    claims: tuple[Claim, ...] = ()
    samples: tuple[Sample, ...] = ()


class ProbeReport(_Packet, frozen=True, array_like=True, tag="report"):
    """What a helper found: reached or not, and what the kernel did. One that did not reach it is Lifeguard's nack."""

    sequence: Counter
    target: Id
    reached: bool
    connect: Outcome
    claims: tuple[Claim, ...] = ()
    samples: tuple[Sample, ...] = ()


class Rumours(_Packet, frozen=True, array_like=True, tag="rumours"):
    """News alone, asking nothing."""

    claims: tuple[Claim, ...] = ()
    samples: tuple[Sample, ...] = ()


class SyncState(_Packet, frozen=True, array_like=True, tag="sync"):
    """A whole table, over a stream."""

    claims: tuple[Claim, ...] = ()
    samples: tuple[Sample, ...] = ()


Message = Ping | Ack | ProbeRequest | ProbeReport | Rumours | SyncState
_MESSAGES: dict[str, type[Message]] = {
    "ping": Ping, "ack": Ack, "request": ProbeRequest, "report": ProbeReport, "rumours": Rumours, "sync": SyncState
}  # fmt: skip

HEADER_BYTES_MAX = 560
"""Any packet without claims and samples, names and ids at their longest (a test measures it)."""


def claim_bytes(claim: Claim) -> int:
    """An upper bound of the claim's size on the wire."""
    return 70 + len(claim.node_id) + len(claim.name) + len(claim.address) + len(claim.accuser)


SAMPLE_BYTES_MAX = 150
"""An upper bound of one sample's size on the wire."""
SAMPLE_BYTES_TYPICAL = 60
"""A sample with ordinary numbers (a test measures it)."""


def encode_message(message: Message) -> bytes:
    """The packet's plaintext."""
    return codec.encode(message)


def decode_message_untrusted(data: bytes, *, bytes_max: int = FRAME_BYTES_MAX) -> Message:
    """Parse hostile bytes. Raises only `BadMessage`."""
    message = codec.decode_tagged_untrusted(data, _MESSAGES, bytes_max=bytes_max)
    for claim in (message.me, *message.claims):
        _check_claim(claim)
    for sample in message.samples:
        _check_sample(sample)
    if isinstance(message, ProbeRequest):
        parse_address(message.address)
    if isinstance(message, ProbeReport) and message.connect not in CONNECT_OUTCOMES:
        raise BadMessage(f"unknown outcome of a connect: {message.connect!r}")
    if message.me.status not in (MemberStatus.ALIVE, MemberStatus.LEFT):
        raise BadMessage("a sender that says of itself that it is not alive")
    return message


@lru_cache(maxsize=4_096)
def parse_address(address: str) -> tuple[str, int]:
    """`ip:port` or `[ip6]:port` to its parts. Raises `BadMessage`. Remembers what it was asked lately."""
    host, _, port = address.rpartition(":")
    try:
        parsed = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise BadMessage(f"not an address: {address!r}") from None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        raise BadMessage(f"not a port: {address!r}")
    return str(parsed), int(port)


def format_address(host: str, port: int) -> str:
    """The inverse of `parse_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_claim(claim: Claim) -> None:
    parse_address(claim.address)
    if claim.generation > GENERATION_MAX or claim.incarnation > INCARNATION_MAX:
        raise BadMessage("a generation or incarnation that nobody could outbid")
    if not 0 <= claim.paused_s <= PAUSE_S_MAX:
        raise BadMessage("a pause longer than a day")


def _check_sample(sample: Sample) -> None:
    if not 0 < len(sample.node_id) <= 64:
        raise BadMessage("a sample of nobody")
    for value in msgspec.structs.astuple(sample):
        if isinstance(value, int) and not 0 <= value <= _COUNTER_MAX:
            raise BadMessage("a sample out of range")
