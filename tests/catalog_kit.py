"""Building blocks for tests of the catalog, the scheduler and the controllers: entries, nodes, tasks, a log that applies them."""

from __future__ import annotations

from typing import Any

from swarm.catalog import Catalog
from swarm.model.assignment import assignment_id
from swarm.model.command import COMMANDS, KIND_OF, Assign, Found, PassVerdict, Report, Reports, Submit
from swarm.model.entry import Entry, Voter
from swarm.model.ids import ClusterId, NodeId, RequestId, TaskId
from swarm.model.node import Node, VerdictKind
from swarm.model.outcome import Applied
from swarm.model.phase import Phase
from swarm.model.resources import Resources
from swarm.model.task import TaskSpec
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
        return TaskId(self.must(Submit(TaskId(f"t-{name}"), make_spec(name, **fields))).value)

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
