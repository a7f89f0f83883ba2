"""Random bytes to every port crash nothing, are counted, and disturb no work."""

from __future__ import annotations

from typing import Any

import pytest

from testnet.state import DAEMON
from tests.integration.live_cluster import Cluster, eventually

pytestmark = pytest.mark.testnet
# Noise, noise that begins like TLS, a length that promises far too much, half a request, and a request of nonsense.
SHOUT = """
import random, socket, sys
rng = random.Random(7)
address = sys.argv[1]
for port in (4747, 4748):
    for turn in range(40):
        noise = rng.randbytes(rng.choice((0, 1, 5, 64, 1400, 20000)))
        tls, much = b"\\x16\\x03\\x01\\x02\\x00\\x01\\x00", b"\\xff\\xff\\xff\\xff"
        starts = (b"", tls, much, b"GET /", b"GET / HTTP/1.1\\r\\nHost: \\0\\r\\n\\r\\n")
        try:
            with socket.create_connection((address, port), timeout=2) as connection:
                connection.sendall(rng.choice(starts) + noise)
                if turn % 2:
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(0.05)
                    connection.recv(100)
        except OSError:
            pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as shouter:
    for turn in range(400):
        shouter.sendto(rng.randbytes(rng.choice((0, 1, 12, 28, 29, 300, 1400, 1401, 9000))), (address, 4747))
"""
MUMBLE = """
import random, socket
rng = random.Random(8)
for turn in range(60):
    starts = (b"", b"GET ", b"POST /v1/tasks HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 9\\r\\n\\r\\n", b"\\x00")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.2)
        connection.connect("/run/swarm/swarm.sock")
        try:
            connection.sendall(rng.choice(starts) + rng.randbytes(rng.choice((0, 3, 9, 3000))))
            connection.recv(100)
        except OSError:
            pass
"""


def counted(cluster: Cluster, number: int) -> dict[str, int]:
    status: dict[str, Any] = cluster.json(number, "status")
    return dict(status["counters"])


def test_random_bytes_to_every_port_crash_nothing_and_are_counted(cluster: Cluster) -> None:
    cluster.three_workers()
    before = cluster.runs()
    daemons = {number: cluster.net.process(number, DAEMON) for number in cluster.net.hosts}
    earlier = {number: counted(cluster, number) for number in cluster.net.hosts}
    for number in cluster.net.hosts:
        source = cluster.others(number)[0]
        done = cluster.net.run(source, "python3", "-c", SHOUT, cluster.net.address(number), timeout_s=60)
        assert done.returncode == 0, done.stderr
        mumbled = cluster.net.run(number, "python3", "-c", MUMBLE, timeout_s=60)
        assert mumbled.returncode == 0, mumbled.stderr
    for number in cluster.net.hosts:
        daemon = daemons[number]
        assert daemon is not None
        assert daemon.alive(), f"the daemon of h{number} ended"
        wait_counted(cluster, number, earlier[number])
        assert "Traceback" not in cluster.net.host(number).daemon_log.read_text()
    cluster.wait_all_alive()
    cluster.submit("after")
    assert before < cluster.runs()


def wait_counted(cluster: Cluster, number: int, earlier: dict[str, int]) -> None:
    eventually(lambda: grown(earlier, counted(cluster, number)), f"drops to be counted on h{number}")


def grown(earlier: dict[str, int], later: dict[str, int]) -> bool:
    """Whether datagrams and connections of strangers were both counted as dropped."""
    more = {name for name, value in later.items() if value > earlier.get(name, 0)}
    return any("packet" in name for name in more) and any("stream" in name or "connection" in name for name in more)
