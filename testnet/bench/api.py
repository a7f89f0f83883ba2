"""A client of one node: HTTP over its daemon's Unix socket, one connection that lasts, nothing between it and the daemon.

The measurements do not go through the CLI: the start of a Python process (some 80 ms) would hide what is measured.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import time
from typing import Any, Self

from testnet.bench.raw import COMMAND, IMAGE
from testnet.cluster import Testnet
from testnet.layout import TestnetError
from testnet.processes import wait_until

TIMEOUT_S = 30.0


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class NodeApi:
    """The API of one host's daemon, for one thread."""

    def __init__(self, net: Testnet, number: int, *, timeout_s: float = TIMEOUT_S) -> None:
        self.number = number
        self.connection = UnixConnection(net.daemon_socket(number), timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        self.connection.close()

    def ask(self, method: str, path: str, body: object = None, *, request_id: str = "") -> tuple[int, Any]:
        """(HTTP status, parsed answer). Raises OSError or HTTPException when the daemon does not answer."""
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Request-Id": request_id or secrets.token_hex(16), "Content-Type": "application/json"}
        try:
            self.connection.request(method, path, body=content, headers=headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
        return answer.status, json.loads(text) if text else None

    def checked(self, method: str, path: str, body: object = None) -> Any:
        """The parsed answer of a request that must succeed; TestnetError quotes the refusal."""
        status, content = self.ask(method, path, body)
        if status >= 300:
            raise TestnetError(f"{method} {path} on h{self.number} was answered {status}: {content}")
        return content

    def submit(self, document: dict[str, Any]) -> dict[str, Any]:
        found = self.checked("POST", "/v1/tasks", {"task": document})
        assert isinstance(found, dict)
        return found

    def nodes(self) -> list[dict[str, Any]]:
        found = self.checked("GET", "/v1/nodes")
        assert isinstance(found, list)
        return found

    def task(self, name: str) -> dict[str, Any]:
        found = self.checked("GET", f"/v1/tasks/{name}")
        assert isinstance(found, dict)
        return found

    def remove_task(self, name: str) -> None:
        self.checked("DELETE", f"/v1/tasks/{name}?force=1")


def task_document(name: str, network: str, **more: object) -> dict[str, Any]:
    """The same container that the raw engine starts, as a task; killed at once when it is to stop."""
    killed = {"stop_signal": "SIGKILL", "stop_grace_s": "1s"}
    return {"name": name, "image": IMAGE, "command": COMMAND, "network": network, **killed, **more}


def leader_of(rows: list[dict[str, Any]]) -> int | None:
    return next((int(row["name"][1:]) for row in rows if row["leader"]), None)


def settled(rows: list[dict[str, Any]], count: int) -> bool:
    """All alive with their engines, nobody judged or draining, one leader, all the voters that so many nodes have."""
    whole = [
        row for row in rows
        if row["status"] == "alive" and row["engine"] == "up" and row["verdict"] == "alive" and row["availability"] == "active"
    ]  # fmt: skip
    voters = sum(row["role"] == "voter" for row in rows)
    return len(whole) == count and leader_of(rows) is not None and voters == voters_of(count)


def voters_of(count: int) -> int:
    """How many voters a cluster of so many nodes comes to have."""
    return 1 if count < 3 else 3 if count < 7 else 5


def wait_settled(net: Testnet, *, timeout_s: float = 60.0) -> int:
    """Wait until every node sees the whole cluster at rest; the leader's number."""
    found: list[int] = []

    def agreed() -> bool:
        found.clear()
        for number in net.hosts:
            try:
                with NodeApi(net, number, timeout_s=5) as node:
                    rows = node.nodes()
            except (OSError, http.client.HTTPException, TestnetError):
                return False
            leader = leader_of(rows)
            if leader is None or not settled(rows, len(net.hosts)):
                return False
            found.append(leader)
        return len(set(found)) == 1

    wait_until(agreed, timeout_s=timeout_s, what="the cluster to be whole and at rest", interval_s=0.1)
    time.sleep(0.5)  # reports and votes that are still on their way are not to be measured
    return found[0]
