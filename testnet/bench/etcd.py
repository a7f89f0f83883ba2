"""Members of etcd beside the daemons: one on every host, in the same namespaces and on the same disk, with its default timings.

Debian's packages, unchanged: heartbeats of 100 ms, elections after 1,000 ms, every put synced before its answer. It speaks
without TLS here, between its members and to its clients, which our daemons never do: that is to its advantage.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Self

from testnet.bench.machine import said_by
from testnet.cluster import Testnet
from testnet.host import stop_gently
from testnet.layout import TestnetError
from testnet.processes import Process, wait_until

CLIENT_PORT, PEER_PORT = 2379, 2380
WHOLE_S_MAX = 60.0
ETCDCTL = ("env", "ETCDCTL_API=3", "etcdctl", "--dial-timeout=2s", "--command-timeout=3s")


@dataclass(slots=True)
class EtcdMembers:
    """The members on a testnet's hosts while the block runs; they are called as their hosts."""

    net: Testnet
    processes: dict[int, Process] = field(default_factory=dict)

    def __enter__(self) -> Self:
        for number in self.net.hosts:
            self.start(number)
        self.wait_whole()
        return self

    def __exit__(self, *details: object) -> None:
        for process in self.processes.values():
            process.kill()

    def start(self, number: int) -> None:
        """Start a host's member, on the data it has."""
        host = self.net.host(number)
        peer, client = f"http://{host.address}:{PEER_PORT}", f"http://{host.address}:{CLIENT_PORT}"
        cluster = ",".join(f"h{other}=http://{self.net.address(other)}:{PEER_PORT}" for other in self.net.hosts)
        command = [
            "etcd", "--name", host.name, "--data-dir", str(host.folder / "etcd"), "--logger", "zap",
            "--heartbeat-interval", "100", "--election-timeout", "1000",
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--initial-cluster", cluster, "--initial-cluster-state", "new", "--initial-cluster-token", self.net.layout.prefix,
        ]  # fmt: skip
        self.processes[number] = host.spawn(self.net.init(number), command, host.folder / "etcd.log")

    def stop(self, number: int) -> None:
        """SIGTERM a host's member, and wait for its end."""
        stop_gently(self.processes[number], timeout_s=30.0)

    def endpoint(self, number: int) -> tuple[str, int]:
        """Where a member's clients connect."""
        return self.net.address(number), CLIENT_PORT

    def leader(self) -> int | None:
        """The host whose member leads, if all members say the same."""
        found = {int(each["Status"]["leader"]): int(each["Status"]["header"]["member_id"]) for each in self._statuses()}
        if len(found) != 1:
            return None
        leader_id = next(iter(found))
        return next((number for number, member_id in self._member_ids().items() if member_id == leader_id), None)

    def move_leader(self, to: int) -> None:
        """Have a member lead."""
        leader = self.leader()
        if leader is None:
            raise TestnetError("etcd has no leader that could be moved")
        if leader != to:
            self._ctl(leader, "move-leader", f"{self._member_ids()[to]:x}")
            wait_until(lambda: self.leader() == to, timeout_s=WHOLE_S_MAX, what=f"etcd to be led by h{to}", interval_s=0.05)

    def wait_whole(self) -> None:
        """Wait until every member answers, has the same leader, and has applied what the others have."""

        def whole() -> bool:
            statuses = self._statuses()
            applied = {each["Status"].get("raftAppliedIndex", 0) for each in statuses}
            return len(statuses) == len(self.net.hosts) and self.leader() is not None and max(applied) - min(applied) <= 2

        wait_until(whole, timeout_s=WHOLE_S_MAX, what="etcd to be whole", interval_s=0.1)

    def _member_ids(self) -> dict[int, int]:
        """Host -> its member's id."""
        ids = {}
        for each in self._statuses():
            address = each["Endpoint"].split("//")[1].split(":")[0]
            ids[int(address.rpartition(".")[2]) - int(self.net.address(1).rpartition(".")[2]) + 1] = each["Status"]["header"][
                "member_id"
            ]
        return ids

    def _statuses(self) -> list[dict[str, Any]]:
        """What the members that answer say of themselves."""
        asked = self.net.living_hosts[0]
        ends = ",".join(f"http://{self.net.address(number)}:{CLIENT_PORT}" for number in self.net.living_hosts)
        done = self.net.run(asked, *ETCDCTL, f"--endpoints={ends}", "endpoint", "status", "-w", "json", timeout_s=15)
        try:
            found = json.loads(done.stdout)
        except ValueError:
            return []
        assert isinstance(found, list)
        return found

    def _ctl(self, number: int, *arguments: str) -> str:
        ends = f"--endpoints=http://{self.net.address(number)}:{CLIENT_PORT}"
        done = self.net.run(number, *ETCDCTL, ends, *arguments, timeout_s=15)
        if done.returncode:
            raise TestnetError(f"`etcdctl {' '.join(arguments)}` failed: {done.stderr.strip()[-300:]}")
        return done.stdout


def version() -> str:
    """What Debian's package calls it."""
    found = said_by("dpkg-query", "-W", "-f", "${Version}", "etcd-server")
    if not found:
        raise TestnetError("dpkg does not know etcd-server")
    return found
