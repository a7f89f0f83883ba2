"""Cheap clients for many requests: one asyncio loop, standing connections, one request at a time on each.

`SubmitAsker` submits a task to a daemon (HTTP on its Unix socket), `PutAsker` puts a key into etcd (gRPC, which is what its own
clients speak). Both send bytes that are made ahead but for a number, and read no more of an answer than whether it is a success,
so that the client takes as little as possible of the cores that it shares with what it measures. A refusal is an answer; a
connection that broke is dialed again for the next request.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable

from hpack import Decoder

from testnet.bench.api import task_document

ANSWER_S_MAX = 20.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4


class Asker(asyncio.Protocol, ABC):
    """One standing connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()
        self.answer: asyncio.Future[bool] | None = None

    @abstractmethod
    async def dial(self) -> None:
        """Connect. Raises OSError."""

    @abstractmethod
    def request(self, name: str) -> bytes:
        """The bytes of one request."""

    @abstractmethod
    def feed(self) -> None:
        """Read `buffer`; set the answer when there is one."""

    async def ask(self, name: str) -> bool:
        """Whether it was accepted; False also when it was refused, the connection broke or nothing came in time."""
        try:
            if self.transport is None or self.transport.is_closing():
                self.buffer.clear()
                await self.dial()
            assert self.transport is not None
            self.answer = asyncio.get_running_loop().create_future()
            self.transport.write(self.request(name))
            async with asyncio.timeout(ANSWER_S_MAX):
                return await self.answer
        except (OSError, TimeoutError):
            self.close()
            return False

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def settle(self, accepted: bool) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(accepted)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.feed()

    def connection_lost(self, problem: Exception | None) -> None:
        self.transport = None
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionResetError("the connection broke"))


def document_of(name: str) -> bytes:
    """A task that is accepted and never started: no node has that name."""
    return json.dumps(task_document(name, "host", constraints=["node.hostname==nowhere"])).encode()


class SubmitAsker(Asker):
    """Submits tasks to one daemon. `body` makes the request's body from a name."""

    def __init__(self, socket_path: str, path: str = "/v1/tasks", body: Callable[[str], bytes] | None = None) -> None:
        super().__init__()
        self.socket_path = socket_path
        self.path = path
        self.body = body or self._one

    async def dial(self) -> None:
        await asyncio.get_running_loop().create_unix_connection(lambda: self, self.socket_path)

    _BEFORE, _AFTER = document_of("@").split(b"@")

    def _one(self, name: str) -> bytes:
        return b'{"task":%b%b%b}' % (self._BEFORE, name.encode(), self._AFTER)

    def request(self, name: str) -> bytes:
        body = self.body(name)
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: localhost\r\nrequest-id: {secrets.token_hex(16)}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def feed(self) -> None:
        head, mark, rest = self.buffer.partition(b"\r\n\r\n")
        if not mark:
            return
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if len(rest) >= length:
            del self.buffer[: len(head) + 4 + length]
            self.settle(lines[0].split()[1] in (b"200", b"201", b"202"))


def _text(value: bytes) -> bytes:
    """A string of HPACK, not compressed: shorter than 127 bytes."""
    assert len(value) < 127
    return bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def _field(number: int, content: bytes) -> bytes:
    """A field of protobuf that holds bytes."""
    size, length = b"", len(content)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


class PutAsker(Asker):
    """Puts the same document under the task's name, through one member. Just so much of HTTP/2 as that needs: headers that no
    table remembers, one stream at a time, and windows that an hour of short answers does not fill."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.host, self.port = host, port
        self.stream = 1
        self.decoder = Decoder()
        authority = f"{host}:{port}".encode()
        self.head = (
            b"\x83\x86\x04" + _text(b"/etcdserverpb.KV/Put") + b"\x01" + _text(authority)
            + b"\x0f\x10" + _text(b"application/grpc") + b"\x00" + _text(b"te") + _text(b"trailers")
        )  # fmt: skip

    async def dial(self) -> None:
        self.stream, self.decoder = 1, Decoder()
        await asyncio.get_running_loop().create_connection(lambda: self, self.host, self.port)
        assert self.transport is not None
        self.transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_WINDOW, 0, 0, (2**30).to_bytes(4)))

    def request(self, name: str) -> bytes:
        message = _field(1, name.encode()) + _field(2, document_of(name))
        data = b"\x00" + len(message).to_bytes(4) + message
        headers = _frame(_HEADERS, _END_HEADERS, self.stream, self.head)
        return headers + _frame(_DATA, _END_STREAM, self.stream, data)

    def feed(self) -> None:
        buffer = self.buffer
        while len(buffer) >= 9 and len(buffer) >= 9 + (length := int.from_bytes(buffer[:3])):
            kind, flags, stream = buffer[3], buffer[4], int.from_bytes(buffer[5:9])
            payload = bytes(buffer[9 : 9 + length])
            del buffer[: 9 + length]
            self._on_frame(kind, flags, stream, payload)

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self.transport is not None
        if kind == _HEADERS:
            fields = dict(self.decoder.decode(payload))
            if flags & _END_STREAM and stream == self.stream:
                self.stream = self.stream + 2
                self.settle(fields.get("grpc-status") == "0")
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            self.transport.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        elif kind in (_RESET, _GOAWAY):
            self.close()
            self.connection_lost(None)
