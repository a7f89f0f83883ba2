"""A host loses its power: how long until its work runs elsewhere, and until the next submit is accepted.

The clock starts right before the kill. That work runs is the word of the surviving engines (the observer); that a node is dead is
the leader's verdict in the log, by its entry's time. Between runs the host boots again and the cluster comes to rest.
"""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from testnet.bench.api import NodeApi, task_document, wait_settled
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.raw import fresh_name, start_many
from testnet.bench.submit import FAILED
from testnet.cluster import Testnet
from testnet.observer import Observer, boottime_s, wall_minus_boottime_s
from testnet.processes import wait_until

CONTAINERS = 10
REPLACED_S_MAX = 6.0
ACCEPTED_S_MAX = 2.0
GIVEN_UP_S = 60.0
RETRY_S = 0.01


class HostDeath:
    """Ten tasks on one host, the leader's or another; its power is cut."""

    def __init__(self, net: Testnet, *, leads: bool) -> None:
        self.net, self.leads = net, leads
        self.replaced = Figures(f"killed to all {CONTAINERS} running elsewhere", "s")
        self.dead = Figures("killed to confirmed dead", "s")
        self.raw = Figures(f"raw engines: start {CONTAINERS} on the two others, 4 at a time", "s")
        self.steps = {
            name: Figures(name, "s")
            for name in ("confirmed dead to the last one assigned", "last one assigned to the last start event")
        }

    def run(self, leader: int) -> None:
        follower, other = (number for number in self.net.hosts if number != leader)
        victim = leader if self.leads else other
        names = [fresh_name("moved") for _ in range(CONTAINERS)]
        try:
            with Observer(self.net) as observer, NodeApi(self.net, follower) as node:
                try:
                    place(node, victim, self.net.hosts, names)
                    wait_running(observer, names, [victim])
                    time.sleep(1.0)  # every report is in the log
                    self.kill(observer, node, victim, names)
                finally:
                    for name in names:
                        node.ask("DELETE", f"/v1/tasks/{name}?force=1")
            self.raw.add(start_many([self.net.engine(n) for n in self.net.living_hosts], CONTAINERS, network="host", parallel=4))
        finally:
            if not self.net.alive(victim):
                self.net.revive(victim)

    def kill(self, observer: Observer, node: NodeApi, victim: int, names: list[str]) -> None:
        killed_s, killed_utc = boottime_s(), time.time()
        self.net.kill(victim)
        others = [number for number in self.net.hosts if number != victim]
        wait_running(observer, names, others)
        starts = [min(seen.start_s for seen in observer.intervals(name) if seen.start_s > killed_s) for name in names]
        dead_utc = verdict_utc(node, victim, since_utc=killed_utc)
        assigned_utc = max(assignments_utc(node.task(name))[-1] for name in names)
        started_utc = max(starts) + wall_minus_boottime_s()
        self.replaced.add(max(starts) - killed_s)
        self.dead.add(dead_utc - killed_utc)
        for figures, seconds in zip(self.steps.values(), (assigned_utc - dead_utc, started_utc - assigned_utc), strict=True):
            figures.add(seconds)


def place(node: NodeApi, target: int, hosts: list[int], names: list[str]) -> None:
    """Submit tasks that may run anywhere, while all hosts but one take no new work; then open the others again."""
    others = [number for number in hosts if number != target]
    for number in others:
        node.checked("PATCH", f"/v1/nodes/h{number}", {"availability": "drain"})
    try:
        for name in names:
            node.submit(task_document(name, "host"))
        wait_until(
            lambda: all(node.task(name)["phase"] == "running" for name in names),
            timeout_s=GIVEN_UP_S, what=f"{len(names)} tasks to run on h{target}", interval_s=0.1,
        )  # fmt: skip
    finally:
        for number in others:
            node.checked("PATCH", f"/v1/nodes/h{number}", {"availability": "active"})


def wait_running(observer: Observer, names: list[str], hosts: list[int]) -> None:
    wanted = set(names)
    observer.wait_for(
        lambda seen: wanted <= {each.task for each in seen.running() if each.host in hosts},
        timeout_s=GIVEN_UP_S, what=f"{len(names)} tasks to run on {', '.join(f'h{number}' for number in hosts)}",
    )  # fmt: skip


def verdict_utc(node: NodeApi, victim: int, *, since_utc: float) -> float:
    """When the leader's verdict that the host is dead entered the log."""
    found: list[dict[str, Any]] = node.checked("GET", "/v1/events")
    return next(
        float(event["time_utc"])
        for event in found
        if event["kind"] == "node.verdict" and event["fields"]["name"] == f"h{victim}" and event["time_utc"] >= since_utc
    )


def assignments_utc(task: dict[str, Any]) -> list[float]:
    return [move["time_utc"] for move in task["history"] if move["phase"] == "assigned"]


def measure_worker(net: Testnet, *, runs: int) -> Section:
    death = HostDeath(net, leads=False)
    for _ in range(runs):
        attempt(net, death.run, death.replaced)
    return Section(
        title=f"A worker's host dies with {CONTAINERS} containers on it",
        how=(
            "Its link goes down and all its processes are killed at once. Confirmed dead is the leader's verdict in the log; "
            "running elsewhere is the last start event of the surviving engines. Host network."
        ),
        figures=[death.dead, death.replaced, death.raw],
        aims=[Aim("replaced, the slowest run", death.replaced.percentile(1), REPLACED_S_MAX, "s")],
        where=[death.dead, *death.steps.values()],
    )


class LeaderDeath:
    """The leader's power is cut; a client at another node submits until it is accepted."""

    def __init__(self, net: Testnet) -> None:
        self.net = net
        self.accepted = Figures("killed to next accepted submit", "s")
        self.elected = Figures("killed to a new leader", "s")
        self.attempts = Figures("requests until one was accepted", "requests")
        self.turn = 0

    def run(self, leader: int) -> None:
        survivors = [number for number in self.net.hosts if number != leader]
        asked = survivors[self.turn % len(survivors)]
        self.turn += 1
        try:
            with NodeApi(self.net, asked, timeout_s=10) as node:
                node.nodes()
                killed_utc = time.time()
                self.net.kill(leader)
                name, attempts = submit_until_accepted(node)
                accepted_utc = time.time()
                node.remove_task(name)
            self.accepted.add(accepted_utc - killed_utc)
            self.attempts.add(attempts)
            for elected_utc in led_utc(self.net, survivors, since_utc=killed_utc):
                self.elected.add(elected_utc - killed_utc)
        finally:
            if not self.net.alive(leader):
                self.net.revive(leader)


def submit_until_accepted(node: NodeApi) -> tuple[str, int]:
    """Ask again every 10 ms after a refusal, each time for another task under a fresh request id."""
    give_up = time.monotonic() + GIVEN_UP_S
    attempts = 0
    while time.monotonic() < give_up:
        attempts += 1
        name = fresh_name("next")
        document = task_document(name, "host", constraints=["node.hostname==nowhere"])
        try:
            status, _ = node.ask("POST", "/v1/tasks", {"task": document})
        except (OSError, http.client.HTTPException):
            status = 0
        if status in (200, 201):
            return name, attempts
        time.sleep(RETRY_S)
    raise TimeoutError(f"no submit was accepted within {GIVEN_UP_S:.0f} s")


LEADS = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) INFO swarm\.node: term \d+: leader,", re.MULTILINE)


def led_utc(net: Testnet, numbers: list[int], *, since_utc: float) -> list[float]:
    """When one of these hosts' daemons first said that it leads, after a moment; empty when none did."""
    found = []
    for number in numbers:
        for second, thousandths in LEADS.findall(net.host(number).daemon_log.read_text(errors="replace")):
            found.append(datetime.strptime(second, "%Y-%m-%d %H:%M:%S").timestamp() + int(thousandths) / 1000)
    return sorted(utc for utc in found if utc >= since_utc)[:1]


def measure_leader(net: Testnet, *, runs: int) -> Section:
    death, moved = LeaderDeath(net), HostDeath(net, leads=True)
    for _ in range(runs):
        attempt(net, death.run, death.accepted)
    for _ in range((runs + 1) // 2):
        attempt(net, moved.run, moved.replaced)
    return Section(
        title="The leader's host dies",
        how=(
            "A client on a standing connection to a surviving node submits from the moment of the kill on, and 10 ms after each "
            "refusal again with a fresh request id; the time is that of the first 200 or 201. A node that has no leader holds a "
            "request until there is one, so few requests are needed. In runs of their own the leader's host has "
            f"{CONTAINERS} containers on it too, and the time to the last one running elsewhere is taken."
        ),
        figures=[death.accepted, moved.dead, moved.replaced, moved.raw],
        aims=[
            Aim("next accepted submit, the slowest run", death.accepted.percentile(1), ACCEPTED_S_MAX, "s"),
            Aim("replaced, the slowest run", moved.replaced.percentile(1), REPLACED_S_MAX, "s"),
        ],
        where=[death.elected, death.attempts, *moved.steps.values()],
        notes=[
            "The old leader's followers promised it not to vote for anybody for 800 ms after its last heartbeat, and stand for "
            "election at a random moment up to 400 ms after that: that is the floor of this figure."
        ],
    )


def attempt(net: Testnet, run: Callable[[int], None], figures: Figures) -> None:
    """One run; one that fails is counted with its reason. A cluster that does not come to rest before it is an error."""
    leader = wait_settled(net)
    try:
        run(leader)
    except FAILED as problem:
        figures.discard(f"{type(problem).__name__}: {problem}"[:120])
