"""One run: a cluster, clients and faults from a seed; then everything is healed and progress is owed.

    report = run_seed(7)

Chaos first: every rule of the checkers holds at every moment, whatever breaks. Then, with nothing broken any more, within
`CONVERGE_S` of true time: one leader, everybody alive and known to be, every wanted task running exactly once, nothing else
running, equal catalogs, every request answered, and a new task runs. Raises `Violation` (or whatever a core raises).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from swarm.consensus.config import ConsensusConfig
from swarm.errors import Bug
from swarm.model.container import ContainerPlan
from swarm.model.ids import ClusterId
from swarm.model.liveness import MemberStatus
from swarm.model.node import VerdictKind
from swarm.model.phase import Desired, Phase
from swarm.model.task import TaskSpec
from swarm.runner.config import RunnerConfig
from swarm.runner.labels import ATTEMPT, CLUSTER, NAME, NODE, TASK
from swarm.simulation.clients import CLIENTS, Clients
from swarm.simulation.cluster import Cluster
from swarm.simulation.faults import Faults
from swarm.simulation.scene import Settings
from swarm.simulation.workload import Request, Workload
from swarm.simulation.world import TraceSink
from tests.simulation.checkers import Checkers, Violation
from tests.simulation.linearizability import check_history

CONVERGE_S = 150.0
"""The brake holds replacing back for 60 s after a mass death, a gone daemon has 30 s of grace, a voter change takes 10 s."""
STRAY_GRACE_S = 8.0
"""Shorter than a daemon's, so that what is collected is collected within a run."""
WITNESS_SHARE = 0.25
"""Of the runs with three hosts or more."""
HOLD = 3
"""Seconds in a row for which everything must be well."""


@dataclass
class Report:
    """What a run was."""

    seed: int
    hosts: int
    seconds: float = 0.0
    events: int = 0
    entries: int = 0
    requests: int = 0
    healed_in_s: float = 0.0
    faults: tuple[str, ...] = field(default=())
    judged: int = 0
    """Operations whose order the linearizability checker found."""

    @property
    def node_seconds(self) -> float:
        return self.hosts * self.seconds


def run_seed(
    seed: int,
    *,
    hosts: int = 0,
    seconds: float = 0.0,
    kinds: tuple[str, ...] = (),
    every_s: float = 0.0,
    append_entries_max: int = 0,
    snapshot_every: int = 120,
    stream_fanout: int = 0,
    reads: bool = True,
    later: bool = True,
    newer: bool = True,
    witnesses: int | None = None,
    trace: TraceSink | None = None,
) -> Report:
    """Run one seed. `hosts`, `seconds` (of chaos), `kinds` of faults, how often they come, how many entries an append carries,
    how many hosts are witnesses and how many nodes take entries from one are drawn from it when they are not given. Without
    `reads` (clients of registers), `later` (kinds of faults that came later) and `newer` (witnesses, daemons that are stopped in
    order) a seed means what it meant before there were any."""
    rng = random.Random(f"{seed}/scenario")
    drawn_hosts, drawn_seconds = rng.choice((1, 2, 3, 3, 3, 4, 5, 5, 7)), rng.uniform(10, 35)
    count, chaos_s = hosts or drawn_hosts, seconds or drawn_seconds
    founders = rng.choice((0, 0, 1, min(3, count)))
    pace_s, entries_max = rng.choice((1.0, 2.5, 5.0)), rng.choice((1, 4, 256))
    checkers = Checkers()
    settings = Settings(
        consensus=ConsensusConfig(
            snapshot_every=snapshot_every, trailing=snapshot_every // 4, append_entries_max=append_entries_max or entries_max,
            stream_learners_min=1, stream_fanout=stream_fanout or random.Random(f"{seed}/streams").choice((1, 1, 8)),
        ),
        runner=RunnerConfig(stray_grace_s=STRAY_GRACE_S),
    )
    stand_by = _witnesses(seed, count, witnesses if witnesses is not None or (newer and not kinds) else 0)
    cluster = Cluster(seed, count, founders=founders, witnesses=stand_by, settings=settings, watch=checkers, trace_sink=trace)
    workload = _Judged(cluster, checkers)
    clients = Clients(cluster, workload.submitted, count=CLIENTS if reads else 0)
    _place_strangers(cluster)
    cluster.run(3.0)
    faults = Faults(cluster, every_s=every_s or pace_s, kinds=kinds, later=later, newer=newer)
    cluster.run(chaos_s)
    faults.heal()
    workload.stop()
    clients.stop_soon()
    healed_at = cluster.world.now
    _converge(cluster, checkers, workload)
    healed_in_s = cluster.world.now - healed_at
    _new_work(cluster, checkers, workload)
    judged = check_history([*clients.history, *workload.operations()])
    if gone := _strangers_gone(cluster):
        raise Violation(f"what is not ours is not touched: strangers' containers on {', '.join(gone)}")
    for member in cluster.daemons():
        member.check()
        member.replica.catalog.check()
    return Report(
        seed, count, cluster.world.now, cluster.world.events, checkers.truth.applied_index, len(workload.requests), healed_in_s,
        faults.kinds, judged,
    )


def _witnesses(seed: int, hosts: int, count: int | None) -> tuple[int, ...]:
    """Hosts that vote and run nothing; in some runs one, or two of many, when `count` leaves it open. The first host is none."""
    rng = random.Random(f"{seed}/witnesses")
    if count is None:
        drawn = hosts >= 3 and rng.random() < WITNESS_SHARE
        count = 0 if not drawn else 1 if hosts < 5 else rng.randint(1, 2)
    return tuple(rng.sample(range(2, hosts + 1), count))


class _Judged(Workload):
    """Clients whose answers are checked."""

    def __init__(self, cluster: Cluster, checkers: Checkers) -> None:
        super().__init__(cluster)
        self._checkers = checkers

    def answered(self, request: Request) -> None:
        super().answered(request)
        if request.answer is not None and request.answer.outcome is None and request.command.__class__.__name__ == "Submit":
            self._checkers.acknowledged(request.command)


def _place_strangers(cluster: Cluster) -> None:
    """On every engine: a container of another cluster, and one of another node of this cluster (engines can be shared)."""
    for host in cluster.hosts:
        others = ((ClusterId("another"), str(host.node_id)), (cluster.scene.cluster_id, "other"))
        for number, (cluster_id, node_id) in enumerate(others):
            labels = {CLUSTER: cluster_id, NODE: node_id, TASK: f"stranger{number}", ATTEMPT: "1", NAME: "stranger"}
            host.engine.place_stranger(ContainerPlan(f"stranger{number}", labels, TaskSpec("stranger", "image"), ()))


def _strangers_gone(cluster: Cluster) -> list[str]:
    """Strangers' containers that are not there any more, or were stopped."""
    gone = []
    for host in cluster.hosts:
        there = [box for box in host.engine.boxes.values() if box.plan.name.startswith("stranger")]
        if len(there) != 2 or any(box.runs != 1 for box in there):
            gone.append(host.name)
    return gone


def _converge(cluster: Cluster, checkers: Checkers, workload: Workload) -> None:
    held = 0
    wrong: list[str] = []
    for _ in range(int(CONVERGE_S)):
        cluster.run(1.0)
        wrong = what_is_wrong(cluster, checkers, workload)
        held = 0 if wrong else held + 1
        if held >= HOLD:
            return
    raise Violation(f"healed, it converges: after {CONVERGE_S:.0f} s still: " + "; ".join(wrong[:8]))


def _new_work(cluster: Cluster, checkers: Checkers, workload: Workload) -> None:
    """A new task is taken and runs."""
    request = workload.submit()
    for _ in range(20):
        cluster.run(0.5)
        if request.answer is not None and checkers.copies.get(request.command.task_id):
            return
    raise Violation(f"a healed cluster takes work: {request.answer}, copies {checkers.copies.get(request.command.task_id)}")


def what_is_wrong(cluster: Cluster, checkers: Checkers, workload: Workload) -> list[str]:
    """Everything that keeps the cluster from being well; empty when it is."""
    truth = checkers.truth
    members = list(cluster.daemons())
    wrong = [f"{host.name} has no daemon" for host in cluster.hosts if host.daemon is None]
    leaders = [member.host.name for member in members if member.replica.may_act]
    if len(leaders) != 1:
        wrong.append(f"leaders: {leaders}")
    if any(host.name in leaders and host.is_witness for host in cluster.hosts):
        wrong.append(f"the witness {leaders[0]} leads, though a full voter could")
    for member in members:
        if member.replica.applied_index < truth.applied_index - 4:
            wrong.append(f"{member.host.name} applied {member.replica.applied_index} of {truth.applied_index}")
        views = member.gossip.members()
        bad = [f"{view.name} {view.status.value}" for view in views.values() if view.status is not MemberStatus.ALIVE]
        if bad or len(views) != len(cluster.hosts):
            wrong.append(f"{member.host.name} sees {len(views)} members, {', '.join(bad)}")
    dead = [node for node in truth.nodes.values() if node.verdict.kind is not VerdictKind.ALIVE]
    wrong += [f"{node.name} has verdict {node.verdict.kind}" for node in dead]
    unanswered = [type(request.command).__name__ for request in workload.requests if request.answer is None]
    if unanswered:
        wrong.append(f"unanswered: {unanswered}")
    return wrong + _tasks_wrong(checkers, workload)


def _tasks_wrong(checkers: Checkers, workload: Workload) -> list[str]:
    truth = checkers.truth
    wrong = []
    for task_id in [*workload.wanted, *workload.stopped]:
        if task_id not in truth.tasks:
            raise Violation(f"nothing acknowledged is lost: task {task_id} is gone")
    for task in truth.tasks.values():
        copies = checkers.copies.get(task.id, {})
        if task.desired is Desired.RUNNING and not task.ended:
            current = truth.assignments.get(task.assignment)
            if current is None or current.phase is not Phase.RUNNING:
                wrong.append(f"{task.spec.name} is {current.phase.value if current else 'pending'} {task.reason}")
            if len(copies) != 1 or next(iter(copies))[0] != (current.attempt if current else 0):
                wrong.append(f"{task.spec.name} runs as attempts {sorted(copies)}, not once as {current and current.attempt}")
        elif copies:
            wrong.append(f"{task.spec.name} should not run: {sorted(copies)}")
    return wrong


def outcome_of(seed: int, **options: object) -> str:
    """One line: `ok`, or what was violated."""
    try:
        run_seed(seed, **options)  # type: ignore[arg-type]
    except (AssertionError, Bug) as error:
        return f"{type(error).__name__}: {error}"
    return "ok"
