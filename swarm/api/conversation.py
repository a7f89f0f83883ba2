"""One connection's HTTP/1.1: requests one after another, each carried out in the task that read it; h11 knows the rules.

An answer leaves in one piece with its head unless it is streamed, and no task, channel or timer is made for a request: that
halves what a request costs (docs/decisions/0017-http.md). Time limits and silence are the server's to bound (`server.py`).

Promises kept here: each request, and each `EVENTS_AT_ONCE` pieces of one, wait for a turn, so that whoever sends many small ones
holds nobody else up; after a piece of an answer that was cut off nothing follows; what the other side sends beyond a bound ends
the connection; odd bytes are told 400 and nothing else happens.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import h11
import trio
from starlette.types import ASGIApp, Message

HEAD_BYTES_MAX = 16 * 1024
READ_BYTES = 64 * 1024
AHEAD_BYTES_MAX = 64 * 1024
"""What a client may send of its next requests while one is answered, and what is read of a body nobody wanted."""
EVENTS_AT_ONCE = 32
"""Parts of a request, of which a read can hold ten thousand at some 10 us each, before others have their turn."""
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class Conversation:
    """One connection. `more` is put into every request's scope; `is_stopping` says that no further request is to be begun; `turn`
    returns when it is this connection's turn to work."""

    def __init__(
        self,
        app: ASGIApp,
        stream: trio.abc.Stream,
        more: dict[str, Any],
        is_stopping: Callable[[], bool],
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        self.is_waiting = True
        """Whether no request has begun that is not answered."""
        self._app = app
        self._stream = stream
        self._more = more
        self._is_stopping = is_stopping
        self._turn = turn
        self._events = 0
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._is_gone = False

    async def run(self) -> None:
        """Until either side ends it. Raises what the application raises."""
        try:
            while not self._is_stopping():
                request = await self._next_event()
                if not isinstance(request, h11.Request):
                    return
                self.is_waiting = False
                await self._turn()
                await self._answer(request)
                if not await self._is_ready_for_more():
                    return
                self._http.start_next_cycle()
                self.is_waiting = True
        except h11.RemoteProtocolError as error:
            await self._refuse(error)

    async def _next_event(self) -> Any:
        """The next part of what the other side says. Raises `RemoteProtocolError`."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[], reason="Continue")))
            self._http.receive_data(await self._read())
        self._events += 1
        if self._events % EVENTS_AT_ONCE == 0:
            await self._turn()
        return event

    async def _read(self) -> bytes:
        """What has come; empty at the end, however it came about."""
        if self._is_gone:
            return b""
        try:
            return bytes(await self._stream.receive_some(READ_BYTES))
        except _GONE:
            self._is_gone = True
            return b""

    async def _write(self, data: bytes) -> None:
        """To a client that is gone nothing is written; the next read tells. A cancelled write leaves half a piece: nothing may
        follow it."""
        if self._is_gone:
            return
        try:
            await self._stream.send_all(data)
        except _GONE:
            self._is_gone = True
        except trio.Cancelled:
            self._is_gone = True
            raise

    async def _answer(self, request: h11.Request) -> None:
        path, _, query = request.target.partition(b"?")
        scope = {
            "type": "http", "asgi": _ASGI, "http_version": request.http_version.decode("ascii"),
            "method": request.method.decode("ascii"), "scheme": "http", "path": unquote(path.decode("ascii")), "raw_path": path,
            "query_string": query, "root_path": "", "headers": list(request.headers), "client": None, "server": None,
            "extensions": {}, **self._more,
        }  # fmt: skip
        answering = _Answering(self, is_bodiless=request.method == b"HEAD")
        await self._app(scope, answering.receive, answering.send)

    async def _is_ready_for_more(self) -> bool:
        """Whether another request may come; what is left of this one's body is dropped, within a bound."""
        http, left = self._http, AHEAD_BYTES_MAX
        if http.our_state is not h11.DONE or self._is_gone:
            return False
        while http.their_state is h11.SEND_BODY and left > 0 and not http.they_are_waiting_for_100_continue:
            event = await self._next_event()
            left -= len(event.data) if isinstance(event, h11.Data) else 0
        return http.their_state is h11.DONE

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Say what is wrong in a status alone, if nothing was said yet."""
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [(b"content-length", b"0"), (b"connection", b"close")]
            answer = h11.Response(status_code=error.error_status_hint, headers=headers)
            await self._write(self._http.send(answer) + self._http.send(h11.EndOfMessage()))

    async def wait_gone(self) -> None:
        """Return when the other side has left, or sends more than it may before it was answered."""
        ahead = len(self._http.trailing_data[0])
        while (data := await self._read()) and ahead <= AHEAD_BYTES_MAX:
            self._http.receive_data(data)
            ahead += len(data)
        self._is_gone = True


class _Answering:
    """The two ASGI callables of one request."""

    def __init__(self, conversation: Conversation, *, is_bodiless: bool) -> None:
        self._conversation = conversation
        self._http = conversation._http
        self._is_bodiless = is_bodiless
        self._body_ended = False
        self._head = b""

    async def receive(self) -> Message:
        """The body piece by piece, and after it the client's leaving; a body that breaks the rules counts as that."""
        try:
            if self._http.their_state is h11.SEND_BODY:
                event = await self._conversation._next_event()
                if isinstance(event, h11.Data):
                    return {"type": "http.request", "body": bytes(event.data), "more_body": True}
            elif self._body_ended or self._http.their_state is not h11.DONE:
                await self._conversation.wait_gone()
                return {"type": "http.disconnect"}
        except h11.RemoteProtocolError:
            return {"type": "http.disconnect"}
        self._body_ended = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        """The head waits for the first piece of the body."""
        if message["type"] == "http.response.start":
            status = message["status"]
            self._is_bodiless = self._is_bodiless or status in (204, 304)
            headers = [*message.get("headers", ()), (b"date", _date())]
            self._head = self._http.send(h11.Response(status_code=status, headers=headers)) or b""
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        data = self._head
        self._head = b""
        if body and not self._is_bodiless:
            data += self._http.send(h11.Data(data=body)) or b""
        if more:
            await self._conversation._write(data)
        else:
            await self._conversation._write(data + (self._http.send(h11.EndOfMessage()) or b""))


_DATE: list[Any] = [0, b""]


def _date() -> bytes:
    """The time as HTTP writes it; made once a second."""
    now = int(time.time())
    if _DATE[0] != now:
        _DATE[:] = [now, formatdate(now, usegmt=True).encode("ascii")]
    return bytes(_DATE[1])
