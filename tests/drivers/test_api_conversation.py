"""HTTP on one connection: requests follow each other, bodies are read or dropped, and what breaks the rules ends it alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from starlette.types import Receive, Scope, Send

from swarm.api.conversation import AHEAD_BYTES_MAX, EVENTS_AT_ONCE, Conversation


class Application:
    """Answers with what it was asked, after reading the body or not."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []
        self.heard: list[str] = []
        self.leaving = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["path"] == "/stream":
            await self.stream(receive, send)
            return
        body = b""
        if scope["path"] != "/unread":
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    break
            self.heard.append(message["type"])
        self.bodies.append(body)
        said = b"%d bytes" % len(body)
        headers = [(b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": said})

    async def stream(self, receive: Receive, send: Send) -> None:
        """One piece, and then until the client leaves."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.leaving.set()
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def conversing(
    app: Application, stop: bool = False, turn: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[trio.StapledStream[Any, Any]]:
    """The client's end of a connection; the conversation must end when the block does."""
    client, server = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Conversation(app, server, {"extra": 1}, lambda: stop, turn or trio.lowlevel.checkpoint).run)
        yield client
        with trio.fail_after(5):
            await client.aclose()


async def told(client: trio.StapledStream[Any, Any], end: bytes) -> bytes:
    """Everything up to `end`."""
    said = b""
    with trio.fail_after(5):
        while not said.endswith(end):
            data = await client.receive_some()
            assert data, said
            said += data
    return said


def post(path: str, body: bytes, *more: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *more))
    return head.encode() + b"\r\n" + body


async def test_requests_sent_together_are_answered_in_order() -> None:
    app = Application()
    async with conversing(app) as client:
        await client.send_all(post("/a%20b?c=d", b"one") + post("/e", b"three"))
        said = await told(client, b"5 bytes")
    assert said.count(b"HTTP/1.1 200") == 2 and said.index(b"3 bytes") < said.index(b"5 bytes")
    assert (app.scopes[0]["path"], app.scopes[0]["query_string"], app.scopes[0]["extra"]) == ("/a b", b"c=d", 1)
    assert app.bodies == [b"one", b"three"]


async def test_a_body_nobody_reads_is_dropped_and_the_connection_goes_on() -> None:
    app = Application()
    async with conversing(app) as client:
        await client.send_all(post("/unread", b"x" * 1000))
        await told(client, b"0 bytes")
        await client.send_all(post("/read", b"four"))
        await told(client, b"4 bytes")


async def test_a_long_body_nobody_reads_ends_the_connection() -> None:
    app = Application()
    async with conversing(app) as client:
        await client.send_all(post("/unread", b"x" * (AHEAD_BYTES_MAX + 100_000)))
        await told(client, b"0 bytes")
        with trio.fail_after(5):
            await client.send_all(post("/read", b"four"))
    assert len(app.scopes) == 1


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    app = Application()
    async with conversing(app) as client:
        request = post("/read", b"four", "expect: 100-continue")
        await client.send_all(request[:-4])
        await told(client, b"100 Continue\r\n\r\n")
        await client.send_all(request[-4:])
        await told(client, b"4 bytes")


async def test_the_answer_to_head_has_no_body_and_the_next_one_has() -> None:
    app = Application()
    async with conversing(app) as client:
        await client.send_all(b"HEAD /read HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"0 bytes" not in await told(client, b"\r\n\r\n")
        await client.send_all(post("/read", b"four"))
        await told(client, b"4 bytes")


async def test_a_body_that_breaks_the_rules_is_told_the_application_as_the_client_leaving() -> None:
    app = Application()
    async with conversing(app) as client:
        await client.send_all(b"POST /read HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n")
        await told(client, b"0 bytes")
    assert app.heard == ["http.disconnect"]


@pytest.mark.parametrize("ending", ["closed", "too much"])
async def test_a_stream_learns_that_its_client_left_or_says_too_much(ending: str) -> None:
    app = Application()
    async with conversing(app) as client:
        await client.send_all(b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        await told(client, b"piece\r\n")
        if ending == "closed":
            await client.send_stream.aclose()
        else:
            await client.send_all(b"x" * (AHEAD_BYTES_MAX + 100_000))
        with trio.fail_after(5):
            await app.leaving.wait()


async def test_odd_bytes_are_told_400_and_no_application() -> None:
    app = Application()
    async with conversing(app) as client:
        await client.send_all(b"\x16\x03\x01\x02\x00 odd\r\n\r\n")
        assert b"HTTP/1.1 400" in await told(client, b"\r\n\r\n")
    assert app.scopes == []


async def test_no_request_is_begun_once_the_daemon_stops() -> None:
    app = Application()
    async with conversing(app, stop=True) as client:
        await client.send_all(post("/read", b"four"))
    assert app.scopes == []


async def test_small_chunks_and_pipelined_requests_wait_for_turns() -> None:
    app, turns = Application(), 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        await trio.lowlevel.checkpoint()

    async with conversing(app, turn=turn) as client:
        chunks = b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n"
        await client.send_all(b"POST /read HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunks)
        await told(client, b"1000 bytes")
        assert turns >= 1000 // EVENTS_AT_ONCE
        turns = 0
        await client.send_all(post("/read", b"four") * 20)
        await told(client, b"4 bytes" )
        while len(app.scopes) < 21:
            await trio.lowlevel.checkpoint()
    assert turns >= 20
