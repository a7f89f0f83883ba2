"""`/v1/history`, `/v1/state`, `/v1/diff`: the past, from this node's own archive.

A node answers from what it has kept itself; `kept` in every answer says what that is. Another node may have kept more.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from swarm.api.calls import Api, freshen, json_answer
from swarm.api.lookup import find_node, find_task
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
    about, unknown = await _about(api, query.get("about", ""))
    question = Question(
        "history",
        about=about,
        since=_moment(query.get("since", "")),
        before=int(read_number(query.get("before", "0"), field="before", low=0, high=1e15)),
        limit=_limit(query.get("limit", "100"), ROWS_MAX),
        removed={str(node_id): index for node_id, index in api.face.catalog.removed_nodes.items()},
    )
    found: dict[str, Any] = msgspec.json.decode(await api.face.past(question))
    if unknown is not None and not found["rows"]:
        await _refuse_unknown(api, about, unknown)
    nodes = api.face.catalog.nodes
    for row in found["rows"]:
        node = nodes.get(NodeId(row["by_node_id"] or ""))
        row["by_node"] = node.name if node is not None else row.get("by_node") or row["by_node_id"]
    return json_answer(found, headers=headers)


async def get_state(api: Api, request: Request) -> Response:
    """GET /v1/state?at=TIME or ?index=N (&about=REF&limit=N): tasks and nodes as the log had them then."""
    headers = await freshen(api, request)
    query = request.query_params
    if ("at" in query) == ("index" in query):
        which = "which state is said twice" if "at" in query else "which state is not said"
        raise UsageError(which, cause="one of 'at' and 'index' is expected")
    about, _ = await _about(api, query.get("about", ""))
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


async def _about(api: Api, reference: str) -> tuple[tuple[str, ...], NotFound | None]:
    """What a reference can mean: itself (a name, an id, or the beginning of one), and the ids of the task and of the node that it
    means now. With the error for a reference that now means nothing; it may have meant something once."""
    if not reference:
        return (), None
    if len(reference) > REFERENCE_CHARS_MAX:
        raise UsageError("bad value for 'about'", cause=f"at most {REFERENCE_CHARS_MAX} characters are expected")
    about, unknown = [reference], None
    try:
        about.append((await find_task(api.face, reference)).id)
    except NotFound as error:
        unknown = error
    with suppress(NotFound):
        about.append(find_node(api.face, reference).id)
    return tuple(about), unknown if len(about) == 1 else None


async def _refuse_unknown(api: Api, about: tuple[str, ...], unknown: NotFound) -> None:
    """Raise `NotFound` where nothing of that name was ever in what is kept here. O(what is kept)."""
    found: dict[str, Any] = msgspec.json.decode(await api.face.past(Question("history", about=about, limit=1)))
    if not found["rows"]:
        first = found["kept"]["first_index"]
        kept = f", which begins at index {first}" if first not in (None, 1) else ""
        raise NotFound(
            unknown.message, cause=unknown.cause or f"nor is there one in the history of this node{kept}", hint=unknown.hint
        )
