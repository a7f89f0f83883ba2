"""Answers that go on: server-sent events and logs. They end when the client leaves, the source ends, or the daemon stops.

The HTTP server waits for open responses when it stops, so each of these watches our own stop event. A chunk generator must not
hold a cancel scope across a yield.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from swarm.api.calls import Api, error_answer
from swarm.api.guard import guard_request
from swarm.errors import OperatorError, PeerError, Unavailable

SSE = "text/event-stream"
KEEPALIVE_S = 10.0
KEEPALIVE = b": still here\n\n"


class Streamed(Response):
    """A response whose body is a generator of bytes."""

    def __init__(self, api: Api, chunks: AsyncGenerator[bytes, None], *, media_type: str, headers: dict[str, str] | None = None):
        super().__init__(b"", 200, {**(headers or {}), "cache-control": "no-store"}, media_type=media_type)
        del self.headers["content-length"]
        self.api = api
        self.chunks = chunks
        self.refusal: OperatorError | None = None
        """Why there is nothing to send, found before anything was sent."""
        self.sending = trio.Lock()
        self.is_begun = False
        self.last_sent = trio.current_time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI side. A bug in the generator ends this answer and is counted; what cannot be begun is an error like others."""

        async def work() -> None:
            if scope["method"] != "HEAD":
                await self._stream(receive, send)

        if not await guard_request(work, self.api.counters, str(scope.get("path"))):
            return
        if self.refusal is not None:
            await error_answer(self.refusal)(scope, receive, send)
            return
        await self._begin(send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, send: Send) -> None:
        if not self.is_begun:
            self.is_begun = True
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

    async def _stream(self, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_stop, nursery.cancel_scope)
            nursery.start_soon(self._watch_client, receive, nursery.cancel_scope)
            if self.media_type == SSE:
                nursery.start_soon(self._keep_alive, send)
            await self._send_all(send)
            nursery.cancel_scope.cancel()

    async def _send_all(self, send: Send) -> None:
        try:
            async with aclosing(self.chunks) as chunks:
                async for chunk in chunks:
                    await self._send(send, chunk)
        except (OperatorError, PeerError) as error:
            if self.is_begun:
                raise
            unanswered = Unavailable("another node does not answer", cause=str(error), hint="try again, or ask another node")
            self.refusal = error if isinstance(error, OperatorError) else unanswered

    async def _send(self, send: Send, chunk: bytes) -> None:
        async with self.sending:
            self.last_sent = trio.current_time()
            await self._begin(send)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        """A comment whenever nothing was sent for a while, so that a client that is gone is found out."""
        while True:
            quiet_s = trio.current_time() - self.last_sent
            if quiet_s >= KEEPALIVE_S:
                await self._send(send, KEEPALIVE)
            await trio.sleep(max(KEEPALIVE_S - quiet_s, 0.1) if quiet_s < KEEPALIVE_S else KEEPALIVE_S)

    async def _watch_stop(self, scope: trio.CancelScope) -> None:
        await self.api.stop.wait()
        scope.cancel()

    async def _watch_client(self, receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


def sse(name: str, content: Any, *, event_id: int | None = None) -> bytes:
    """One server-sent event. `content` becomes one line of JSON."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {name}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
