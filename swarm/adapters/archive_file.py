"""The files of the archive: segments of applied entries, and the snapshots (bases) that later states are rebuilt from.

    <first index>.entries    header block, then blocks of entries in the order of the log
    <index>.base             header block, then one block: the catalog as of that index

A block is a head (length and CRC32C of the payload, first and last index, first and last time, CRC32C of all that) and a payload,
packed and deflated. The heads can be read alone, so a reader finds an index or a time by skipping.

Promises: what does not match its checksum is never returned, and ends the reading of its file: a torn tail is what a crash
leaves, and what lies behind it is missing, not wrong. A base is written beside, synced and renamed: it is whole or not there.
Blocking; used by the writer's thread and by the reader's process.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from swarm.errors import BadMessage
from swarm.model.archived import Archived, Base
from swarm.wire.checksum import crc32c

FORMAT = 1
ENTRIES = ".entries"
BASE = ".base"
BLOCK_RECORDS_MAX = 512
BLOCK_BYTES_MAX = 1024 * 1024
"""Of payloads in one block, before deflating: what a reader unpacks to find one entry."""
_LEVEL = 1
"""Deflate's quickest. Higher ones gain a tenth and take three times as long."""
_HEAD = struct.Struct(">IIQQddI")
_HEAD_BODY = _HEAD.size - 4
T = TypeVar("T")


class _Header(msgspec.Struct, frozen=True, array_like=True):
    format: int
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Block:
    """Where one block of entries lies and what it covers."""

    path: Path
    offset: int
    size: int
    """With its head."""
    first: int
    last: int
    first_utc: float
    last_utc: float


def _pack(content: bytes, *, first: int = 0, last: int = 0, first_utc: float = 0.0, last_utc: float = 0.0) -> bytes:
    packed = zlib.compress(content, _LEVEL)
    head = _HEAD.pack(len(packed), crc32c(packed), first, last, first_utc, last_utc, 0)[:_HEAD_BODY]
    return head + crc32c(head).to_bytes(4) + packed


def header(cluster_id: str) -> bytes:
    """The first block of every file."""
    return _pack(msgspec.msgpack.encode(_Header(FORMAT, cluster_id)))


def blocks_of(records: Sequence[Archived]) -> Iterator[bytes]:
    """Consecutive entries as blocks, in order."""
    start, size = 0, 0
    for place, record in enumerate(records):
        size += len(record.entry.payload)
        if place + 1 == len(records) or place + 1 - start >= BLOCK_RECORDS_MAX or size >= BLOCK_BYTES_MAX:
            part = records[start : place + 1]
            first, last = part[0].entry, part[-1].entry
            yield _pack(
                msgspec.msgpack.encode(part),
                first=first.index, last=last.index, first_utc=first.time_utc, last_utc=last.time_utc,
            )  # fmt: skip
            start, size = place + 1, 0


def entries_path(folder: Path, first: int) -> Path:
    return folder / f"{first:016x}{ENTRIES}"


def base_path(folder: Path, index: int) -> Path:
    return folder / f"{index:016x}{BASE}"


def listed(folder: Path, suffix: str) -> list[Path]:
    """Files of one kind, oldest first."""
    return sorted(folder.glob(f"[0-9a-f]*{suffix}"))


def index_of(path: Path) -> int:
    """The index in a file's name."""
    return int(path.stem, 16)


def write_base(folder: Path, base: Base, data: bytes) -> Path:
    """Keep a snapshot. Raises OSError."""
    path = base_path(folder, base.index)
    beside = path.with_suffix(".new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as opened:
        opened.write(header(base.cluster_id))
        opened.write(_pack(msgspec.msgpack.encode(base), first=base.index, last=base.index))
        opened.write(_pack(data, first=base.index, last=base.index))
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(beside, path)
    return path


def read_base_untrusted(path: Path, cluster_id: str) -> Base | None:
    """What a base says of itself; None when it is damaged, of another cluster or of a newer format."""
    parts = _parts(path, cluster_id)
    packed = next(parts, None)
    parts.close()
    return _decoded(packed[1], Base) if packed is not None else None


def read_base_data_untrusted(path: Path, cluster_id: str) -> bytes:
    """The snapshot itself. Raises `BadMessage`, OSError."""
    parts = list(_parts(path, cluster_id))
    if len(parts) < 2:
        raise BadMessage(f"{path.name} is damaged")
    return _inflated(parts[1][1])


def blocks(path: Path, cluster_id: str) -> Iterator[Block]:
    """The blocks of a segment, as far as they are whole. Reads everything once, unpacks nothing."""
    for block, _ in _parts(path, cluster_id):
        yield block


def heads(path: Path, cluster_id: str) -> Iterator[Block]:
    """The blocks of a segment by their heads alone; each is verified when it is read. O(blocks)."""
    parts = _parts(path, cluster_id, heads_only=True)
    after = index_of(path)
    for block, _ in parts:
        if block.first != after or block.last < block.first:
            return
        after = block.last + 1
        yield block


def read_block(block: Block) -> list[Archived]:
    """The entries of a block. Raises `BadMessage`, OSError."""
    with open(block.path, "rb") as opened:
        opened.seek(block.offset)
        data = opened.read(block.size)
    if len(data) != block.size or not _sound(data[: _HEAD.size], data[_HEAD.size :]):
        raise BadMessage(f"{block.path.name} is damaged at {block.offset}")
    found = _decoded(data[_HEAD.size :], list[Archived])
    if found is None or not found or (found[0].entry.index, found[-1].entry.index) != (block.first, block.last):
        raise BadMessage(f"{block.path.name} is damaged at {block.offset}")
    return found


def _parts(path: Path, cluster_id: str, *, heads_only: bool = False) -> Generator[tuple[Block, bytes], None, None]:
    """Blocks behind the header, with their packed payloads; ends at the first that is not whole."""
    if not path.exists():
        return  # pruned meanwhile
    with open(path, "rb") as opened:
        bytes_total = os.fstat(opened.fileno()).st_size
        offset = 0
        while len(head := opened.read(_HEAD.size)) == _HEAD.size:
            length, _, first, last, first_utc, last_utc, _ = _HEAD.unpack(head)
            size = _HEAD.size + length
            if offset + size > bytes_total or not _head_sound(head):
                return
            skip = heads_only and offset > 0
            packed = b"" if skip else opened.read(length)
            if not skip and not _sound(head, packed):
                return
            if offset > 0:
                yield Block(path, offset, size, first, last, first_utc, last_utc), packed
            elif not _is_ours(_decoded(packed, _Header), cluster_id):
                return
            offset += size
            opened.seek(offset)


def _is_ours(found: _Header | None, cluster_id: str) -> bool:
    return found is not None and found.format == FORMAT and found.cluster_id == cluster_id


def _head_sound(head: bytes) -> bool:
    return crc32c(head[:_HEAD_BODY]).to_bytes(4) == head[_HEAD_BODY:]


def _sound(head: bytes, packed: bytes) -> bool:
    """Whether this is what was written."""
    length, checksum, *_ = _HEAD.unpack(head)
    return bool(length == len(packed) and checksum == crc32c(packed) and _head_sound(head))


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompress(packed)
    except zlib.error as error:
        raise BadMessage(f"not deflated: {error}") from None


def _decoded(packed: bytes, kind: type[T]) -> T | None:
    try:
        return msgspec.msgpack.decode(_inflated(packed), type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, BadMessage):
        return None
