"""How many bytes a message of gossip takes on the wire, to the byte, without encoding it.

CBOR's sizes add up: a packet is its header and its claims and samples, and those come again in packet after packet. A test holds
this against the encoder. Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import assert_never

from swarm.membership.messages import Ack, Claim, Message, Ping, ProbeReport, ProbeRequest, Rumours, SyncState
from swarm.model.liveness import Sample
from swarm.wire.envelope import SEAL_BYTES

IP_UDP_BYTES = 28
"""What the kernel adds to a sealed packet on IPv4, not counted here."""
_FLOAT_BYTES = 9


def sealed_bytes(message: Message) -> int:
    """The datagram's payload: plaintext and seal."""
    return plain_bytes(message) + SEAL_BYTES


def plain_bytes(message: Message) -> int:
    """What `encode_message` would make of it."""
    claims, samples = message.claims, message.samples
    total = 1 + claim_bytes(message.me) + _array_bytes(len(claims)) + _array_bytes(len(samples))
    if claims:
        total += sum(map(claim_bytes, claims))
    if samples:
        total += sum(map(sample_bytes, samples))
    match message:
        case Ack():
            return total + 4 + _int_bytes(message.sequence)
        case Ping():
            return total + 5 + _int_bytes(message.sequence) + _text_bytes(message.target)
        case Rumours():
            return total + 8
        case ProbeRequest():
            addressed = _text_bytes(message.target) + _text_bytes(message.address)
            return total + 8 + _int_bytes(message.sequence) + addressed
        case ProbeReport():
            found = _text_bytes(message.target) + 1 + _text_bytes(message.connect)
            return total + 7 + _int_bytes(message.sequence) + found
        case SyncState():
            return total + 5
        case _:
            assert_never(message)


@lru_cache(maxsize=1 << 16)
def claim_bytes(claim: Claim) -> int:
    """One claim."""
    texts = (claim.node_id, claim.status, claim.name, claim.address, claim.accuser)
    kind = 1 if claim.kind is None else _text_bytes(claim.kind)
    return 1 + sum(map(_text_bytes, texts)) + _int_bytes(claim.generation) + _int_bytes(claim.incarnation) + kind + _FLOAT_BYTES


@lru_cache(maxsize=1 << 16)
def sample_bytes(sample: Sample) -> int:
    """One sample."""
    total = _text_bytes(sample.node_id) + _text_bytes(sample.engine)
    numbers = [getattr(sample, name) for name in sample.__struct_fields__]
    return _array_bytes(len(numbers)) + total + sum(_int_bytes(n) for n in numbers if isinstance(n, int))


def _int_bytes(number: int) -> int:
    if number < 24:
        return 1
    return 2 if number < 2**8 else 3 if number < 2**16 else 5 if number < 2**32 else 9


def _text_bytes(text: str) -> int:
    length = len(text) if text.isascii() else len(text.encode())
    return _int_bytes(length) + length


_array_bytes = _int_bytes
