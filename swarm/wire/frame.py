"""Frames on a peer stream: four bytes of length, then one CBOR array whose first item says what it is.

    dialer                                    acceptor
      Hello  ------------------------------>             the first frame in each direction; nothing is
             <------------------------------  Hello      looked at before it has been checked
      Message, Call  ---------------------->
             <----------------------  Answer, Failure    in any order, matched by `call_id`

A stream carries the messages and calls of the side that dialed it; what comes back on it are answers.

Promise: `FrameReader` raises only `BadMessage`, holds at most one frame's bytes above what was fed, and never yields a frame
larger than its limit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from swarm.errors import BadMessage
from swarm.model.ids import ClusterId, NodeId
from swarm.wire import codec
from swarm.wire.limits import FRAME_BYTES_MAX

PROTOCOL_VERSION = 1
HELLO_BYTES_MAX = 1_024
"""The limit until the other side is known: it makes us hold no more than this."""
_LENGTH = struct.Struct(">I")


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Who speaks, for which cluster, in which life of its disk and after which recovery. `bulk` streams carry large calls.
    `has_log`: it holds some of its recovery's log; one that holds nothing is not followed into it."""

    cluster_id: ClusterId
    node_id: NodeId
    protocol_version: int
    store_generation: int
    recovery_generation: int
    bulk: bool = False
    has_log: bool = True


class Message(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """One way. Nothing comes back."""

    kind: str
    payload: bytes


class Call(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A question. The answering side gives up after `timeout_ms`, when nobody waits any more."""

    call_id: int
    kind: str
    timeout_ms: int
    payload: bytes


class Answer(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The answer to the call of that number on this stream."""

    call_id: int
    payload: bytes


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The call of that number failed. `family` is `operator` or `peer`; number 0 refuses the stream itself."""

    call_id: int
    family: str
    code: str
    message: str
    cause: str = ""
    hint: str = ""


Frame = Hello | Message | Call | Answer | Failure


def encode_frame(frame: Frame) -> bytes:
    """Length and bytes. A frame over the limit is a bug of the caller: `codec` errors of size are theirs to prevent."""
    body = codec.encode(frame)
    assert len(body) <= FRAME_BYTES_MAX, f"a frame of {len(body)} bytes"
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Bytes in, frames out. `limit` is the size allowed for one frame and may be raised once the peer is known."""

    def __init__(self, limit: int = HELLO_BYTES_MAX) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Take what was received. Interpretation happens in `frames`."""
        self._buffer += data

    def next_frame(self) -> Frame | None:
        """The next whole frame, or None until more is fed. Raises `BadMessage`, after which the reader is of no use."""
        body = self.next_body()
        return None if body is None else decode_frame_untrusted(body, self.limit)

    def next_body(self) -> bytes | None:
        """The next frame's bytes without its length, not yet decoded."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self.limit:
            raise BadMessage(f"a frame of {length} bytes, at most {self.limit} are accepted")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(memoryview(self._buffer)[_LENGTH.size : end])
        del self._buffer[:end]
        return body

    def frames(self) -> Iterator[Frame]:
        """Every whole frame that is there."""
        while (frame := self.next_frame()) is not None:
            yield frame


def decode_frame_untrusted(body: bytes, limit: int = FRAME_BYTES_MAX) -> Frame:
    """One frame from its bytes. Raises only `BadMessage`."""
    return codec.decode_tagged_untrusted(body, _FRAMES, bytes_max=limit)


_FRAMES: dict[int, type[Frame]] = {0: Hello, 1: Message, 2: Call, 3: Answer, 4: Failure}
