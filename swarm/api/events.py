"""`/v1/events`: what the log decided, numbered by index so that a stream resumes where it broke off; and what gossip sees here.

A page (JSON) or a stream (server-sent events). A stream's `id` is a log index, given with the last event of its entry only: who
resumes after it misses nothing and gets nothing twice. Gossip's events are this node's own observations: they carry no id and no
index, and stand among the log's by time. Who resumes after an index gets those again that came after that entry.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, Iterable, Iterator

import trio
from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import Api, freshen, json_answer
from swarm.api.streamed import SSE, Streamed, sse
from swarm.model.liveness import StatusChange
from swarm.model.outcome import Event
from swarm.schema.request import read_number
from swarm.schema.shapes import change_object, event_object

PAGE_EVENTS_MAX = 10_000
LOOK_S = 0.5
"""How often a stream looks at gossip's history, which has no index to wait for."""

Told = Event | StatusChange


async def get_events(api: Api, request: Request) -> Response:
    """GET /v1/events?since=INDEX&tail=N&task=ID&node=ID&members=0&follow=1 (or Accept: text/event-stream; Last-Event-ID
    resumes). Log events have an index; what gossip sees here (left out with members=0) has none."""
    query = request.query_params
    follow = query.get("follow") in ("1", "true") or SSE in request.headers.get("accept", "")
    last = request.headers.get("last-event-id") or query.get("since", "0")
    since = int(read_number(last, field="since", low=0, high=1e15))
    tail = int(read_number(query.get("tail", str(PAGE_EVENTS_MAX)), field="tail", low=0, high=PAGE_EVENTS_MAX))
    chosen = Chosen(api, query.get("task") or query.get("node") or "", query.get("members") not in ("0", "false"))
    headers = await freshen(api, request)
    told = chosen.first(since, tail)
    if not follow:
        return json_answer([chosen.shape(each) for each in told], headers=headers)
    return Streamed(api, _stream(api, chosen, told), media_type=SSE, headers=headers)


class Chosen:
    """What one reader wants of the two sources, and how far it has got in each."""

    def __init__(self, api: Api, subject: str, with_members: bool) -> None:
        self._face = api.face
        self._subject = subject
        self._with_members = with_members
        self._name = next((n.name for n in [api.face.catalog.nodes.get(api.face.node_id)] if n is not None), api.face.node_id)
        self.cursor = 0
        """Log events up to this index were given."""
        self._number = 0
        self.complete = True

    def first(self, since: int, tail: int) -> list[Told]:
        """Where a reader begins: what there is after `since`, the last `tail` of it."""
        self.cursor = since
        after_utc = self._time_of(since) if since else 0.0
        told = [each for each in self.more() if isinstance(each, Event) or each.time_utc > after_utc]
        self.cursor = min(self.cursor, self._face.consensus().applied_index)  # an index that is yet to come is no place to wait
        return told[max(len(told) - tail, 0) :]

    def more(self) -> list[Told]:
        """What came since the last call, merged by time; the log's events keep their order."""
        page = self._face.events(self.cursor)
        self.complete = page.complete
        # At least what was waited for: an entry may have no events, and must not be waited for again.
        self.cursor = max(self.cursor, page.last_index, self._face.consensus().applied_index if not page.events else 0)
        changes = self._face.status_changes(self._number) if self._with_members else ()
        if changes:
            self._number = changes[-1].number
        log: Iterator[Told] = (event for event in page.events if not self._subject or self._subject in event.subjects)
        seen: Iterator[Told] = (change for change in changes if self._subject in ("", change.subject))
        return list(heapq.merge(log, seen, key=_time))

    def shape(self, told: Told) -> dict[str, object]:
        """As JSON."""
        return event_object(told) if isinstance(told, Event) else change_object(told, self._name)

    def _time_of(self, index: int) -> float:
        """When the newest event at or before this index was; 0 when it is not kept any more. O(events kept)."""
        return max((event.time_utc for event in self._face.events(0).events if event.index <= index), default=0.0)


def _time(told: Told) -> float:
    return told.time_utc


async def _stream(api: Api, chosen: Chosen, first: list[Told]) -> AsyncGenerator[bytes, None]:
    """`log` events, `member` events, and `gap` when older events than are kept were asked for."""
    if not chosen.complete:
        yield sse("gap", {"text": "older events are gone; list again"})
    for chunk in _chunks(chosen, first):
        yield chunk
    while True:
        with trio.move_on_after(LOOK_S):
            await api.face.wait_applied(chosen.cursor + 1)
        told = chosen.more()
        if not chosen.complete:
            yield sse("gap", {"text": "this reader was too slow; list again"})
        for chunk in _chunks(chosen, told):
            yield chunk


def _chunks(chosen: Chosen, told: Iterable[Told]) -> list[bytes]:
    """Events as chunks, the id on the last log event of each index."""
    listed = list(told)
    last_of = {each.index: place for place, each in enumerate(listed) if isinstance(each, Event)}
    return [
        sse("log", chosen.shape(each), event_id=each.index if last_of[each.index] == place else None)
        if isinstance(each, Event)
        else sse("member", chosen.shape(each))
        for place, each in enumerate(listed)
    ]
