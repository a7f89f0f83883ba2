"""One request: who may make it, how long it may take, how much it may send, and how every outcome becomes an answer.

A handler is a function (api, request) -> Response. `endpoint` puts around it, in this order: the guard against bugs, the
check of the caller, the time limit, and the translation of errors to JSON `{error, cause, hint, code}`.

Promise: every request gets one answer, and none of them ends the process.
"""

from __future__ import annotations

import hmac
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from swarm.api.face import NodeFace
from swarm.api.freshness import why_stale
from swarm.api.guard import ApiCounters, guard_request
from swarm.errors import OperatorError, Overloaded, PeerError, TooLarge, Unauthorized, Unavailable, UnknownOutcome, UsageError
from swarm.schema.apitoken import parse_api_token
from swarm.schema.request import read_object_untrusted

BODY_BYTES_MAX = 1024 * 1024
DROPPED_BYTES_MAX = 14 * 1024 * 1024
REQUEST_S_MAX = 30.0
"""A request that reads its body, commits a command and answers takes milliseconds; beyond this the outcome is unknown."""
SUBMIT_S_MAX = 20.0
"""Below `REQUEST_S_MAX`, so that the node's own answer about the outcome comes before the time limit's."""
FRESHEN_S_MAX = 1.0
RETRY_AFTER_S = "1"
SLICE_S = 0.003
"""No step of the loop may take more than 5 ms."""
ItemT = TypeVar("ItemT")
WRITES_MAX = 128
"""Requests that change something, answered at once: each may hold a body of `BODY_BYTES_MAX`. One more is refused, not queued."""
LOCAL = "swarm.local"
"""Scope key: the request came by the Unix socket, whose file mode is the check."""
ON_ALLOWED = "swarm.on_allowed"
"""Scope key: called when the caller's token was good; its connection is nobody's to close from then on."""


@dataclass(slots=True)
class Api:
    """What every handler has: the node, our own stop event, and what was counted."""

    face: NodeFace
    stop: trio.Event = field(default_factory=trio.Event)
    counters: Counter[str] = field(default_factory=ApiCounters)
    writes: int = 0
    """Requests that change something, being answered now."""
    batches: int = 0
    unqueued: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By request id: what was taken out of the queue last."""


Handler = Callable[[Api, Request], Awaitable[Response]]


class Broken(OperatorError):
    """A bug ended the request. Whether it was carried out is unknown."""

    code = "bug"
    http_status = 500


def endpoint(
    api: Api, handler: Handler, *, public: bool = False, local_only: bool = False, limit_s: float = REQUEST_S_MAX
) -> Callable[[Request], Awaitable[Response]]:
    """A Starlette endpoint around a handler."""

    async def run(request: Request) -> Response:
        answers: list[Response] = []

        async def work() -> None:
            answers.append(await answer(api, handler, request, public=public, local_only=local_only, limit_s=limit_s))

        api.counters["api_requests"] += 1
        if not await guard_request(work, api.counters, f"{request.method} {request.url.path}"):
            return error_answer(Broken("the request failed", cause="a bug in swarm", hint="the daemon's log has the details"))
        return answers[0]

    return run


async def answer(
    api: Api, handler: Handler, request: Request, *, public: bool, local_only: bool, limit_s: float
) -> Response:
    """Carry out one request; every error anyone can do something about becomes an answer."""
    try:
        if not public:
            check_caller(api, request, local_only=local_only)
        with trio.fail_after(limit_s), admitted(api, request):
            return await handler(api, request)
    except trio.TooSlowError:
        return error_answer(
            UnknownOutcome(
                f"no answer within {limit_s:g} s", cause="the request took too long",
                hint="a write may still be carried out; repeat it with the same Request-Id",
            )
        )  # fmt: skip
    except OperatorError as error:
        return error_answer(error)
    except PeerError as error:
        return error_answer(Unavailable(f"another node did not answer: {error}", hint="try again, or ask another node"))
    except ClientDisconnect:
        return Response(status_code=400)


@contextmanager
def admitted(api: Api, request: Request) -> Iterator[None]:
    """Counts a request that changes something while it is answered. Raises `Overloaded` when there are too many."""
    if request.method == "GET":
        yield
        return
    if api.writes >= WRITES_MAX:
        api.counters["api_overloaded"] += 1
        raise Overloaded(f"this node is answering {api.writes} writes", hint="try again in a second, or ask another node")
    api.writes += 1
    try:
        yield
    finally:
        api.writes -= 1


def check_caller(api: Api, request: Request, *, local_only: bool) -> None:
    """The Unix socket is trusted by its file mode; HTTPS needs an API token. Raises `Unauthorized`."""
    if request.scope.get(LOCAL):
        return
    if local_only:
        raise Unauthorized("this is answered on the node's Unix socket only", hint="run it on a member host")
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text:
        raise Unauthorized("an API token is needed", hint="make one on a member with: swarm token api")
    try:
        token = parse_api_token(text)
    except UsageError as error:
        raise Unauthorized(error.message, cause=error.cause, hint=error.hint) from None
    known = api.face.catalog.api_tokens.get(token.token_id)
    if known is None or not hmac.compare_digest(known.secret_sha256, token.secret_sha256):
        api.counters["api_tokens_refused"] += 1
        raise Unauthorized("the API token is not good here", cause="it was revoked, or belongs to another cluster")
    request.scope[ON_ALLOWED]()


async def read_body(request: Request, *, bytes_max: int = BODY_BYTES_MAX) -> bytes:
    """The whole body, at most `bytes_max`. What is beyond is read and dropped, so that the answer gets through."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size <= bytes_max:
            parts.append(part)
        elif size > 2 * bytes_max + DROPPED_BYTES_MAX:
            break
    if size > bytes_max:
        raise TooLarge("the request is too large", cause=f"at most {bytes_max} bytes are accepted")
    return b"".join(parts)


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object."""
    return read_object_untrusted(await read_body(request))


def json_answer(content: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON, encoded by msgspec; infinities must not reach it."""
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


async def in_slices(items: Iterable[ItemT]) -> AsyncGenerator[ItemT, None]:
    """The same items, with a pause for everybody else after every `SLICE_S` of work on them."""
    until = trio.current_time() + SLICE_S
    for item in items:
        yield item
        if trio.current_time() >= until:
            await trio.lowlevel.checkpoint()
            until = trio.current_time() + SLICE_S


def joined(rows: Iterable[bytes]) -> bytes:
    """A JSON list of encoded values."""
    return b"[" + b",".join(rows) + b"]"


def error_content(error: OperatorError) -> dict[str, Any]:
    """The shape of every error."""
    return {"error": error.message, "cause": error.cause, "hint": error.hint, "code": error.code}


def error_answer(error: OperatorError) -> Response:
    """An error as an answer; one that may pass says when to try again."""
    content = error_content(error)
    existing = getattr(error, "existing", None)
    if existing is not None:
        content["existing"] = existing
    headers = {"www-authenticate": "Bearer"} if error.http_status == 401 else {}
    if error.http_status in (429, 503):
        headers["retry-after"] = RETRY_AFTER_S
    return json_answer(content, status=error.http_status, headers=headers)


async def freshen(api: Api, request: Request) -> dict[str, str]:
    """Catch up with the leader before a read, unless told not to; headers that say how fresh the answer is. What no leader has
    confirmed carries its age, seconds since nothing was lacking here of what a leader had told, and why."""
    asked = is_stale(request)
    if asked:
        age_s, unconfirmed = api.face.consensus().state_age_s, True
    else:
        age_s = await api.face.freshen(FRESHEN_S_MAX)
        unconfirmed = age_s > 0
    if math.isinf(age_s) and api.face.catalog.time_utc:
        age_s = max(0.1, time.time() - api.face.catalog.time_utc)  # no leader since the start: the newest entry tells
    headers = {"swarm-index": str(api.face.consensus().applied_index)}
    if unconfirmed:
        headers["swarm-stale-s"] = "unknown" if math.isinf(age_s) else f"{age_s:.1f}"
        if why := why_stale(api.face, asked=asked):
            headers["swarm-stale-why"] = why
    return headers


def is_stale(request: Request) -> bool:
    """Whether the caller takes what this node knows, without asking the leader."""
    return request.query_params.get("stale") in ("1", "true")
