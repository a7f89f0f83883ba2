"""`/v1/rtt` and `/v1/counters`: what the nodes measure of each other, and what this node has counted."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import Api, freshen, json_answer
from swarm.api.face import RoundTripRead
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus
from swarm.model.node import Availability
from swarm.schema.counters import grouped
from swarm.schema.shapes import Shape, milliseconds


async def get_round_trips(api: Api, request: Request) -> Response:
    """GET /v1/rtt: every node's measured round trips to every other, collected now; a missing one has its reason."""
    headers = await freshen(api, request)
    measured = {row.observer: row for row in await api.face.round_trips()}
    nodes = sorted(
        (node for node in api.face.catalog.nodes.values() if node.availability is not Availability.LEFT),
        key=lambda node: (node.name, node.id),
    )
    names = {node.id: node.name for node in nodes}
    rows = [_row(node_id, names, measured.get(node_id)) for node_id in names]
    return json_answer({"nodes": [{"id": i, "name": n} for i, n in names.items()], "rows": rows}, headers=headers)


def _row(observer: NodeId, names: Mapping[NodeId, str], found: RoundTripRead | None) -> Shape:
    """One observer's row: `rtt_ms` by node id, null where `missing` says why."""
    cells: dict[str, float | None] = {}
    missing: dict[str, str] = {}
    measured = {each.node_id: each for each in found.measured} if found is not None else {}
    reason = found.reason if found is not None else f"{names[observer]} is not known to gossip here"
    for node_id, name in names.items():
        if node_id == observer:
            continue
        one = measured.get(node_id)
        cells[node_id] = None
        if reason:
            missing[node_id] = reason
        elif one is None:
            missing[node_id] = f"{names[observer]} does not know {name}"
        elif one.status in (MemberStatus.DEAD, MemberStatus.LEFT):
            missing[node_id] = f"{name} is {one.status.value} in the eyes of {names[observer]}"
        elif not one.rtt_s:
            missing[node_id] = f"{name} has not answered {names[observer]} yet"
        else:
            cells[node_id] = milliseconds(one.rtt_s)
    return {"id": observer, "name": names[observer], "reason": reason, "rtt_ms": cells, "missing": missing}


async def get_counters(api: Api, request: Request) -> Response:
    """GET /v1/counters: what the asked node has counted since its daemon's start, in groups; loop lag in milliseconds."""
    node = api.face.catalog.nodes.get(api.face.node_id)
    name = node.name if node is not None else api.face.node_id
    flat = {**api.face.counters(), **api.counters}
    return json_answer({"node": {"id": api.face.node_id, "name": name}, **grouped(flat)})
