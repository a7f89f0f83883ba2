"""`/v1/history`, `/v1/state`, `/v1/diff`: the past, from this node's own archive.

A node answers from what it has kept itself; `kept` in every answer says what that is. Another node may have kept more.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import Api, freshen, json_answer
from swarm.api.lookup import find_task
from swarm.errors import NotFound, UsageError
from swarm.model.archived import Moment, Question
from swarm.model.ids import NodeId
from swarm.schema.moments import read_moment
from swarm.schema.request import read_number

ROWS_MAX = 1_000
STATE_ROWS_MAX = 10_000
REFERENCE_CHARS_MAX = 128


async def get_history(api: Api, request: Request) -> Response:
    """GET /v1/history?about=REF&since=MOMENT&before=INDEX&limit=N: who changed what when, newest last: {rows, more, kept}. The
    newest rows that fit; `before` with the first row's index gives the page before."""
    headers = await freshen(api, request)
    query = request.query_params
    answer = await api.face.past(
        Question(
            "history",
            about=await _about(api, query.get("about", "")),
            since=_moment(query.get("since", "")),
            before=int(read_number(query.get("before", "0"), field="before", low=0, high=1e15)),
            limit=_limit(query.get("limit", "100"), ROWS_MAX),
        )
    )
    found: dict[str, Any] = msgspec.json.decode(answer)
    nodes = api.face.catalog.nodes
    for row in found["rows"]:
        node = nodes.get(NodeId(row["by_node_id"] or ""))
        row["by_node"] = node.name if node is not None else row["by_node_id"]
    return json_answer(found, headers=headers)


async def get_state(api: Api, request: Request) -> Response:
    """GET /v1/state?at=TIME or ?index=N (&about=REF&limit=N): tasks and nodes as the log had them then."""
    headers = await freshen(api, request)
    query = request.query_params
    if ("at" in query) == ("index" in query):
        raise UsageError("which state is not said", cause="one of 'at' and 'index' is expected")
    about = await _about(api, query.get("about", ""))
    at = _moment(query["at"] if "at" in query else query["index"])
    question = Question("state", at=at, about=about, limit=_state_limit(query))
    return _whole(await api.face.past(question), headers)


async def get_diff(api: Api, request: Request) -> Response:
    """GET /v1/diff?from=MOMENT&to=MOMENT (an index, a time, or now; &limit=N): what was added, removed, moved and changed."""
    headers = await freshen(api, request)
    query = request.query_params
    if not query.get("from"):
        raise UsageError("the beginning of the difference is missing", cause="'from' is expected")
    question = Question(
        "diff", at=_moment(query["from"]), to=_moment(query.get("to") or "now"), limit=_state_limit(query)
    )
    return _whole(await api.face.past(question), headers)


def _whole(answer: bytes, headers: dict[str, str]) -> Response:
    return Response(answer, 200, headers, media_type="application/json")


def _moment(text: str) -> Moment:
    return read_moment(text, now_utc=time.time(), local=False) if text else Moment()


def _limit(text: str, most: int) -> int:
    return int(read_number(text, field="limit", low=1, high=most))


def _state_limit(query: Any) -> int:
    return _limit(query.get("limit", str(STATE_ROWS_MAX)), STATE_ROWS_MAX)


async def _about(api: Api, reference: str) -> tuple[str, ...]:
    """What a reference can mean: itself (a name, an id, or the beginning of one), and the id of the task that it means now."""
    if not reference:
        return ()
    if len(reference) > REFERENCE_CHARS_MAX:
        raise UsageError("bad value for 'about'", cause=f"at most {REFERENCE_CHARS_MAX} characters are expected")
    try:
        return (reference, (await find_task(api.face, reference)).id)
    except NotFound:
        return (reference,)
