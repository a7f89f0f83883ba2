"""`/v1/nodes`: list, get, set labels and availability, drain, confirm a death, remove."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import trio
from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import SUBMIT_S_MAX, Api, freshen, json_answer, read_body, read_json
from swarm.api.face import NodeFace
from swarm.api.lookup import find_node
from swarm.api.quorum import leader_in_reach
from swarm.api.secret import begin_rotation
from swarm.api.tasks import request_id_of
from swarm.errors import Conflict, UsageError
from swarm.model.command import PassVerdict, SetNode, StopAssignment
from swarm.model.ids import NodeId, RequestId
from swarm.model.liveness import EngineState, MemberStatus, MemberView
from swarm.model.node import Availability, Node, VerdictKind
from swarm.model.resources import Resources
from swarm.schema.request import check_fields, read_label_edits
from swarm.schema.shapes import NO_ENGINE, Shape, engine_of, node_detail, node_object, node_status

STOP_S_MAX = 15.0
"""For what a node runs to end before it is removed: the usual grace of 10 s and a loaded engine. Below the time of a request."""
_SETTABLE = (Availability.ACTIVE.value, Availability.DRAIN.value)


def node_rows(api: Api, nodes: list[Node]) -> list[Shape]:
    """Rows of `node ls`. Cost O(nodes)."""
    face = api.face
    members, consensus, leader = face.members(), face.consensus(), leader_in_reach(face)
    return [
        node_object(
            node, members.get(node.id), self_id=face.node_id, leader_id=leader, voters=consensus.voters,
            engine=own_engine(api)[0] if node.id == face.node_id else engine_of(node, members.get(node.id)),
            reserved=face.catalog.reserved.get(node.id, Resources()), tasks=_tasks_of(face, node, members),
            now=face.now(), own_health=face.health_score(),
        )
        for node in nodes
    ]  # fmt: skip


def _tasks_of(face: NodeFace, node: Node, members: Mapping[NodeId, MemberView]) -> int:
    """How many tasks a node has. What a dead one had and others have taken over is not among them, though nobody can say that it
    has ended there."""
    held = face.catalog.by_node.get(node.id, ())
    if not held or node_status(node, members.get(node.id), is_self=node.id == face.node_id) != MemberStatus.DEAD.value:
        return len(held)
    return face.catalog.at_home.get(node.id, 0)


def own_engine(api: Api) -> tuple[str, str]:
    """The state of the asked node's engine, and why where it is not up; a witness has none, but its disk may be full."""
    node = api.face.catalog.nodes.get(api.face.node_id)
    state, detail = api.face.engine_state()
    if node is not None and node.witness and state is not EngineState.FULL:
        return NO_ENGINE, ""
    return state.value, detail


async def list_nodes(api: Api, request: Request) -> Response:
    """GET /v1/nodes: every admitted node, by name."""
    headers = await freshen(api, request)
    nodes = sorted(api.face.catalog.nodes.values(), key=lambda node: (node.name, node.id))
    return json_answer(node_rows(api, nodes), headers=headers)


def node_answer(api: Api, node_id: NodeId, headers: dict[str, str] | None = None) -> Response:
    """Everything about one node."""
    face = api.face
    node = find_node(face, node_id)
    member = face.members().get(node_id)
    newest = max((m.last_contact for m in face.members().values()), default=0.0)
    age = round(newest - member.last_contact, 3) if member is not None and member.last_contact else None
    row = node_rows(api, [node])[0]
    extra = {"contact_behind_s": age, "counted": dict(face.counted_about(node_id))}
    if node_id == face.node_id:
        row["engine_detail"] = own_engine(api)[1]
    return json_answer(node_detail(row, node, member, extra), headers=headers)


async def get_node(api: Api, request: Request) -> Response:
    """GET /v1/nodes/{ref}."""
    headers = await freshen(api, request)
    return node_answer(api, find_node(api.face, request.path_params["ref"]).id, headers)


async def patch_node(api: Api, request: Request) -> Response:
    """PATCH /v1/nodes/{ref} {labels?: {key: value or null}, availability?: active|drain}."""
    body = await read_json(request)
    check_fields(body, {"labels": dict, "availability": str})
    availability = body.get("availability")
    if availability is not None and availability not in _SETTABLE:
        raise UsageError(f"bad value for 'availability': {availability!r}", cause=f"one of {', '.join(_SETTABLE)} is expected")
    labels = read_label_edits(body.get("labels", {}))
    node = find_node(api.face, request.path_params["ref"])
    command = SetNode(node.id, Availability(availability) if availability is not None else None, labels)
    return await _carry_out(api, request, node.id, command)


async def drain_node(api: Api, request: Request) -> Response:
    """POST /v1/nodes/{ref}/drain: its tasks move to other nodes, and it gets no new ones until made active again."""
    await read_body(request)
    node = find_node(api.face, request.path_params["ref"])
    return await _carry_out(api, request, node.id, SetNode(node.id, Availability.DRAIN))


async def confirm_dead(api: Api, request: Request) -> Response:
    """POST /v1/nodes/{ref}/confirm-dead: a person says it will not come back as it was; its tasks are replaced at once."""
    await read_body(request)
    node = find_node(api.face, request.path_params["ref"])
    member = api.face.members().get(node.id)
    if node.id == api.face.node_id or (member is not None and member.status is MemberStatus.ALIVE):
        raise Conflict(
            f"node '{node.name}' is not dead", cause="it answers",
            hint=f"to move its tasks: swarm node drain {node.name}",
        )  # fmt: skip
    command = PassVerdict(node.id, VerdictKind.CONFIRMED, "an operator confirmed it")
    return await _carry_out(api, request, node.id, command)


async def remove_node(api: Api, request: Request) -> Response:
    """DELETE /v1/nodes/{ref}?force=1: it is a member no more, for good, and the secret is rotated. 204. A node that answers needs
    force, unless it was drained; if it has tasks, they stop there first, for some seconds at most."""
    await read_body(request)
    force = request.query_params.get("force") in ("1", "true")
    node = find_node(api.face, request.path_params["ref"])
    row = node_rows(api, [node])[0]
    if tuple(api.face.consensus().voters) == (node.id,):
        raise Conflict(
            f"node '{node.name}' is the only voter", cause="without it the others could decide nothing any more",
            hint="run swarm down --drain on it: it gives its vote away before it leaves",
        )  # fmt: skip
    if row["status"] == MemberStatus.ALIVE.value and not force:
        _refuse_removing_one_that_answers(node, row)
    request_id = request_id_of(request)
    if row["status"] == MemberStatus.ALIVE.value and row["tasks"]:
        with trio.move_on_after(STOP_S_MAX):
            await _stop_what_runs(api, node)
    await begin_rotation(api, request_id, reason=f"node {node.name} was removed", remove=node.id)
    return Response(status_code=204)


def _refuse_removing_one_that_answers(node: Node, row: Shape) -> None:
    """Raises `Conflict`. A drained node that does not lead is what its operator is done with."""
    anyway = f"swarm node rm -f {node.name}"
    if row["tasks"]:
        raise Conflict(
            f"node '{node.name}' runs {row['tasks']} tasks", cause="removing it would stop them before they run elsewhere",
            hint=f"swarm node drain {node.name} first, or: {anyway}",
        )  # fmt: skip
    if row["leader"]:
        raise Conflict(
            f"node '{node.name}' leads the cluster", cause="removing it would leave the others without a leader for a moment",
            hint=f"run swarm down --drain on it: it hands the lead over and leaves; or: {anyway}",
        )  # fmt: skip
    if node.availability is Availability.ACTIVE:
        raise Conflict(
            f"node '{node.name}' answers", cause="a removed node is never admitted again under its identity",
            hint=f"swarm node drain {node.name} first, or: {anyway}",
        )  # fmt: skip


async def _stop_what_runs(api: Api, node: Node) -> None:
    """Have its runner stop everything while it still hears of it: a removed node hears nothing more, and what it runs then runs
    on beside its replacement. Each command may be given twice. Returns when all has ended."""
    face = api.face
    held = face.catalog.by_node.get(node.id, ())
    stops = [StopAssignment(assignment_id, f"node {node.name} is removed") for assignment_id in sorted(held)]
    for command in (SetNode(node.id, Availability.DRAIN), *stops):
        await face.submit(command, request_id=RequestId(secrets.token_hex(16)), timeout_s=STOP_S_MAX)
    while face.catalog.by_node.get(node.id):
        await face.wait_applied(face.consensus().applied_index + 1)


async def _carry_out(api: Api, request: Request, node_id: NodeId, command: SetNode | PassVerdict) -> Response:
    await api.face.submit(command, request_id=request_id_of(request), timeout_s=SUBMIT_S_MAX)
    return node_answer(api, node_id)
