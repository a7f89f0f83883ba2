"""A catalog snapshot as one file: kept in the data folder, or carried away as a backup.

    magic     8 bytes, with the format's number
    length    4 bytes: of the header
    header    CBOR: whose it is, where in the log it stands, when it was taken, and the snapshot's own length and checksum
    checksum  4 bytes: CRC32C of the header
    snapshot  the catalog's blocks (swarm/catalog/snapshot.py), to the end of the file

Promise: the `*_untrusted` functions raise only `BadMessage`; a file that is cut off, longer than it says, or has any bit changed
is told from a whole one.
"""

from __future__ import annotations

import struct

import msgspec

from swarm.errors import BadMessage
from swarm.model.entry import SnapshotMeta
from swarm.model.ids import ClusterId
from swarm.wire.checksum import crc32c
from swarm.wire.codec import decode_untrusted, encode

MAGIC = b"swarmk1\n"
_NUMBER = struct.Struct(">I")
_HEADER_BYTES_MAX = 64 * 1024
HEAD_BYTES_MAX = len(MAGIC) + 2 * _NUMBER.size + _HEADER_BYTES_MAX
"""So much of a file's beginning always holds its whole header."""


class KeptHeader(msgspec.Struct, frozen=True, array_like=True):
    """What a file says of itself. `meta.index` and `meta.time_utc` are those of the last entry in it."""

    kind: str
    """Why it was kept: `daily`, `history`, `backup`."""
    cluster_id: ClusterId
    meta: SnapshotMeta
    taken_utc: float
    node_name: str = ""
    version: str = ""
    """Of the program that wrote it."""
    nodes: int = 0
    tasks: int = 0


def pack_head(header: KeptHeader) -> bytes:
    """Everything before the snapshot."""
    body = encode(header)
    return MAGIC + _NUMBER.pack(len(body)) + body + _NUMBER.pack(crc32c(body))


def parse_head_untrusted(data: bytes) -> tuple[KeptHeader, int]:
    """(header, where the snapshot begins) from the first `HEAD_BYTES_MAX` bytes of a file. Raises `BadMessage`."""
    if data[: len(MAGIC)] != MAGIC:
        raise BadMessage("it does not begin as a snapshot of swarm does" if data else "it is empty")
    start = len(MAGIC) + _NUMBER.size
    if len(data) < start:
        raise BadMessage("it is cut off in its header")
    (length,) = _NUMBER.unpack_from(data, len(MAGIC))
    end = start + length
    if length > _HEADER_BYTES_MAX or len(data) < end + _NUMBER.size:
        raise BadMessage("it is cut off in its header")
    body = data[start:end]
    if _NUMBER.unpack_from(data, end) != (crc32c(body),):
        raise BadMessage("its header does not match its checksum")
    return decode_untrusted(body, KeptHeader, bytes_max=_HEADER_BYTES_MAX), end + _NUMBER.size


def parse_untrusted(data: bytes) -> tuple[KeptHeader, bytes]:
    """(header, snapshot) from a whole file, verified. Raises `BadMessage`."""
    header, start = parse_head_untrusted(data[:HEAD_BYTES_MAX])
    snapshot = data[start:]
    if len(snapshot) != header.meta.length:
        raise BadMessage(f"it holds {len(snapshot)} bytes of a snapshot of {header.meta.length}")
    if crc32c(snapshot) != header.meta.crc32c:
        raise BadMessage("its snapshot does not match its checksum")
    return header, snapshot
