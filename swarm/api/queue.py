"""`/v1/queue`: tasks that the node asked keeps until there is a leader. Each node knows its own only."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import Api, json_answer
from swarm.api.lookup import find_task
from swarm.errors import NoMember, NotFound
from swarm.model.command import Submit
from swarm.model.ids import RequestId
from swarm.model.phase import Desired
from swarm.model.queued import QueuedSubmit
from swarm.model.task import Task
from swarm.schema.quantities import shown
from swarm.schema.shapes import Shape, task_object

QUEUED = "queued"
"""Shown as the phase of a task that is not in the log yet."""
NOT_SUBMITTED = "not submitted"
"""Shown as the phase of one that will not be: refused, or too old."""
UNQUEUED_KEPT = 64
"""Rows taken out whose request ids are remembered: this is not in the log, and an answer may be lost on its way."""


def queued_row(api: Api, record: QueuedSubmit) -> Shape:
    """The row of a task, with what only a queued one has."""
    own = api.face.catalog.nodes.get(api.face.node_id)
    reason = record.ended or f"kept on {own.name if own is not None else 'this node'} until there is a leader"
    if record.maybe_done and not record.ended:
        reason += "; an earlier attempt may have been carried out"
    task = Task(record.task_id, record.spec, Desired.RUNNING, 0, record.queued_utc)
    return task_object(task, None, None, reason) | {
        "phase": NOT_SUBMITTED if record.ended else QUEUED,
        "ended": bool(record.ended),
        "request_id": record.request_id,
        "expires_utc": record.expires_utc,
        "maybe_done": record.maybe_done,
    }


def waiting_rows(api: Api) -> list[Shape]:
    """Those that wait and are not in the catalog here."""
    tasks = api.face.catalog.tasks
    return [queued_row(api, each) for each in api.face.queued() if not each.ended and each.task_id not in tasks]


def find_queued(api: Api, reference: str) -> QueuedSubmit | None:
    """By name, id or its beginning, request id; what has ended too."""
    for record in api.face.queued():
        if reference in (record.spec.name, record.task_id, record.request_id) or (
            len(reference) >= 4 and record.task_id.startswith(reference)
        ):
            return record
    return None


async def find_logged(api: Api, reference: str) -> Task:
    """As `find_task`. Raises `NotFound` that names the queue when that is where it is."""
    try:
        return await find_task(api.face, reference)
    except NotFound:
        record = find_queued(api, reference)
        if record is None:
            raise
        raise NotFound(
            f"task {shown(reference)} is {NOT_SUBMITTED if record.ended else QUEUED}: it is not in the log",
            hint=f"to take it out of this node's queue: swarm task queue rm {record.spec.name}",
        ) from None


async def keep(api: Api, submit: Submit, request_id: RequestId, *, maybe_done: bool) -> Response:
    """202 with the row of a task that is queued here from now on. Raises `NoMember` where no leader will ever be heard."""
    if api.face.removed():
        cause, hint = "it hears no leader again", "leave it with a member (--addr)"
        raise NoMember("cannot queue it here: this node was removed from the cluster", cause=cause, hint=hint)
    record = await api.face.queue(request_id, submit.task_id, submit.spec, maybe_done=maybe_done)
    return json_answer(queued_row(api, record), status=202)


async def list_queue(api: Api, request: Request) -> Response:
    """GET /v1/queue: the tasks kept on the node asked, oldest first, with those that could not be submitted."""
    return json_answer([queued_row(api, record) for record in api.face.queued()])


async def remove_queued(api: Api, request: Request) -> Response:
    """DELETE /v1/queue/{ref}: the row of what was taken out. With `maybe_done` an earlier attempt may have been carried out."""
    request_id = request.headers.get("request-id", "")
    row = api.unqueued.get(request_id)
    if row is None:
        row = queued_row(api, await api.face.unqueue(request.path_params["ref"]))
        if request_id:
            api.unqueued[request_id] = row
            while len(api.unqueued) > UNQUEUED_KEPT:
                del api.unqueued[next(iter(api.unqueued))]
    return json_answer(row)
