"""`/v1/secret`, `/v1/secret/rotate`: the cluster's secret, of which only number, phase and who is waited for are shown."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import SUBMIT_S_MAX, Api, freshen, json_answer, read_body
from swarm.api.tasks import request_id_of
from swarm.errors import Conflict
from swarm.model.ids import NodeId, RequestId
from swarm.model.liveness import MemberStatus
from swarm.model.node import VerdictKind
from swarm.schema.shapes import Shape

NOBODY = NodeId("")


def secret_shape(api: Api) -> Shape:
    """Where the secret stands, as far as the log is applied here. Cost O(nodes)."""
    catalog, members = api.face.catalog, api.face.members()
    secrets = catalog.secrets
    waiting: list[str] = []
    away: list[str] = []
    for node_id in secrets.unanswered(catalog.nodes):
        node, member = catalog.nodes[node_id], members.get(node_id)
        there = node.verdict.kind is VerdictKind.ALIVE and member is not None and member.status is not MemberStatus.DEAD
        (waiting if there else away).append(node.name)
    newest = secrets.records[-1] if secrets.records else None
    return {
        "number": secrets.newest,
        "sending": secrets.sending,
        "phase": secrets.phase,
        "rotating": secrets.rotating,
        "since_utc": newest.time_utc or None if newest is not None else None,
        "reason": newest.reason if newest is not None else "",
        "waits_for": sorted(waiting),
        "away": sorted(away),
        "retired": len(secrets.retired),
        "authority": newest.authority.fingerprint.hex() if newest is not None else api.face.authority()[0].hex(),
    }


async def get_secret(api: Api, request: Request) -> Response:
    """GET /v1/secret: the number of the secret, the phase of a rotation, and whose answers it lacks."""
    headers = await freshen(api, request)
    return json_answer(secret_shape(api), headers=headers)


async def rotate_secret(api: Api, request: Request) -> Response:
    """POST /v1/secret/rotate: a new secret is brought in; 202 at once, with what GET /v1/secret says."""
    await read_body(request)
    await begin_rotation(api, request_id_of(request), reason="an operator asked for it")
    return json_answer(secret_shape(api), status=202)


async def begin_rotation(api: Api, request_id: RequestId, *, reason: str, remove: NodeId = NOBODY) -> None:
    """Bring in a new secret, and remove a node with it when one is named. Repeated with its request id it does nothing."""
    if any(record.request_id == request_id for record in api.face.catalog.secrets.records):
        return
    command = await api.face.new_secret(remove=remove, reason=reason, request_id=request_id)
    try:
        await api.face.submit(command, request_id=request_id, timeout_s=SUBMIT_S_MAX)
    except Conflict:
        # A repetition makes another secret, which is refused as another content: what was first under this id stands.
        if not any(record.request_id == request_id for record in api.face.catalog.secrets.records):
            raise
