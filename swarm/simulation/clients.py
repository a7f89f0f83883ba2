"""Clients that write registers and read them back, and the history of what they saw, in true time.

A register is a label of a node that nobody else uses: the last write wins, and each writer writes a value of its own. A client is
sequential: it makes one call, through any node, and goes on when that is answered or after `PATIENCE_S`; then its outcome is
unknown for ever, also if the answer comes later. A read goes the way of the API: a barrier (the commit index that a leader inside
its lease named after the call began), then the wait until this node has applied that much, then the node's own catalog. Tasks are
read as well, those that the workload submitted.

Promise: what is in the history happened as it says; an unanswered call is there with an answer at infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarm.catalog import Catalog
from swarm.model.command import SetNode
from swarm.model.ids import NodeId, RequestId, TaskId, random_id
from swarm.model.outcome import Applied
from swarm.model.phase import Desired
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.replica import Outcome

READ, WRITE, SUBMIT, STOP = "read", "write", "submit", "stop"
ABSENT, RUNNING, OVER = "absent", "running", "over"
CLIENTS = 2
REGISTERS = 2
PATIENCE_S = 3.0
"""A client waits so long for an answer. Shorter than an election with everything that may go wrong in it: outcomes are unknown
now and then."""
BARRIER_S = 2.5
REUSE = 0.1
"""Chance that a write comes under the request id of an earlier one: it must be refused, and is a write that nobody may see."""
PAUSE_S = 0.6
"""Between two calls of one client, on average."""


@dataclass(slots=True)
class Operation:
    """One call. Times are true time; `answered` is infinite while the outcome is unknown."""

    client: str
    key: str
    kind: str
    value: str
    invoked: float
    answered: float = math.inf


class Clients:
    """All of them, until `stop`. `tasks` gives the tasks that may be read, as they are asked for."""

    def __init__(self, cluster: Cluster, tasks: Callable[[], Sequence[TaskId]], *, count: int = CLIENTS) -> None:
        self.cluster = cluster
        self.rng = cluster.world.random("clients")
        self.history: list[Operation] = []
        self.is_over = False
        self._tasks = tasks
        self._written = 0
        self._used: RequestId | None = None
        """Of a write that was accepted."""
        for number in range(1, count + 1):
            cluster.world.after(2.5 + self.rng.random(), self._next, f"c{number}")

    def stop_soon(self) -> None:
        """A few reads more, of a cluster that is well, then no further calls."""
        self.cluster.world.after(6.0, self._stop)

    def _stop(self) -> None:
        self.is_over = True

    def _next(self, client: str) -> None:
        if self.is_over:
            return
        members = [member for member in self.cluster.daemons() if member.host.kernel_answers]
        if not members:
            self._pause(client)
            return
        member = self.rng.choice(members)
        tasks = self._tasks()
        what = self.rng.random()
        if what < 0.3:
            self._write(client, member)
        elif what < 0.5 and tasks:
            task_id = self.rng.choice(tasks[-6:])
            self._read(client, member, f"task/{task_id}", lambda catalog: seen_task(catalog, task_id))
        else:
            register = self._register()
            self._read(client, member, f"register/{register[0]}/{register[1]}", lambda catalog: seen_label(catalog, *register))

    def _pause(self, client: str) -> None:
        self.cluster.world.after(self.rng.expovariate(1 / PAUSE_S), self._next, client)

    def _register(self) -> tuple[NodeId, str]:
        host = self.cluster.hosts[0]
        return host.node_id, f"register{self.rng.randrange(REGISTERS)}"

    def _call(self, client: str, key: str, kind: str, value: str) -> tuple[Operation, Callable[[str | None], None]]:
        """Note a call, and what is to be told when it is answered: None for an answer that says nothing."""
        operation = Operation(client, key, kind, value, self.cluster.world.now)
        self.history.append(operation)
        is_open = True

        def end(seen: str | None) -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                if seen is not None:
                    operation.value, operation.answered = seen, self.cluster.world.now
                self._pause(client)

        self.cluster.world.after(PATIENCE_S, end, None)
        return operation, end

    def _write(self, client: str, member: Member) -> None:
        node_id, register = self._register()
        self._written += 1
        value = f"v{self._written}"
        _, end = self._call(client, f"register/{node_id}/{register}", WRITE, value)
        command = SetNode(node_id, labels=((register, value),))
        request_id = RequestId(random_id(self.rng))
        if self._used is not None and self.rng.random() < REUSE:
            request_id = self._used

        def done(outcome: Outcome) -> None:
            accepted = isinstance(outcome, Applied) and outcome.outcome is None
            if accepted:
                self._used = request_id
            end(value if accepted else None)

        member.feed(None, member.forwarding.submit, command, request_id, PATIENCE_S, done)

    def _read(self, client: str, member: Member, key: str, look: Callable[[Catalog], str]) -> None:
        _, end = self._call(client, key, READ, "")
        member.feed(None, member.forwarding.read, BARRIER_S, look, end)


def seen_label(catalog: Catalog, node_id: NodeId, register: str) -> str:
    """What a register holds."""
    node = catalog.nodes.get(node_id)
    return dict(node.labels).get(register, ABSENT) if node is not None else ABSENT


def seen_task(catalog: Catalog, task_id: TaskId) -> str:
    """Whether a task is to run."""
    task = catalog.tasks.get(task_id)
    return ABSENT if task is None else RUNNING if task.desired is Desired.RUNNING and not task.ended else OVER
