"""`/v1/tasks`: list, submit, get (and wait for a change), stop, remove, logs, and why one waits."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, cast

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import SUBMIT_S_MAX, Api, freshen, in_slices, json_answer, read_body, read_json
from swarm.api.face import LogChunk
from swarm.api.lookup import by_age, current_assignment, find_task, present_task
from swarm.api.parts import ListAnswer
from swarm.api.queue import find_logged, find_queued, keep, queued_row, waiting_rows
from swarm.api.quorum import silent_nodes
from swarm.api.streamed import SSE, Streamed, sse
from swarm.errors import Conflict, NotFound, OperatorError, PeerError, Unavailable, UnknownOutcome, UsageError
from swarm.model.command import RemoveTask, StopTask, Submit
from swarm.model.ids import NodeId, RequestId, TaskId
from swarm.model.outcome import Applied
from swarm.model.phase import Desired
from swarm.model.queued import QueuedSubmit
from swarm.model.task import Task, TaskSpec
from swarm.model.task_phase import PENDING, task_phase
from swarm.schema.document import build_spec
from swarm.schema.request import check_fields, read_number, read_request_id
from swarm.schema.shapes import Shape, task_detail, task_object

EXPLAINED_MAX = 50
"""Tasks explained in one listing: an explanation costs the more the more nodes there are."""
WAIT_S_MAX = 25.0
QUEUE_TRY_S = 2.0
"""A submit that may be queued looks for a leader for so long: an election takes 1.2 s."""
AUTH_BYTES_MAX = 16 * 1024


def request_id_of(request: Request) -> RequestId:
    """The client's, made before its first attempt; else one of our own, good for this attempt only."""
    given = request.headers.get("request-id", "")
    return RequestId(read_request_id(given) if given else secrets.token_hex(16))


def task_id_of(request_id: RequestId) -> TaskId:
    """The same for every attempt of one request, so that a repetition says the same to the log."""
    return TaskId(hashlib.sha256(f"task of request {request_id}".encode()).hexdigest()[:32])


def default_name(document: dict[str, Any], task_id: TaskId) -> str:
    """For a task without a name: the image's last word and the beginning of the id."""
    image = str(document.get("image", "task"))
    word = "".join(c for c in image.rsplit("/", 1)[-1].split("@")[0].split(":")[0].lower() if c.isalnum() or c in "-.")
    return f"{word.strip('-.')[:50] or 'task'}-{task_id[:6]}"


def shape_of(api: Api, task: Task, *, explain: bool, silent: Mapping[NodeId, str] | None = None) -> Shape:
    """One row. `silent`: what `silent_nodes` says, for a caller that asks for many rows."""
    catalog = api.face.catalog
    assignment = current_assignment(catalog, task)
    explained = ""
    if explain and task_phase(task, assignment) == PENDING:
        explained = api.face.explain(task.id).summary
    if assignment is None:
        return task_object(task, None, None, explained)
    silent = silent_nodes(api.face) if silent is None else silent
    node = catalog.nodes.get(assignment.node_id)
    return task_object(task, assignment, node, explained, silent=silent.get(assignment.node_id, ""))


async def list_tasks(api: Api, request: Request) -> Response:
    """GET /v1/tasks: all, oldest first. One that is being removed is there, and keeps its name, until its container is gone."""
    headers = await freshen(api, request)
    answer = ListAnswer(headers)
    explained, silent = 0, silent_nodes(api.face)
    async for task_id in in_slices(await by_age(api.face)):
        task = api.face.catalog.tasks.get(task_id)
        if task is None:
            continue  # forgotten since the list was begun
        row = shape_of(api, task, explain=not task.ended and explained < EXPLAINED_MAX, silent=silent)
        explained += row["phase"] == PENDING
        answer.add(msgspec.json.encode(row))
    for row in waiting_rows(api):
        answer.add(msgspec.json.encode(row))
    return answer


async def submit_task(api: Api, request: Request) -> Response:
    """POST /v1/tasks {task, registry_auth?}: 201 with the row; 200 when this request id had made it before; 202 when it was
    submitted by way of another node and is not to be seen here yet. With ?queue=1 also 202: kept here until there is a leader."""
    request_id = request_id_of(request)
    body = await read_json(request)
    check_fields(body, {"task": dict, "registry_auth": dict})
    task_id = task_id_of(request_id)
    document = body.get("task", {})
    spec = build_spec(document, name_default=default_name(document, task_id))
    before = submitted_before(api, task_id, spec)
    if before is not None:
        return json_answer(before, status=200)
    command = Submit(task_id, await with_registry_auth(api, spec, body.get("registry_auth")))
    queue = request.query_params.get("queue") in ("1", "true")
    try:
        applied = await api.face.submit(command, request_id=request_id, timeout_s=QUEUE_TRY_S if queue else SUBMIT_S_MAX)
    except (Unavailable, UnknownOutcome) as error:
        if queue:
            return await keep(api, command, request_id, maybe_done=isinstance(error, UnknownOutcome))
        raise
    except Conflict as error:
        before = submitted_before(api, task_id, spec)
        if before is not None:
            return json_answer(before, status=200)
        raise with_existing(api, spec.name, error) from None
    if task_id not in api.face.catalog.tasks:
        return json_answer(relayed_row(api, task_id, spec, applied), status=202)
    return json_answer(shape_of(api, api.face.catalog.tasks[task_id], explain=False), status=201)


def relayed_row(api: Api, task_id: TaskId, spec: TaskSpec, applied: Applied) -> Shape:
    """The row of a task that another node has taken to the leader, which this one does not see yet."""
    by = api.face.catalog.nodes.get(NodeId(applied.relayed_by))
    task = Task(task_id, spec, Desired.RUNNING, applied.index, time.time())
    way = f"by way of {by.name if by is not None else applied.relayed_by or 'another node'}"
    return task_object(task, None, None, f"submitted {way}: the node asked is cut off from the leader and does not see it yet")


def submitted_before(api: Api, task_id: TaskId, spec: TaskSpec) -> Shape | None:
    """The row of the task that this very request made, if it did."""
    task = api.face.catalog.tasks.get(task_id)
    if task is None:
        return None
    if not task.spec.asks_same(spec):
        raise id_used(task)
    return shape_of(api, task, explain=False)


def id_used(task: Task) -> Conflict:
    """The request id has made this task, and now asks for another one."""
    return Conflict(
        f"this request id was used for another task: '{task.spec.name}' ({task.spec.image}, id {task.id[:12]})",
        cause="the one asked for here is another", hint="use another request id, or none, for another task",
    )  # fmt: skip


async def with_registry_auth(api: Api, spec: TaskSpec, auth: dict[str, Any] | None) -> TaskSpec:
    """The spec with the caller's credentials sealed."""
    if not auth:
        return spec
    allowed = ("username", "password", "identitytoken", "serveraddress", "email", "registrytoken")
    if not all(key in allowed and isinstance(value, str) for key, value in auth.items()):
        raise UsageError("bad registry_auth", cause=f"texts under {', '.join(allowed)} are expected")
    plain = json.dumps(auth).encode()
    if len(plain) > AUTH_BYTES_MAX:
        raise UsageError("bad registry_auth", cause=f"at most {AUTH_BYTES_MAX} bytes are accepted")
    return msgspec.structs.replace(spec, registry_auth=await api.face.seal_registry_auth(plain))


def with_existing(api: Api, name: str, error: Conflict) -> Conflict:
    """The same conflict, with the row of the task that has the name."""
    first = present_task(api.face.catalog, name)
    if first is not None and first.spec.name == name and not first.ended:
        error.existing = shape_of(api, first, explain=True)  # type: ignore[attr-defined]
    return error


async def get_task(api: Api, request: Request) -> Response:
    """GET /v1/tasks/{ref}: row, spec and history. With If-None-Match and ?wait_s=N: answers when it changed, or 304."""
    wait_s = read_number(request.query_params.get("wait_s", "0"), field="wait_s", low=0, high=WAIT_S_MAX)
    seen = request.headers.get("if-none-match", "")
    headers = await freshen(api, request)
    try:
        task_id = (await find_task(api.face, request.path_params["ref"])).id
    except NotFound:
        queued = find_queued(api, request.path_params["ref"])
        if queued is None:
            raise
        return json_answer(queued_detail(api, queued), headers=headers)
    deadline = trio.current_time() + wait_s
    while True:
        content, tag = detail_of(api, task_id)
        left_s = deadline - trio.current_time()
        if tag != seen:
            return Response(content, 200, {**headers, "etag": tag}, media_type="application/json")
        if left_s <= 0 or api.stop.is_set():
            return Response(b"", 304, {"etag": tag})
        # Why a task waits also changes with gossip, which no index tells of: so look again each second.
        with trio.move_on_after(min(left_s, 1.0)):
            await api.face.wait_applied(api.face.consensus().applied_index + 1)


def queued_detail(api: Api, record: QueuedSubmit) -> Shape:
    """As of a task that has no history yet."""
    task = Task(record.task_id, record.spec, Desired.RUNNING, 0, record.queued_utc)
    return task_detail(task, None, api.face.catalog.nodes, "") | queued_row(api, record)


def detail_of(api: Api, task_id: TaskId) -> tuple[bytes, str]:
    """The encoded detail, and a tag that changes when it does."""
    catalog = api.face.catalog
    task = catalog.tasks.get(task_id)
    if task is None:
        raise NotFound(f"there is no task '{task_id}'", cause="it was removed")
    assignment = current_assignment(catalog, task)
    explained = api.face.explain(task_id).summary if task_phase(task, assignment) == PENDING else ""
    silent = silent_nodes(api.face).get(assignment.node_id, "") if assignment is not None else ""
    content = msgspec.json.encode(task_detail(task, assignment, catalog.nodes, explained, silent=silent))
    return content, f'"{zlib.crc32(content):08x}"'


async def stop_task(api: Api, request: Request) -> Response:
    """POST /v1/tasks/{ref}/stop {reason?}: the row, once the wish is in the log. Stopping a stopped task changes nothing."""
    body = await read_json(request)
    check_fields(body, {"reason": str})
    task = await find_logged(api, request.path_params["ref"])
    if not task.ended:
        command = StopTask(task.id, str(body.get("reason", ""))[:500])
        await api.face.submit(command, request_id=request_id_of(request), timeout_s=SUBMIT_S_MAX)
    return json_answer(shape_of(api, api.face.catalog.tasks.get(task.id, task), explain=False))


async def remove_task(api: Api, request: Request) -> Response:
    """DELETE /v1/tasks/{ref}?force=1: forget it: 204. With force it is stopped first: 202 with the row, and it is forgotten as
    soon as its container is gone."""
    await read_body(request)
    force = request.query_params.get("force") in ("1", "true")
    task = await find_logged(api, request.path_params["ref"])
    if not task.ended and not force:
        raise Conflict(
            f"task '{task.spec.name}' has not ended", cause=f"it is {shape_of(api, task, explain=False)['phase']}",
            hint=f"stop it first, or: swarm task rm -f {task.spec.name}",
        )  # fmt: skip
    command = RemoveTask(task.id, force)
    await api.face.submit(command, request_id=request_id_of(request), timeout_s=SUBMIT_S_MAX)
    left = api.face.catalog.tasks.get(task.id)
    return Response(status_code=204) if left is None else json_answer(shape_of(api, left, explain=False), status=202)


async def explain_task(api: Api, request: Request) -> Response:
    """GET /v1/tasks/{ref}/explain: why it waits, for each node."""
    headers = await freshen(api, request)
    task = await find_logged(api, request.path_params["ref"])
    explanation = api.face.explain(task.id)
    nodes = api.face.catalog.nodes
    rows = [
        {"node": nodes[node_id].name if node_id in nodes else node_id, "node_id": node_id, "reason": reason}
        for node_id, reason in explanation.nodes
    ]
    return json_answer({"id": task.id, "name": task.spec.name, "summary": explanation.summary, "nodes": rows}, headers=headers)


async def task_logs(api: Api, request: Request) -> Response:
    """GET /v1/tasks/{ref}/logs?follow=1&tail=N&since_utc=T&format=plain|events: what its container writes, from any node."""
    query = request.query_params
    follow = query.get("follow") in ("1", "true")
    tail = int(read_number(query["tail"], field="tail", low=0, high=1e9)) if "tail" in query else None
    since_utc = read_number(query.get("since_utc", "0"), field="since_utc", low=0, high=1e12)
    as_events = query.get("format") == "events" or SSE in request.headers.get("accept", "")
    if query.get("format") not in (None, "plain", "events"):
        raise UsageError("bad value for 'format'", cause="plain or events is expected")
    task = await find_logged(api, request.path_params["ref"])
    if not task.assignment and not follow:
        raise NotFound(
            f"task '{task.spec.name}' has no output", cause="it was not placed on a node yet",
            hint=f"swarm task inspect {task.spec.name} says why",
        )  # fmt: skip
    source = api.face.logs(task.id, follow=follow, tail=tail, since_utc=since_utc)
    if as_events:
        return Streamed(api, _log_events(source), media_type=SSE)
    return Streamed(api, _log_bytes(source), media_type="application/octet-stream")


async def _log_bytes(source: AsyncIterator[LogChunk]) -> AsyncGenerator[bytes, None]:
    async with aclosing(cast(AsyncGenerator[LogChunk, None], source)) as chunks:
        async for chunk in chunks:
            yield chunk.data


async def _log_events(source: AsyncIterator[LogChunk]) -> AsyncGenerator[bytes, None]:
    """Chunks as events named after their stream, in base64; an error at the end as an event of its own."""
    try:
        async with aclosing(cast(AsyncGenerator[LogChunk, None], source)) as chunks:
            async for chunk in chunks:
                yield sse(chunk.stream, base64.b64encode(chunk.data).decode())
    except OperatorError as error:
        yield sse("error", {"error": error.message, "cause": error.cause, "hint": error.hint, "code": error.code})
    except PeerError as error:
        yield sse("error", {"error": f"the logs broke off: {error}", "cause": "", "hint": "try again", "code": "unavailable"})
    else:
        yield sse("end", {})
