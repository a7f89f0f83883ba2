"""The API's listeners: the Unix socket and HTTPS, inside the node's nursery; `conversation.py` speaks HTTP on each connection.

Listening, limits and stopping are here: at most so many connections per listener, no write that a client can hold up for ever,
no connection that is silent for ever, no exception that leaves its connection.

Promises: when `serve` has started, the sockets accept. When `stop` is set, streams end at once, requests in flight get
`GRACE_S`, and the socket file is gone when it returns.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress
from functools import partial

import trio

from swarm.api.calls import LOCAL, ON_ALLOWED, Api
from swarm.api.conversation import Conversation
from swarm.api.face import ApiListeners
from swarm.api.guard import guard_connection
from swarm.api.routes import build_app
from swarm.errors import StartRefused

CONNECTIONS_MAX = 400
"""Per listener. A connection costs some 30 KiB. Beyond this the oldest gives way that showed no good token, or else the new one:
so nobody without a token can hold the API shut by holding connections open."""
WRITE_S_MAX = 30.0
"""A client that takes nothing for so long is gone."""
IDLE_S_MAX = 120.0
"""Neither a byte in nor one out for so long. Streams send a comment every ten seconds."""
HANDSHAKE_S_MAX = 10.0
LINGER_S = 0.25
"""After the client has closed its side: what was being answered may go out."""
GRACE_S = 2.0
SOCKET_MODE = 0o660
TURNS_AT_ONCE = 8


class Turns:
    """Who may work on what it received. Trio runs everything that can run in one pass, consensus among it: four hundred requests
    in one pass would hold a heartbeat up for longer than a lease lasts. So at most `TURNS_AT_ONCE` go on in a pass, in order."""

    def __init__(self) -> None:
        self._places = trio.CapacityLimiter(TURNS_AT_ONCE)

    async def take(self) -> None:
        """Wait for a turn. Two passes of the loop when nobody else waits."""
        async with self._places:
            await trio.lowlevel.checkpoint()


class BoundedStream(trio.abc.HalfCloseableStream):
    """A socket's stream whose writes end, whose silence is noticed, and whose input comes in turns."""

    def __init__(self, stream: trio.SocketStream, turns: Turns) -> None:
        self.turns = turns
        self.stream = stream
        self.socket = stream.socket
        self.last_active = trio.current_time()
        self.ended = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises `BrokenResourceError` when the other side takes nothing."""
        with trio.move_on_after(WRITE_S_MAX) as scope:
            await self.stream.send_all(data)
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self.stream)
            raise trio.BrokenResourceError(f"nothing was taken for {WRITE_S_MAX:g} s")
        self.last_active = trio.current_time()

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self.stream.receive_some(max_bytes)
        self.last_active = trio.current_time()
        if not data:
            self.ended.set()
        await self.turns.take()
        return data

    async def aclose(self) -> None:
        await self.stream.aclose()

    async def close_when_idle(self) -> None:
        """Ends by closing the stream."""
        while (quiet_s := trio.current_time() - self.last_active) < IDLE_S_MAX:
            with trio.move_on_after(IDLE_S_MAX - quiet_s):
                await self.ended.wait()
                break
        while self.ended.is_set() and (quiet_s := trio.current_time() - self.last_active) < LINGER_S:
            await trio.sleep(LINGER_S - quiet_s)
        await trio.aclose_forcefully(self.stream)


class Server:
    """Both listeners, one application."""

    def __init__(self, api: Api, listeners: ApiListeners) -> None:
        self.api = api
        self.listeners = listeners
        self.app = build_app(api)
        self.conversations: dict[trio.CancelScope, Conversation] = {}
        """The conversations there are."""
        self.open: dict[str, int] = {"local": 0, "tcp": 0}
        self.turns = Turns()
        self.strangers: dict[trio.CancelScope, None] = {}
        """Connections from the network on which no request was allowed yet, oldest first."""
        self.tcp_port = 0
        """The port in use; known once started."""

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `api.stop` is set. Started with the TCP port (0 when there is none). Raises `StartRefused`."""
        local = open_unix_socket(self.listeners.socket_path)
        try:
            served = [(local, True)]
            if self.listeners.tcp is not None:
                assert self.listeners.ssl_context is not None, "no plaintext listener exists"
                tcp = open_tcp_socket(*self.listeners.tcp)
                self.tcp_port = tcp.getsockname()[1]
                served.append((tcp, False))
            await self._serve(served, task_status)
        finally:
            local.close()
            with suppress(FileNotFoundError):
                os.unlink(self.listeners.socket_path)

    async def _serve(self, served: list[tuple[trio.socket.SocketType, bool]], task_status: trio.TaskStatus[int]) -> None:
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listening, is_local in served:
                    handler = partial(self._handle, is_local=is_local)
                    listener = trio.SocketListener(listening)
                    accepting.start_soon(partial(trio.serve_listeners, handler, [listener], handler_nursery=connections))
                task_status.started(self.tcp_port)
                await self.api.stop.wait()
                accepting.cancel_scope.cancel()
            for scope, conversation in self.conversations.items():
                if conversation.is_waiting:
                    scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + GRACE_S

    async def _handle(self, stream: trio.SocketStream, *, is_local: bool) -> None:
        """One connection, to its end."""
        key = "local" if is_local else "tcp"
        if self.open[key] >= CONNECTIONS_MAX:
            self.api.counters["api_connections_refused"] += 1
            if is_local or not self.strangers:
                await trio.aclose_forcefully(stream)
                return
            oldest = next(iter(self.strangers))
            del self.strangers[oldest]
            oldest.cancel()
        self.open[key] += 1
        self.api.counters["api_connections"] += 1
        scope = trio.CancelScope()
        if not is_local:
            self.strangers[scope] = None
        try:
            with scope:
                bounded = BoundedStream(stream, self.turns)
                await guard_connection(partial(self._converse, bounded, is_local, scope), self.api.counters)
        finally:
            self.strangers.pop(scope, None)
            self.open[key] -= 1
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async def _converse(self, bounded: BoundedStream, is_local: bool, scope: trio.CancelScope) -> None:
        stream: trio.abc.Stream = bounded
        if not is_local:
            assert self.listeners.ssl_context is not None
            stream = trio.SSLStream(bounded, self.listeners.ssl_context, server_side=True, https_compatible=True)
            with trio.fail_after(HANDSHAKE_S_MAX):
                await stream.do_handshake()
        more = {LOCAL: is_local, ON_ALLOWED: lambda: self.strangers.pop(scope, None)}
        conversation = Conversation(self.app, stream, more, self.api.stop.is_set, self.turns.take)
        async with trio.open_nursery() as nursery:
            self.conversations[nursery.cancel_scope] = conversation
            try:
                nursery.start_soon(self._end_when_idle, bounded, nursery.cancel_scope)
                await conversation.run()
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await stream.aclose()
                nursery.cancel_scope.cancel()
            finally:
                del self.conversations[nursery.cancel_scope]

    async def _end_when_idle(self, bounded: BoundedStream, scope: trio.CancelScope) -> None:
        await bounded.close_when_idle()
        scope.cancel()


def open_unix_socket(path: str) -> trio.socket.SocketType:
    """Bind and listen with mode 0660, in the place of a dead daemon's file. Raises `StartRefused`."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        _remove_dead_socket(path)
        mask = os.umask(0o777 & ~SOCKET_MODE)
        try:
            opened.bind(path)
        finally:
            os.umask(mask)
        opened.listen(128)
    except OSError as error:
        opened.close()
        reason = "the path is too long for a Unix socket" if "too long" in str(error) else error.strerror or str(error)
        raise StartRefused(f"cannot listen on {path}", cause=reason, hint="choose another place with --socket") from None
    except StartRefused:
        opened.close()
        raise
    opened.setblocking(False)
    return trio.socket.from_stdlib_socket(opened)


def _remove_dead_socket(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise StartRefused(f"cannot listen on {path}", cause="there is a file that is no socket", hint="use --socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except TimeoutError:
            pass
    hint = "swarm down ends it; or choose another place with --socket"
    raise StartRefused(f"cannot listen on {path}", cause="another daemon answers there", hint=hint)


def open_tcp_socket(host: str, port: int) -> trio.socket.SocketType:
    """Bind and listen. Raises `StartRefused` that names the address."""
    opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(128)
    except OSError as error:
        opened.close()
        hint = "end what uses the port, or choose another address with --listen"
        cause = "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise StartRefused(f"cannot serve the API on {host}:{port}", cause=cause, hint=hint) from None
    opened.setblocking(False)
    return trio.socket.from_stdlib_socket(opened)
