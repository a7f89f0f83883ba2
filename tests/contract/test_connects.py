"""What the kernel of this host does with a connect, as `ports.Connects` tells it."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from swarm.adapters.connects import KernelConnects, outcome_of


async def test_a_listener_that_nobody_serves_is_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert await KernelConnects().try_connect(listener.getsockname(), 1.0) == "accepted"


async def test_a_port_without_a_listener_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    assert await KernelConnects().try_connect(address, 1.0) == "refused"


async def test_a_listener_whose_queue_is_full_is_silent_within_the_time_given() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        outcomes = []
        with trio.fail_after(10):
            for _ in range(4):
                attempt = socket.socket()
                attempt.setblocking(False)
                attempt.connect_ex(listener.getsockname())
                waiting.append(attempt)
                outcomes.append(await KernelConnects().try_connect(listener.getsockname(), 0.2))
        for attempt in waiting:
            attempt.close()
    assert outcomes[-1] == "silent"


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0, "accepted"),
        (errno.ECONNREFUSED, "refused"),
        (errno.ETIMEDOUT, "silent"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ENETUNREACH, "unreachable"),
        (errno.EMFILE, "unreachable"),
    ],
)
def test_errors_of_connect_are_told_apart(code: int, outcome: str) -> None:
    assert outcome_of(code) == outcome
