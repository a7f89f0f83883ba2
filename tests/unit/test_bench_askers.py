"""The load clients know an accepted request from a refused one, whatever pieces the answer comes in; a pulse finds the gap."""

from __future__ import annotations

import asyncio

import pytest
from hpack import Encoder

from testnet.bench.askers import Asker, PutAsker, SubmitAsker
from testnet.bench.pulse import Asked, Pulse


class Transport(asyncio.Transport):
    """Remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += bytes(data)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...


def verdicts(asker: Asker, *answers: bytes, piece: int) -> list[bool]:
    """What an asker makes of answers that arrive in pieces, one request each."""

    async def converse() -> list[bool]:
        asker.connection_made(Transport())
        found = []
        for answer in answers:
            asking = asyncio.create_task(asker.ask("task-1"))
            await asyncio.sleep(0)
            for start in range(0, len(answer), piece):
                asker.data_received(answer[start : start + piece])
            found.append(await asking)
        return found

    return asyncio.run(converse())


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_submit_is_accepted_by_its_status_and_the_next_answer_begins_where_the_last_ended(piece: int) -> None:
    answers = [http(201, b'{"id":"1"}'), http(503, b"{}"), http(200, b"")]
    assert verdicts(SubmitAsker("/nowhere"), *answers, piece=piece) == [True, False, True]


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_put_is_accepted_by_the_status_in_its_trailers(piece: int) -> None:
    encoder = Encoder()
    answers = [
        frame(4, 0, 0, b"")
        + frame(1, 4, stream, encoder.encode([(":status", "200"), ("content-type", "application/grpc")]))
        + frame(0, 0, stream, b"\0" * 9)
        + frame(1, 5, stream, encoder.encode([("grpc-status", status)]))
        for stream, status in ((1, "0"), (3, "14"), (5, "0"))
    ]
    asker = PutAsker("127.0.0.1", 2379)
    assert verdicts(asker, *answers, piece=piece) == [True, False, True]
    assert isinstance(asker.transport, Transport)
    assert frame(4, 1, 0, b"") in asker.transport.data, "settings are acknowledged"


def test_a_pulse_counts_only_what_was_sent_after_the_moment() -> None:
    pulse = Pulse(lambda: SubmitAsker("/nowhere"), 0.1)
    pulse.accepted = [Asked(1.0, 1.1), Asked(1.9, 5.0), Asked(2.1, 3.5), Asked(3.6, 3.7)]
    assert pulse.accepted_after(2.0) == 3.5
    assert pulse.longest_gap_s(1.0, 4.0) == pytest.approx(2.4)
