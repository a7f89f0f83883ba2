"""Building blocks for tests of the catalog, the scheduler and the controllers: entries, nodes, tasks, a log that applies them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from swarm.catalog import Catalog
from swarm.model.assignment import assignment_id
from swarm.model.command import COMMANDS, KIND_OF, Assign, Found, PassVerdict, Report, Reports, Submit
from swarm.model.entry import Configuration, Entry, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.liveness import EngineState, MemberStatus, MemberView, Sample
from swarm.model.node import Node, VerdictKind
from swarm.model.outcome import Applied
from swarm.model.phase import Phase
from swarm.model.resources import Resources
from swarm.model.task import TaskSpec
from swarm.model.view import ClusterView, FollowerView
from swarm.wire.codec import encode

GIB = 2**30


def make_node(name: str, *, cpu: int = 4000, memory: int = 8 * GIB, **fields: Any) -> Node:
    return Node(
        id=NodeId(f"id-{name}"),
        name=name,
        address="127.0.0.1:4747",
        api_address="127.0.0.1:4748",
        fingerprint=name.encode().ljust(32, b"."),
        public_key=b"key of " + name.encode(),
        store_generation=1,
        arch=fields.pop("arch", "amd64"),
        capacity=Resources(cpu, memory, 1000),
        **fields,
    )


def make_spec(name: str, **fields: Any) -> TaskSpec:
    return TaskSpec(name=name, image=fields.pop("image", "testnet/redis:1"), **fields)


class Log:
    """A catalog and the log that made it."""

    def __init__(self, *nodes: Node) -> None:
        self.catalog = Catalog()
        self.entries: list[Entry] = []
        self.time_utc = 1_000.0
        self.term = 1
        if nodes:
            self.must(Found(ClusterId("c1"), nodes, (Voter(nodes[0].id, 1),)))

    def entry(self, command: Any, request_id: str = "") -> Entry:
        kind = KIND_OF[type(command)]
        return self.raw(kind, COMMANDS[kind][0], encode(command), request_id)

    def raw(self, kind: str, version: int, payload: bytes, request_id: str = "") -> Entry:
        index = len(self.entries) + 1
        return Entry(index, self.term, kind, version, payload, 0, self.time_utc, RequestId(request_id))

    def apply(self, command: Any, request_id: str = "") -> Applied:
        return self.apply_entry(self.entry(command, request_id))

    def apply_entry(self, entry: Entry) -> Applied:
        applied = self.catalog.apply(entry)
        self.entries.append(entry)
        self.catalog.check()
        return applied

    def must(self, command: Any, request_id: str = "") -> Applied:
        applied = self.apply(command, request_id)
        assert applied.outcome is None, applied.outcome
        return applied

    # ---- shorthand --------------------------------------------------------------------------------------------------------

    def submit(self, name: str, **fields: Any) -> TaskId:
        return TaskId(self.must(Submit(TaskId("t-" + name.replace(".", "-")), make_spec(name, **fields))).value)

    def assign(self, task_id: TaskId, node: str, *, replaces: str = "") -> str:
        attempt = self.catalog.tasks[task_id].attempts + 1
        return self.must(Assign(task_id, attempt, NodeId(f"id-{node}"), replaces)).value

    def report(self, assignment: str, phase: Phase, **fields: Any) -> Applied:
        record = self.catalog.assignments[assignment]
        report = Report(assignment, record.report_sequence + 1, phase, **fields)
        return self.must(Reports(record.node_id, (report,)))

    def verdict(self, node: str, kind: VerdictKind) -> Applied:
        return self.must(PassVerdict(NodeId(f"id-{node}"), kind, "test"))

    def running(self, name: str, node: str, **fields: Any) -> tuple[TaskId, str]:
        """A task that runs on `node`: its id and its assignment's."""
        task_id = self.submit(name, **fields)
        assignment = self.assign(task_id, node)
        self.report(assignment, Phase.RUNNING)
        assert assignment == assignment_id(task_id, 1)
        return task_id, assignment


def make_member(node: Node, **fields: Any) -> MemberView:
    sample = Sample(node.id, 1, 1, engine=EngineState.UP, cpu_used_permille=fields.pop("cpu", 0))
    defaults: dict[str, Any] = {"status": MemberStatus.ALIVE, "since": 0.0, "last_contact": 0.0, "sample": sample}
    return MemberView(
        node_id=node.id, name=node.name, address=node.address, generation=1, incarnation=1, **{**defaults, **fields}
    )


class World:
    """A log, what gossip sees, and the leader's replication: everything a view is made of. `n1` leads."""

    def __init__(self, *nodes: Node) -> None:
        self.log = Log(*nodes)
        self.now = 1_000.0
        self.members = {node.id: make_member(node) for node in nodes}
        self.silent: dict[str, float] = {}
        """Name of a node -> when the leader last heard from it."""
        self.behind: dict[str, int] = {}
        self.configuration = Configuration((Voter(nodes[0].id, 1),))
        self.leader_since = 0.0

    @property
    def catalog(self) -> Catalog:
        return self.log.catalog

    def view(self) -> ClusterView:
        last = self.catalog.applied_index
        followers = {
            node.id: FollowerView(
                node.id, last - self.behind.get(node.name, 0), last, self.silent.get(node.name, self.now - 0.05)
            )
            for node in self.catalog.nodes.values()
        }
        return self.catalog.view(
            self.now,
            NodeId("id-n1"),
            self.members,
            is_leader=True,
            leader_since=self.leader_since,
            configuration=self.configuration,
            followers=followers,
        )

    def member(self, name: str, **fields: Any) -> None:
        """Change what gossip sees of a node."""
        node_id = NodeId(f"id-{name}")
        self.members[node_id] = replace(self.members[node_id], **fields)

    def dies(self, name: str, kind: VerdictKind = VerdictKind.HOST_SILENT) -> None:
        """Gossip declares it dead, now."""
        self.member(name, status=MemberStatus.DEAD, since=self.now, death_kind=kind, evidence="test")
        self.silent[name] = self.now - 1.0

    def returns(self, name: str) -> None:
        """Gossip sees it again."""
        self.member(name, status=MemberStatus.ALIVE, since=self.now, death_kind=None)
        self.silent.pop(name, None)

    def apply_all(self, commands: Iterable[Any]) -> None:
        for command in commands:
            self.log.must(command)


def make_world(count: int = 3, **fields: Any) -> World:
    return World(*(make_node(f"n{number}", **fields) for number in range(1, count + 1)))
