"""`/v1/backup`, `/v1/backups`: the catalog as a file, from any node, and the snapshots that this node keeps."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import Api, freshen, json_answer
from swarm.api.streamed import Streamed
from swarm.model.generation import number_of
from swarm.schema.shapes import Shape
from swarm.wire.kept import KeptHeader, pack_head

PIECE_BYTES = 256 * 1024


async def get_backup(api: Api, request: Request) -> Response:
    """GET /v1/backup: a backup file of this moment, as applied on the asked node. Secrets, API tokens and registry credentials
    are not in it; tasks with their environment are."""
    headers = await freshen(api, request)
    header, data = await api.face.make_backup()
    headers["swarm-index"] = str(header.meta.index)
    return Streamed(api, _pieces(pack_head(header), data), media_type="application/octet-stream", headers=headers)


async def _pieces(head: bytes, data: bytearray) -> AsyncGenerator[bytes, None]:
    yield head
    for start in range(0, len(data), PIECE_BYTES):
        yield bytes(data[start : start + PIECE_BYTES])


async def list_backups(api: Api, request: Request) -> Response:
    """GET /v1/backups: the snapshots that the asked node keeps in its data folder, the oldest first."""
    kept = await api.face.kept_backups()
    return json_answer([{**header_shape(each.header), "file": str(each.path), "file_bytes": each.size_bytes} for each in kept])


def header_shape(header: KeptHeader) -> Shape:
    """What a file says of itself."""
    return {
        "kind": header.kind,
        "cluster_id": header.cluster_id,
        "index": header.meta.index,
        "time_utc": header.meta.time_utc,
        "taken_utc": header.taken_utc,
        "node": header.node_name,
        "version": header.version,
        "recovery": number_of(header.meta.recovery_generation),
        "nodes": header.nodes,
        "tasks": header.tasks,
    }
