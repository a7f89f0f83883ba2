"""The catalog as bytes, and back.

A snapshot is a sequence of blocks, each a 4-byte length and a CBOR array: first a header (format, cluster id, where it stands),
then the tables in a fixed order, sorted by key and cut into slices of at most 200 records, so that the loop never encodes for
long in one go. Equal states give equal bytes, on every replica: the digest is a hash of them. Request ids and removed nodes
are state and belong to it; indexes and the ring of events do not.

Promise: `parse_untrusted` raises only `BadMessage`, and returns only states whose records name each other.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from swarm.catalog.requests import RequestRecord, Requests
from swarm.catalog.state import State
from swarm.errors import BadMessage
from swarm.model.apitoken import ApiToken
from swarm.model.assignment import Assignment
from swarm.model.entry import Configuration
from swarm.model.ids import ClusterId
from swarm.model.node import Node
from swarm.model.secret import Secrets
from swarm.model.task import Task
from swarm.wire.codec import decode_untrusted, encode

FORMAT = 1
SLICE_RECORDS = 200
_BLOCK_BYTES_MAX = 512 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class _Header(msgspec.Struct, frozen=True, array_like=True):
    format: int
    cluster_id: ClusterId
    last_index: int
    last_time_utc: float
    configuration: Configuration
    configuration_index: int


class _Removed(msgspec.Struct, frozen=True, array_like=True):
    node_id: str
    index: int


class _Slice(msgspec.Struct, frozen=True, array_like=True):
    table: str
    records: list[Any]


def slices(state: State, requests: Requests) -> Iterator[bytes]:
    """The blocks, in order. The tables are copied (shallowly: records are immutable) at the first `next`, so the state may
    change between two of them. Each block costs about a millisecond."""
    header = _Header(
        FORMAT, state.cluster_id, state.last_index, state.last_time_utc, state.configuration, state.configuration_index
    )
    tables: list[tuple[str, list[Any]]] = [
        ("nodes", [state.nodes[key] for key in sorted(state.nodes)]),
        ("removed", [_Removed(key, state.removed_nodes[key]) for key in sorted(state.removed_nodes)]),
        ("tasks", [state.tasks[key] for key in sorted(state.tasks)]),
        ("assignments", [state.assignments[key] for key in sorted(state.assignments)]),
        ("tokens", [state.api_tokens[key] for key in sorted(state.api_tokens)]),
        ("requests", list(requests.records)),
        ("secrets", [state.secrets] if state.secrets != Secrets() else []),
    ]
    yield _block(header)
    for name, records in tables:
        for start in range(0, len(records), SLICE_RECORDS):
            yield _block(_Slice(name, records[start : start + SLICE_RECORDS]))


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


def parse_untrusted(data: bytes) -> tuple[State, Requests]:
    """The state that `slices` wrote. Raises only `BadMessage`."""
    blocks = _blocks_untrusted(data)
    header = decode_untrusted(next(blocks, b""), _Header, bytes_max=_BLOCK_BYTES_MAX)
    if header.format != FORMAT:
        raise BadMessage(f"snapshot format {header.format} is not known here")
    tables: dict[str, list[Any]] = {name: [] for name in _KINDS}
    for block in blocks:
        part = decode_untrusted(block, _Slice, bytes_max=_BLOCK_BYTES_MAX)
        if part.table not in _KINDS:
            raise BadMessage(f"snapshot table {part.table[:80]!r} is not known here")
        try:
            records = msgspec.convert(part.records, _KINDS[part.table], builtin_types=(bytes, bytearray, memoryview), strict=True)
        except (msgspec.ValidationError, OverflowError, RecursionError, ValueError, TypeError) as error:
            raise BadMessage(f"snapshot table {part.table}: {error}") from None
        tables[part.table].extend(records)
    state = _state(header, tables)
    return state, Requests(tables["requests"])


def _state(header: _Header, tables: dict[str, list[Any]]) -> State:
    state = State()
    state.cluster_id, state.last_index, state.last_time_utc = header.cluster_id, header.last_index, header.last_time_utc
    state.configuration, state.configuration_index = header.configuration, header.configuration_index
    state.nodes = {node.id: node for node in tables["nodes"]}
    state.removed_nodes = {record.node_id: record.index for record in tables["removed"]}
    state.tasks = {task.id: task for task in tables["tasks"]}
    state.assignments = {assignment.id: assignment for assignment in tables["assignments"]}
    state.api_tokens = {token.token_id: token for token in tables["tokens"]}
    for secrets in tables["secrets"]:
        state.secrets = secrets
    for assignment in state.assignments.values():
        if assignment.task_id not in state.tasks or not (assignment.ended or assignment.node_id in state.nodes):
            raise BadMessage(f"snapshot: assignment {assignment.id[:80]!r} names a task or node that is not there")
    state.rebuild()
    return state


def _blocks_untrusted(data: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        if position + _LENGTH.size > len(data):
            raise BadMessage("snapshot: cut off in a length")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if position + length > len(data):
            raise BadMessage("snapshot: cut off in a block")
        yield data[position : position + length]
        position += length
