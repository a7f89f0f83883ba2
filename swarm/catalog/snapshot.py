"""The catalog as bytes, and back.

A snapshot is a sequence of blocks, each a 4-byte length and a CBOR array: first a header (format, cluster id, where it stands),
then the tables in a fixed order, sorted by key and cut into slices of 100 records, so that the loop never encodes for
long in one go. Equal states give equal bytes, on every replica; the digest is a hash of the same blocks. Request ids and removed
nodes are state and belong to it; indexes and the ring of events do not.

Making one and reading one are both done in steps of a few milliseconds: the large tables are read as they were at one moment
(`moment`), a block a step; a reader takes pieces cut anywhere, decodes a block a step, and then fills tables and indexes, some
hundred records a step.

Promise: a `Reading` raises only `BadMessage`, and gives only states whose records name each other.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from swarm.catalog.moment import Moment
from swarm.catalog.requests import RequestRecord, Requests
from swarm.catalog.state import State
from swarm.errors import BadMessage, NewerSnapshot
from swarm.model.apitoken import ApiToken
from swarm.model.assignment import Assignment
from swarm.model.command import SCHEMA_KNOWN
from swarm.model.entry import Configuration
from swarm.model.ids import ClusterId
from swarm.model.node import Node
from swarm.model.secret import Secrets
from swarm.model.task import Task
from swarm.wire.codec import decode_untrusted, encode

FORMAT = 1
SLICE_RECORDS = 100
"""In one block: some 2 ms to decode. Equal states give equal bytes only where this is equal, too."""
FILL_RECORDS = 500
CLEAR_RECORDS = 10_000
_BLOCK_BYTES_MAX = 512 * 1024 * 1024
_LENGTH = struct.Struct(">I")
Pack = Callable[[Any], bytes]
"""Makes bytes of one block's content."""


class _Header(msgspec.Struct, frozen=True, array_like=True):
    format: int
    cluster_id: ClusterId
    last_index: int
    last_time_utc: float
    configuration: Configuration
    configuration_index: int
    schema: int = 1
    """The newest schema among the entries that made this state: who does not know it may misread the records."""


class _Removed(msgspec.Struct, frozen=True, array_like=True):
    node_id: str
    index: int


class _Slice(msgspec.Struct, frozen=True, array_like=True):
    table: str
    records: list[Any]


def slices(state: State, requests: Requests, *, bare: bool = False, pack: Pack | None = None) -> Iterator[bytes]:
    """The blocks, in order. All of them are of the moment of the first `next`: the state may change between two of them. Drain
    it or close it: until then every change of a task costs a little more.

    `bare` leaves out what is not to leave the cluster: its secrets, its API tokens, and credentials of registries. `pack` makes
    other bytes of each block than a snapshot's: for who compares, and reads nothing back."""
    moment = state.begin_moment()
    try:
        yield from _blocks(state, requests, moment, bare=bare, pack=pack or _block)
    finally:
        state.end_moment(moment)


def _blocks(state: State, requests: Requests, moment: Moment, *, bare: bool, pack: Pack) -> Iterator[bytes]:
    header = _Header(
        FORMAT, state.cluster_id, state.last_index, state.last_time_utc, state.configuration, state.configuration_index,
        state.schema,
    )  # fmt: skip
    nodes = [state.nodes[key] for key in sorted(state.nodes)]
    removed = [_Removed(key, state.removed_nodes[key]) for key in sorted(state.removed_nodes)]
    tokens = [state.api_tokens[key] for key in sorted(state.api_tokens)]
    kept, secrets = requests.records, [state.secrets] if state.secrets != Secrets() else []
    tasks = moment.task_slices(SLICE_RECORDS)
    if bare:
        tokens, secrets = [], []
        tasks = (list(map(without_credentials, part)) for part in tasks)
    yield pack(header)
    yield from _table("nodes", _cut(nodes), pack)
    yield from _table("removed", _cut(removed), pack)
    yield from _table("tasks", tasks, pack)
    yield from _table("assignments", moment.assignment_slices(SLICE_RECORDS), pack)
    yield from _table("tokens", _cut(tokens), pack)
    yield from _table("requests", _cut(kept), pack)
    yield from _table("secrets", _cut(secrets), pack)


def without_credentials(task: Task) -> Task:
    """The same without what only nodes of this cluster can open."""
    return replace(task, spec=replace(task.spec, registry_auth=b"")) if task.spec.registry_auth else task


def _cut(records: Sequence[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(records), SLICE_RECORDS):
        yield list(records[start : start + SLICE_RECORDS])


def _table(name: str, parts: Iterator[list[Any]], pack: Pack) -> Iterator[bytes]:
    """Blocks of exactly `SLICE_RECORDS` records, whatever the parts: equal states give equal bytes. An empty piece where a part
    filled none."""
    waiting: list[Any] = []
    for part in parts:
        waiting += part
        if len(waiting) < SLICE_RECORDS:
            yield b""
        while len(waiting) >= SLICE_RECORDS:
            yield pack(_Slice(name, waiting[:SLICE_RECORDS]))
            del waiting[:SLICE_RECORDS]
    if waiting:
        yield pack(_Slice(name, waiting))


def _block(content: Any) -> bytes:
    data = encode(content)
    return _LENGTH.pack(len(data)) + data


_KINDS: dict[str, Any] = {
    "nodes": list[Node],
    "removed": list[_Removed],
    "tasks": list[Task],
    "assignments": list[Assignment],
    "tokens": list[ApiToken],
    "requests": list[RequestRecord],
    "secrets": list[Secrets],
}


class Reading:
    """A snapshot on its way back to a state. Every `next` of an iterator given out here takes a few milliseconds at most, for
    blocks of `SLICE_RECORDS` records."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._header: _Header | None = None
        self._tables: dict[str, list[Any]] = {name: [] for name in _KINDS}
        self._requests = Requests()

    def feed(self, piece: bytes) -> Iterator[None]:
        """Take the next bytes and decode the blocks that are whole, one a step. Raises `BadMessage`."""
        self._buffer += piece
        position = 0
        while (block := self._block_at(position)) is not None:
            position += _LENGTH.size + len(block)
            self._take(block)
            yield
        del self._buffer[:position]

    def _block_at(self, position: int) -> bytes | None:
        begin = position + _LENGTH.size
        if begin > len(self._buffer):
            return None
        (length,) = _LENGTH.unpack_from(self._buffer, position)
        if length > _BLOCK_BYTES_MAX:
            raise BadMessage(f"snapshot: a block of {length} bytes")
        return bytes(self._buffer[begin : begin + length]) if begin + length <= len(self._buffer) else None

    def _take(self, block: bytes) -> None:
        if self._header is None:
            self._header = decode_untrusted(block, _Header, bytes_max=_BLOCK_BYTES_MAX)
            if self._header.format > FORMAT or self._header.schema > SCHEMA_KNOWN:
                needed = f"format {self._header.format}, schema {self._header.schema}"
                raise NewerSnapshot(f"the snapshot is of a newer swarm ({needed}): upgrade this node")
            if self._header.format != FORMAT:
                raise BadMessage(f"snapshot format {self._header.format} is not known here")
            return
        part = decode_untrusted(block, _Slice, bytes_max=_BLOCK_BYTES_MAX)
        if part.table not in _KINDS:
            raise BadMessage(f"snapshot table {part.table[:80]!r} is not known here")
        try:
            records = msgspec.convert(part.records, _KINDS[part.table], builtin_types=(bytes, bytearray, memoryview), strict=True)
        except (msgspec.ValidationError, OverflowError, RecursionError, ValueError, TypeError) as error:
            raise BadMessage(f"snapshot table {part.table}: {error}") from None
        self._tables[part.table].extend(records)

    def finish(self, into: State) -> Iterator[None]:
        """All bytes are here: fill an empty state, tables first, then the indexes. Raises `BadMessage`."""
        if self._header is None or self._buffer:
            raise BadMessage("snapshot: cut off")
        header, tables = self._header, self._tables
        into.cluster_id, into.last_index, into.last_time_utc = header.cluster_id, header.last_index, header.last_time_utc
        into.configuration, into.configuration_index = header.configuration, header.configuration_index
        into.schema = header.schema
        into.removed_nodes = {record.node_id: record.index for record in tables["removed"]}
        into.api_tokens = {token.token_id: token for token in tables["tokens"]}
        for secrets in tables["secrets"]:
            into.secrets = secrets
        for name, table in (("nodes", into.nodes), ("tasks", into.tasks), ("assignments", into.assignments)):
            yield from _fill(table, tables[name])
        for start in range(0, len(tables["assignments"]), FILL_RECORDS):
            _check_names(into, tables["assignments"][start : start + FILL_RECORDS])
            yield
        for records in _cut(tables["requests"]):
            self._requests.extend(records)
            yield
        yield from into.rebuild_steps()

    def clear(self) -> Iterator[None]:
        """Let go of the records as they were read, after `finish`; the state has them."""
        for records in self._tables.values():
            while records:
                del records[-CLEAR_RECORDS:]
                yield

    @property
    def requests(self) -> Requests:
        """The request ids, once it is finished."""
        return self._requests


def _fill(table: dict[Any, Any], records: list[Any]) -> Iterator[None]:
    for start in range(0, len(records), FILL_RECORDS):
        table.update((record.id, record) for record in records[start : start + FILL_RECORDS])
        yield


def _check_names(state: State, assignments: list[Assignment]) -> None:
    for assignment in assignments:
        if assignment.task_id not in state.tasks or not (assignment.ended or assignment.node_id in state.nodes):
            raise BadMessage(f"snapshot: assignment {assignment.id[:80]!r} names a task or node that is not there")
