"""`/v1/tasks/batch`: thousands of tasks in one request, and `/v1/tasks/phases`: how far thousands of tasks are.

Documents are read and checked before anything is sent, in slices, so that no other request waits for them. Then parts of at most
`PART_ITEMS_MAX` tasks become one log entry each, several entries on their way at once: what an entry costs (a sync, a frame, a
forwarded call) is shared by its tasks. Part and task ids are made from the request id, so the same batch again is the same parts.

Promises kept here: a batch with a malformed document changes nothing; otherwise each task is taken or refused by itself, and the
answer says which; the same request id again takes nothing twice; bodies being read are bounded in number and size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import SUBMIT_S_MAX, Api, error_content, freshen, in_slices, joined, json_answer, read_body
from swarm.api.lookup import current_assignment
from swarm.api.tasks import default_name, id_used, request_id_of, task_id_of, with_registry_auth
from swarm.errors import Conflict, DiskFull, OperatorError, Overloaded, Unavailable, UnknownOutcome, UsageError
from swarm.model.command import Submit, SubmitMany
from swarm.model.ids import RequestId, TaskId
from swarm.model.outcome import Applied, refused_of_text
from swarm.model.task_phase import task_phase
from swarm.schema.document import build_spec, explain_at
from swarm.schema.request import check_fields, read_object_untrusted
from swarm.schema.shapes import Shape, task_reason
from swarm.wire.codec import encode

ITEMS_MAX = 5_000
BODY_BYTES_MAX = 4 * 1024 * 1024
BATCHES_MAX = 2
"""Batches one node takes at once: each may hold some 30 MiB while it is worked on."""
PART_ITEMS_MAX = 64
"""Applying one entry is one step of the loop, and must take less than 5 ms: a task takes some 40 us."""
PART_BYTES_MAX = 40 * 1024
"""Below what goes over a connection of its own between nodes."""
AUTH_BYTES = 4 * 1024
"""Counted for sealed credentials, whose real size depends on the members of the moment."""
PARTS_AT_ONCE = 16
PHASES_MAX = 100_000
PHASES_BYTES_MAX = 4 * 1024 * 1024
BAD_SHOWN_MAX = 10


class _Body(msgspec.Struct):
    tasks: list[msgspec.Raw]


class _Wanted(msgspec.Struct):
    ids: list[str]


@dataclass(slots=True)
class Item:
    """One task of a batch, and what became of it."""

    number: int
    submit: Submit
    auth: dict[str, Any] | None
    outcome: str = "unavailable"
    """submitted, repeated, refused; or not known to be either: unavailable, overloaded, unknown_outcome."""
    error: Shape = field(default_factory=dict)

    def row(self) -> Shape:
        """As the answer shows it."""
        shown: Shape = {"id": self.submit.task_id, "name": self.submit.spec.name, "outcome": self.outcome}
        return shown | self.error


async def submit_batch(api: Api, request: Request) -> Response:
    """POST /v1/tasks/batch {tasks: [{task, registry_auth?}]}: 200 with what became of each; the same Request-Id again takes
    nothing twice. Each task is taken or refused by itself; with a malformed one nothing is sent."""
    if api.batches >= BATCHES_MAX:
        raise Overloaded("other batches are being worked on here", hint="try again in a second, or ask another node")
    api.batches += 1
    try:
        request_id = request_id_of(request)
        items = await read_items(await read_body(request, bytes_max=BODY_BYTES_MAX), request_id)
        await seal_credentials(api, items)
        limiter = trio.CapacityLimiter(PARTS_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for number, part in enumerate(parts_of(items)):
                await limiter.acquire_on_behalf_of(number)
                nursery.start_soon(_carry_out, api, part, RequestId(f"{request_id}/{number}"), limiter, number)
        return await batch_answer(items)
    finally:
        api.batches -= 1


async def read_items(body: bytes, request_id: RequestId) -> list[Item]:
    """Every document checked. Raises `UsageError` that names the first bad ones by number; nothing was done."""
    try:
        raws = msgspec.json.decode(body, type=_Body).tasks
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError("cannot read the batch", cause=str(error), hint='send {"tasks": [{"task": {...}}, ...]}') from None
    if not 1 <= len(raws) <= ITEMS_MAX:
        raise UsageError(f"the batch has {len(raws)} tasks", cause=f"1 to {ITEMS_MAX} are accepted", hint="send several batches")
    items: list[Item] = []
    bad: list[OperatorError] = []
    names: dict[str, int] = {}
    number = -1
    async for raw in in_slices(raws):
        number += 1
        try:
            item = read_item(bytes(raw), number, request_id)
            first = names.setdefault(item.submit.spec.name, number)
            if first != number:
                raise UsageError(f"the name '{item.submit.spec.name}' is task {first}'s of this batch", hint="give each its own")
            items.append(item)
        except OperatorError as error:
            bad.append(explain_at(error, f"task {number}"))
    if bad:
        more = [error.message for error in bad[1:BAD_SHOWN_MAX]]
        cause = "; ".join(text for text in (bad[0].cause, *more) if text)
        raise UsageError(f"{len(bad)} of {len(raws)} tasks cannot be read: {bad[0].message}", cause=cause, hint=bad[0].hint)
    return items


def read_item(raw: bytes, number: int, request_id: RequestId) -> Item:
    """One element of the list. Task ids are counted from the request id."""
    found = read_object_untrusted(raw)
    check_fields(found, {"task": dict, "registry_auth": dict})
    task_id = task_id_of(RequestId(f"{request_id}/{number}"))
    document = found.get("task", {})
    spec = build_spec(document, name_default=default_name(document, task_id))
    return Item(number, Submit(task_id, spec), found.get("registry_auth"))


async def seal_credentials(api: Api, items: Sequence[Item]) -> None:
    """The callers' credentials into the specs; equal ones are sealed once."""
    sealed: dict[bytes, bytes] = {}
    for item in items:
        if item.auth:
            key = encode(item.auth)
            if key not in sealed:
                sealed[key] = (await with_registry_auth(api, item.submit.spec, item.auth)).registry_auth
            spec = msgspec.structs.replace(item.submit.spec, registry_auth=sealed[key])
            item.submit = Submit(item.submit.task_id, spec)


def parts_of(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Runs of items that become one entry each; the same for the same documents, whatever their credentials' sealed size."""
    part: list[Item] = []
    size = 0
    for item in items:
        plain = msgspec.structs.replace(item.submit.spec, registry_auth=b"") if item.auth else item.submit.spec
        own = len(encode(plain)) + (AUTH_BYTES if item.auth else 0)
        if part and (len(part) >= PART_ITEMS_MAX or size + own > PART_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(item)
        size += own
    if part:
        yield part


async def _carry_out(api: Api, part: list[Item], request_id: RequestId, limiter: trio.CapacityLimiter, number: int) -> None:
    command = SubmitMany(tuple(item.submit for item in part))
    try:
        applied = await api.face.submit(command, request_id=request_id, timeout_s=SUBMIT_S_MAX)
    except OperatorError as error:
        settle_failed(api, part, error)
    else:
        settle(part, applied)
    finally:
        limiter.release_on_behalf_of(number)


def settle(part: Sequence[Item], applied: Applied) -> None:
    """The outcomes of one applied entry."""
    codes = refused_of_text(applied.value)
    words = dict(applied.refused)
    for place, item in enumerate(part):
        if place not in codes:
            item.outcome = "repeated" if applied.repeated else "submitted"
            continue
        name = item.submit.spec.name
        item.outcome = "refused"
        rejected = words.get(place)
        said = rejected.to_error() if rejected is not None else Conflict(
            f"cannot submit task '{name}'", cause="it was refused when this request was first made", hint="make a new request"
        )
        item.error = error_content(said)


def settle_failed(api: Api, part: Sequence[Item], error: OperatorError) -> None:
    """The entry was refused or its outcome is not known. An entry is refused as a whole when its request id was used with other
    content: some tasks differ, or only their sealed credentials, which differ each time."""
    used = type(error) is Conflict
    for item in part:
        task = api.face.catalog.tasks.get(item.submit.task_id)
        if used and task is not None and task.spec.asks_same(item.submit.spec):
            item.outcome = "repeated"
        elif used:
            item.outcome = "refused"
            item.error = error_content(id_used(task) if task is not None else Conflict(
                "this request id was used for other tasks", cause="this batch is not the same",
                hint="use another request id, or none, for another batch"))  # fmt: skip
        else:
            undecided = isinstance(error, Unavailable | UnknownOutcome | Overloaded)
            item.outcome = error.code if undecided else "refused"
            item.error = error_content(error)


async def batch_answer(items: Sequence[Item]) -> Response:
    """200 when each is decided. Otherwise the first failure's status, or 504 when some were taken; rows all the same."""
    counts: dict[str, int] = {}
    for item in items:
        counts[item.outcome] = counts.get(item.outcome, 0) + 1
    rows = joined([msgspec.json.encode(item.row()) async for item in in_slices(items)])
    content: Shape = {"counts": counts, "tasks": msgspec.Raw(rows)}
    decided = sum(counts.get(outcome, 0) for outcome in ("submitted", "repeated", "refused"))
    if decided == len(items):
        return json_answer(content)
    first = next(item for item in items if item.outcome not in ("submitted", "repeated", "refused"))
    if len(counts) == 1 and first.outcome != UnknownOutcome.code:
        status = {kind.code: kind.http_status for kind in (Overloaded, DiskFull)}.get(first.outcome, Unavailable.http_status)
        return json_answer(first.error | content, status=status, headers={"retry-after": "1"})
    unknown = UnknownOutcome(
        f"{len(items) - decided} of {len(items)} tasks are not known to be submitted", cause=str(first.error["error"]),
        hint="send the same batch again with the same Request-Id: what was done is not done again",
    )  # fmt: skip
    return json_answer(error_content(unknown) | content, status=unknown.http_status)


async def get_phases(api: Api, request: Request) -> Response:
    """POST /v1/tasks/phases {ids}: how many of these tasks are in each phase, and up to 20 that failed, wait or are gone."""
    headers = await freshen(api, request)
    try:
        wanted = msgspec.json.decode(await read_body(request, bytes_max=PHASES_BYTES_MAX), type=_Wanted).ids
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError("cannot read the ids", cause=str(error), hint='send {"ids": [...]}') from None
    if len(wanted) > PHASES_MAX:
        raise UsageError(f"too many ids: {len(wanted)}", cause=f"at most {PHASES_MAX} are answered at once")
    counts: dict[str, int] = {}
    examples: dict[str, list[Shape]] = {}
    catalog = api.face.catalog
    async for task_id in in_slices(wanted):
        task = catalog.tasks.get(TaskId(task_id))
        assignment = current_assignment(catalog, task) if task is not None else None
        phase = task_phase(task, assignment) if task is not None else "gone"
        counts[phase] = counts.get(phase, 0) + 1
        shown = examples.setdefault(phase, [])
        if task is not None and phase not in ("running", "succeeded") and len(shown) < 20:
            shown.append({"id": task.id, "name": task.spec.name, "reason": _reason(api, task_id, shown) or
                          task_reason(task, assignment, "")})  # fmt: skip
    return json_answer({"counts": counts, "examples": {phase: rows for phase, rows in examples.items() if rows}}, headers=headers)


def _reason(api: Api, task_id: str, shown: Sequence[Shape]) -> str:
    """Why the first of a phase waits: one explanation tells of the others, which are mostly alike."""
    task = api.face.catalog.tasks[TaskId(task_id)]
    if shown or task.ended or task_phase(task, current_assignment(api.face.catalog, task)) != "pending":
        return ""
    return api.face.explain(TaskId(task_id)).summary
