"""Submit to running: from the HTTP request sent to the engine's start event, through the leader and through another node.

Each round starts one container raw, one through the leader and one through another node, in an order that turns from round to
round, all on the same engine: that of a host which is neither, the longest way a task can go. So ratios compare what the machine
did in the same second, however noisy it is.
"""

from __future__ import annotations

import http.client
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import docker

from testnet.bench.api import NodeApi, leader_of, task_document, wait_settled
from testnet.bench.figures import Aim, Figures, Section
from testnet.bench.raw import EVENT_S_MAX, fresh_name, start_one
from testnet.bench.watch import EngineWatch
from testnet.cluster import Testnet
from testnet.layout import TestnetError

NETWORKS = ("host", "bridge")
PAUSE_S = 0.05  # between two samples: what the one before left behind (its report, its removed network) is over
RATIO_MAX, EXTRA_MS_MAX = 1.3, 30.0
FAILED = (OSError, TimeoutError, http.client.HTTPException, TestnetError, docker.errors.APIError)


@dataclass(slots=True)
class Path:
    """One way to start a container, with its samples in milliseconds."""

    name: str
    network: str
    total: Figures = field(init=False)
    steps: dict[str, Figures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.total = Figures(f"{self.network}: {self.name}", "ms")

    def add(self, total_s: float, **steps_s: float) -> None:
        self.total.add(1000 * total_s)
        for step, seconds in steps_s.items():
            label = f"{self.network}, {self.name}: {step.replace('_', ' ')}"
            self.steps.setdefault(step, Figures(label, "ms")).add(1000 * seconds)


class Rounds:
    """The measurement of one network mode."""

    def __init__(self, net: Testnet, network: str) -> None:
        self.net, self.network = net, network
        self.raw = Path("raw engine", network)
        self.leader = Path("submit through the leader", network)
        self.other = Path("submit through another node", network)
        self.paths = [self.raw, self.leader, self.other]

    def run(self, runs: int) -> None:
        leader = wait_settled(self.net)
        other, target = (number for number in self.net.hosts if number != leader)
        with ExitStack() as stack:
            watch = stack.enter_context(EngineWatch(self.net.engine(target)))
            client = docker.APIClient(base_url=self.net.engine(target), timeout=60)
            stack.callback(client.close)
            nodes = {
                "leader": stack.enter_context(NodeApi(self.net, leader)),
                "other": stack.enter_context(NodeApi(self.net, other)),
            }
            for number in range(-1, runs):  # the first round warms connections and caches, and is not counted
                turned = self.paths[number % 3 :] + self.paths[: number % 3]
                if number < 0:
                    turned = [Path(path.name, path.network) for path in self.paths]
                for path in turned:
                    self.sample(path, client, watch, nodes["leader" if "leader" in path.name else "other"], target)
                if leader_of(nodes["leader"].nodes()) != leader:
                    raise TestnetError("the leader changed while submits were measured: run it again")

    def sample(self, path: Path, client: docker.APIClient, watch: EngineWatch, node: NodeApi, target: int) -> None:
        time.sleep(PAUSE_S)
        try:
            if path.name == self.raw.name:
                started = start_one(client, watch, self.network)
                path.add(
                    started.running_s,
                    request_to_create_event=started.created_s,
                    create_to_start_event=started.running_s - started.created_s,
                )
            else:
                submit_one(path, node, watch, self.network, target)
        except FAILED as problem:
            path.total.discard(f"{type(problem).__name__}: {problem}"[:120])


def submit_one(path: Path, node: NodeApi, watch: EngineWatch, network: str, target: int) -> None:
    """Submit one task to one engine, wait until it runs, and remove it until nothing is left."""
    name = fresh_name("bench")
    document = task_document(name, network, constraints=[f"node.hostname==h{target}"])
    sent = time.time()
    node.submit(document)
    answered = time.time()
    try:
        running = watch.wait("start", name, timeout_s=EVENT_S_MAX)
        created = watch.wait("create", name, timeout_s=EVENT_S_MAX)
        task = node.task(name)
    finally:
        node.remove_task(name)
    watch.wait("destroy", name, timeout_s=EVENT_S_MAX)
    submitted = task["created_utc"]
    assigned = next(move["time_utc"] for move in task["history"] if move["phase"] == "assigned")
    path.add(
        running - sent,
        request_to_the_log=submitted - sent,
        submit_to_assigned_in_the_log=assigned - submitted,
        assigned_to_create_event=created - assigned,
        create_to_start_event=running - created,
        request_to_its_answer=answered - sent,
    )


def measure(net: Testnet, *, runs: int) -> Section:
    """Rounds in both network modes."""
    section = Section(
        title="Submit to running",
        how=(
            "From the request sent (HTTP on a standing connection to the daemon's Unix socket) to the engine's own start event. "
            "The task is bound to a host that neither leads nor was asked. The raw engine is asked for the same container "
            "(create, then start) on that same engine, in turn."
        ),
    )
    for network in NETWORKS:
        rounds = Rounds(net, network)
        rounds.run(runs)
        for path in rounds.paths:
            section.figures.append(path.total)
            section.where.extend(path.steps.values())
        for path in (rounds.leader, rounds.other):
            for share, word in ((0.5, "p50"), (0.95, "p95")):
                bound = RATIO_MAX * rounds.raw.total.percentile(share) + EXTRA_MS_MAX
                section.aims.append(Aim(f"{path.total.name}, {word}", path.total.percentile(share), bound, "ms"))
    section.notes.append(
        f"The aim is {RATIO_MAX} times the raw engine's figure of the same percentile plus {EXTRA_MS_MAX:.0f} ms. "
        "`request to its answer` overlaps the other steps: the answer leaves when the submit is applied; meanwhile it is placed."
    )
    return section
