"""`/v1/events`: what the log decided, numbered by index so that a stream resumes where it broke off; and what gossip sees here.

A page (JSON) or a stream (server-sent events). A stream's `id` is a log index, given with the last event of its entry only: who
resumes after it misses nothing and gets nothing twice. Gossip's events carry no id: they are this node's own observations.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio
from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import Api, freshen, json_answer
from swarm.api.streamed import SSE, Streamed, sse
from swarm.model.ids import NodeId
from swarm.model.liveness import MemberStatus
from swarm.model.outcome import Event, EventPage
from swarm.schema.request import read_number
from swarm.schema.shapes import event_object

PAGE_EVENTS_MAX = 10_000
LOOK_S = 0.5
"""How often a stream looks at gossip's view, which has no index to wait for."""


async def get_events(api: Api, request: Request) -> Response:
    """GET /v1/events?since=INDEX&tail=N&task=ID&node=ID&follow=1 (or Accept: text/event-stream; Last-Event-ID resumes)."""
    query = request.query_params
    follow = query.get("follow") in ("1", "true") or SSE in request.headers.get("accept", "")
    last = request.headers.get("last-event-id") or query.get("since", "0")
    since = int(read_number(last, field="since", low=0, high=1e15))
    tail = int(read_number(query.get("tail", str(PAGE_EVENTS_MAX)), field="tail", low=0, high=PAGE_EVENTS_MAX))
    subject = query.get("task") or query.get("node") or ""
    headers = await freshen(api, request)
    page = api.face.events(since)
    chosen = [event for event in page.events if not subject or subject in event.subjects]
    chosen = chosen[max(len(chosen) - tail, 0) :]
    if not follow:
        return json_answer([event_object(event) for event in chosen], headers=headers)
    return Streamed(api, _stream(api, chosen, page, subject), media_type=SSE, headers=headers)


async def _stream(api: Api, first: list[Event], page: EventPage, subject: str) -> AsyncGenerator[bytes, None]:
    """`log` events, `member` events, and `gap` when older events than are kept were asked for."""
    if not page.complete:
        yield sse("gap", {"text": "older events are gone; list again"})
    for chunk in _numbered(first):
        yield chunk
    cursor, statuses = page.last_index, _statuses(api)
    while True:
        with trio.move_on_after(LOOK_S):
            await api.face.wait_applied(cursor + 1)
        page = api.face.events(cursor)
        if not page.complete:
            yield sse("gap", {"text": "this reader was too slow; list again"})
        for chunk in _numbered([event for event in page.events if not subject or subject in event.subjects]):
            yield chunk
        # At least what was waited for: an entry may have no events, and must not be waited for again.
        cursor = max(cursor, page.last_index, api.face.consensus().applied_index if not page.events else 0)
        seen = _statuses(api)
        for node_id, status in seen.items():
            if statuses.get(node_id) is not status and (not subject or subject == node_id):
                yield sse("member", _member_event(api, node_id, status))
        statuses = seen


def _numbered(events: list[Event]) -> list[bytes]:
    """Events as chunks, the id on the last of each index."""
    last_of = {event.index: place for place, event in enumerate(events)}
    return [
        sse("log", event_object(event), event_id=event.index if last_of[event.index] == place else None)
        for place, event in enumerate(events)
    ]


def _statuses(api: Api) -> dict[NodeId, MemberStatus]:
    return {node_id: member.status for node_id, member in api.face.members().items()}


def _member_event(api: Api, node_id: NodeId, status: MemberStatus) -> dict[str, object]:
    member = api.face.members()[node_id]
    text = f"{member.name} is {status.value}, as this node sees it" + (f": {member.evidence}" if member.evidence else "")
    return {"kind": "member.status", "node_id": node_id, "status": status.value, "text": text}
