"""A testnet for one of membership's measurements: its own instance, gone at the end whatever ended it.

SIGTERM counts as an end like any other, so that a measurement that is told to stop removes its hosts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from testnet.bench.api import NodeApi, wait_settled
from testnet.cluster import Testnet
from testnet.engine import reserved_instance
from testnet.state import DAEMON

FOUNDED_S_MAX = 300.0
"""Thirty daemons that start at the same time on two busy cores need a minute: Python's start alone is a second each."""
SETTLED_S_MAX = 120.0
STATUS_S_MAX = 10.0


@contextmanager
def membership_net(
    hosts: int, *, images: tuple[str, ...] = (), one_engine: bool = False
) -> Iterator[tuple[Testnet, float]]:
    """A whole cluster at rest, founded by one equal line on every host; and how long that took, in seconds."""
    previous = signal.signal(signal.SIGTERM, _end)
    try:
        with (
            reserved_instance() as instance,
            Testnet.up(hosts, instance=instance, daemons=False, with_images=images, one_engine=one_engine) as net,
        ):
            began = time.monotonic()
            net.new_token()
            for number in net.hosts:
                net.start_daemon(number, net.daemon_arguments(number, together=True), wait=False)
            for number in net.hosts:
                init, daemon = net.init(number), net.required(number, DAEMON)
                net.host(number).wait_for_daemon(init, daemon, timeout_s=FOUNDED_S_MAX)
            wait_settled(net, timeout_s=FOUNDED_S_MAX)
            yield net, time.monotonic() - began
    finally:
        signal.signal(signal.SIGTERM, previous)


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def settle(net: Testnet) -> int:
    """Wait until the cluster is whole and at rest; the leader's number."""
    return wait_settled(net, timeout_s=SETTLED_S_MAX)


def counters(net: Testnet, number: int) -> dict[str, int]:
    """What a daemon has counted since its start."""
    with NodeApi(net, number, timeout_s=STATUS_S_MAX) as node:
        found: dict[str, Any] = node.checked("GET", "/v1/status")
    return dict(found["counters"])


def memory_kib(pid: int) -> int:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
