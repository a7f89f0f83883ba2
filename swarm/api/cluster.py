"""`/v1/status`, `/v1/tokens`, `/v1/join-token`, `/v1/authority`, `/v1/shutdown`: the cluster as a whole, and this node's end."""

from __future__ import annotations

import math
import secrets
from collections import Counter

from starlette.requests import Request
from starlette.responses import Response

from swarm import __version__
from swarm.api.calls import SUBMIT_S_MAX, Api, freshen, json_answer, read_body, read_json
from swarm.api.face import ConsensusStatus
from swarm.api.nodes import node_rows, own_engine
from swarm.api.quorum import Quorum, leader_in_reach, name_of, quorum_of, silent_nodes
from swarm.api.tasks import request_id_of
from swarm.errors import Conflict, NotFound, UsageError
from swarm.model.command import CreateApiToken, RevokeApiToken
from swarm.model.generation import number_of
from swarm.model.ids import NodeId
from swarm.schema.apitoken import ApiTokenText
from swarm.schema.request import check_fields
from swarm.schema.shapes import NO_ENGINE, Shape
from swarm.schema.tolerance import HANGS, ways_out

NOTE_CHARS_MAX = 200


async def get_status(api: Api, request: Request) -> Response:
    """GET /v1/status: who leads, how fresh this is, which nodes may fail now, what is wrong."""
    headers = await freshen(api, request)
    stale = headers.get("swarm-stale-s")
    face, consensus = api.face, api.face.consensus()
    catalog = face.catalog
    rows = node_rows(api, sorted(catalog.nodes.values(), key=lambda node: (node.name, node.id)))
    engine, engine_detail = own_engine(api)
    quorum = quorum_of(face)
    may = quorum.may
    leader_id, last = leader_in_reach(face), consensus.last_leader
    content: Shape = {
        "version": __version__,
        "cluster_id": catalog.cluster_id,
        "node": _named(api, face.node_id),
        "role": consensus.role,
        "leader": _named(api, leader_id) if leader_id else None,
        "last_leader": {**_named(api, last[0]), "term": last[1]} if last is not None else None,
        "term": consensus.term,
        "recovery": number_of(consensus.recovery_generation),
        "commit_index": consensus.commit_index,
        "applied_index": consensus.applied_index,
        "told_commit_index": consensus.told_commit,
        "voters": [row["name"] for row in rows if row["votes"]],
        "quorum": may.quorum,
        "fresh": stale is None,
        "stale_s": None if stale in (None, "unknown") else float(stale),
        "leader_contact_age_s": _finite(consensus.leader_contact_age_s),
        "nodes": dict(sorted(Counter(row["status"] for row in rows).items())),
        "tasks": dict(sorted(catalog.phases.items())),
        "tasks_unreachable": sum(catalog.at_home.get(node_id, 0) for node_id in silent_nodes(face)),
        "more_may_fail": may.more_may_fail,
        "may_fail": list(may.may_fail),
        "may_not_fail": list(may.may_not_fail),
        "tolerance": may.text,
        "engine": engine,
        "engine_detail": engine_detail,
        "problems": [
            *face.refusals(),
            *face.queue_problems(),
            *([] if face.removed() else _problems(rows, quorum, consensus, engine, engine_detail)),
        ],
        "counters": dict(sorted({**face.counters(), **api.counters}.items())),
    }
    return json_answer(content, headers=headers)


def _named(api: Api, node_id: NodeId) -> Shape:
    return {"id": node_id, "name": name_of(api.face, node_id)}


def _finite(seconds: float) -> float | None:
    return None if math.isinf(seconds) else round(seconds, 3)


def _problems(
    rows: list[Shape], quorum: Quorum, consensus: ConsensusStatus, engine: str, engine_detail: str
) -> list[str]:
    """One line each, the gravest first."""
    stopped_at, may = consensus.stopped_at, quorum.may
    lost = "and the leader do not reach each other (swarm node rtt): it counts as missing"
    found = [f"voter {name} {lost}" for name in quorum.cut_off]
    if stopped_at:
        found.append(f"apply stopped: {stopped_at}; upgrade swarm on this node")
    if not may.quorum:
        stale = "" if may.idle else ", reads are stale"  # with a full disk there may be a leader all the same
        found.append(f"no quorum: {may.missing}; containers run on{stale}, writes are refused; {ways_out(may, quorum.idle)}")
    for row in rows:
        if row["status"] in ("suspect", "dead"):
            seen = f"; when that was found: {row['evidence']}" if row["evidence"] else ""
            found.append(f"node {row['name']} is {row['status']}{seen}")
        elif row["status"] == "alive" and row["engine"] == "full":
            vote = ", and as a voter it confirms no entries" if row["votes"] else ", and it is made a voter last"
            known = vote if row["id"] in consensus.full or row["name"] in quorum.idle else ""  # else it may be the engine's disk
            found.append(f"the disk of node {row['name']} is full: it gets no new work{known}; free space there")
        elif quorum.idle.get(row["name"]) == HANGS:
            found.append(f"the disk of voter {row['name']} hangs: it confirms no entries; look at the disk there")
        elif row["status"] == "alive" and row["engine"] not in ("up", "unknown", NO_ENGINE):
            found.append(f"the engine of node {row['name']} is {row['engine']}")
    if consensus.disk_lack:
        found.append(f"this node: {consensus.disk_lack}")
    if engine != "up" and engine_detail:
        found.append(f"this node: {engine_detail}" if engine == "full" else f"this node's engine: {engine_detail}")
    return found


async def list_tokens(api: Api, request: Request) -> Response:
    """GET /v1/tokens: API tokens without their secrets."""
    headers = await freshen(api, request)
    rows = [
        {"id": token_id, "note": record.note, "created_utc": getattr(record, "created_utc", None)}
        for token_id, record in sorted(api.face.catalog.api_tokens.items())
    ]
    return json_answer(rows, headers=headers)


async def create_token(api: Api, request: Request) -> Response:
    """POST /v1/tokens {note?}: 201 {id, token, note}. The token is shown this once."""
    body = await read_json(request)
    check_fields(body, {"note": str})
    note = str(body.get("note", ""))
    if len(note) > NOTE_CHARS_MAX:
        raise UsageError("the note is too long", cause=f"at most {NOTE_CHARS_MAX} characters are kept")
    token = ApiTokenText(api.face.authority_to_come(), secrets.token_bytes(32))
    command = CreateApiToken(token.token_id, token.secret_sha256, note)
    await api.face.submit(command, request_id=request_id_of(request), timeout_s=SUBMIT_S_MAX)
    return json_answer({"id": token.token_id, "token": token.text(), "note": note}, status=201)


async def revoke_token(api: Api, request: Request) -> Response:
    """DELETE /v1/tokens/{id}: good no more. 204."""
    await read_body(request)
    token_id = request.path_params["token_id"]
    if token_id not in api.face.catalog.api_tokens:
        raise NotFound(f"there is no API token {token_id!r}", hint="swarm token api --list shows what there is")
    await api.face.submit(RevokeApiToken(token_id), request_id=request_id_of(request), timeout_s=SUBMIT_S_MAX)
    return Response(status_code=204)


async def get_join_token(api: Api, request: Request) -> Response:
    """GET /v1/join-token: the token and the line for other hosts. On the Unix socket only."""
    if api.face.removed():
        raise Conflict(
            "this node has no join token to show", cause="it was removed from the cluster, whose secret is another since",
            hint="ask a node that is in it: swarm token show",
        )  # fmt: skip
    token, line = api.face.join_token()
    return json_answer({"token": token, "join": line})


async def get_authority(api: Api, request: Request) -> Response:
    """GET /v1/authority: the certificate to trust, for a caller that knows its fingerprint, and the fingerprints that were good
    before a rotation. Needs no token."""
    retired = [authority.fingerprint.hex() for authority in api.face.catalog.secrets.retired]
    return json_answer({"certificate": api.face.authority()[1], "retired": retired})


async def shut_down(api: Api, request: Request) -> Response:
    """POST /v1/shutdown {kind: pause|leave}: 202; the daemon ends after this answer. On the Unix socket only."""
    body = await read_json(request)
    check_fields(body, {"kind": str})
    match body.get("kind", "pause"):
        case "pause":
            api.face.request_stop("pause")
        case "leave":
            api.face.request_stop("leave")
        case other:
            raise UsageError(f"bad value for 'kind': {other!r}", cause="pause or leave is expected")
    return json_answer({"stopping": True}, status=202)
