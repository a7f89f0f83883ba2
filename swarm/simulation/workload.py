"""Clients: they submit tasks through any node, stop some, drain nodes, and repeat what they got no answer to.

A client makes its request id before the first attempt. When the outcome is unknown, or no answer comes because the node died, it
tries another node under the same id, as the CLI and any careful program do. What was acknowledged is written down.

Promise: every request is repeated until it is answered by a result or a refusal; after that never.
"""

from __future__ import annotations

import math
from typing import Any

from swarm.model.command import SetNode, StopTask, Submit
from swarm.model.ids import RequestId, TaskId, random_id
from swarm.model.node import Availability
from swarm.model.outcome import Applied
from swarm.model.resources import Resources
from swarm.model.task import Restart, RestartKind, TaskSpec
from swarm.simulation.clients import STOP, SUBMIT, Operation
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.replica import Outcome

ATTEMPT_S = 6.0
NO_ANSWER_S = 8.0


class Request:
    """One thing a client wants. `answer` is the first result or refusal."""

    def __init__(self, workload: Workload, command: Any) -> None:
        self.workload = workload
        self.command = command
        self.request_id = RequestId(random_id(workload.rng))
        self.answer: Applied | None = None
        self.attempts = 0
        self.asked_at = workload.cluster.world.now
        self.answered_at = math.inf
        """True time."""

    def attempt(self) -> None:
        """Ask a node that runs; try again when none does."""
        if self.answer is not None:
            return
        self.attempts += 1
        this_attempt = self.attempts
        world = self.workload.cluster.world
        member = self.workload.any_member()
        if member is None:
            world.after(0.5, self._again, this_attempt)
            return
        world.after(NO_ANSWER_S, self._again, this_attempt)
        member.feed(
            None, member.forwarding.submit, self.command, self.request_id, ATTEMPT_S,
            lambda outcome: self._answered(this_attempt, outcome),
        )

    def _again(self, attempt: int) -> None:
        if attempt == self.attempts:
            self.attempt()

    def _answered(self, attempt: int, outcome: Outcome) -> None:
        if self.answer is not None:
            return
        if isinstance(outcome, Applied):
            self.answer, self.answered_at = outcome, self.workload.cluster.world.now
            self.workload.answered(self)
        elif attempt == self.attempts:
            self.workload.cluster.world.after(0.2, self._again, attempt)


class Workload:
    """Draws requests, about one every `every_s` seconds, until `stop`."""

    def __init__(self, cluster: Cluster, *, every_s: float = 1.0, tasks_max: int = 30) -> None:
        self.cluster = cluster
        self.rng = cluster.world.random("workload")
        self.every_s = every_s
        self.tasks_max = tasks_max
        self.is_over = False
        self.requests: list[Request] = []
        self.wanted: dict[TaskId, TaskSpec] = {}
        """Acknowledged and not asked to stop."""
        self.stopped: dict[TaskId, None] = {}
        """Whose stop was acknowledged."""
        self._submitted = 0
        cluster.world.after(2.0, self._next)

    def any_member(self) -> Member | None:
        """Some node that takes connections."""
        members = [member for member in self.cluster.daemons() if member.host.kernel_answers]
        return self.rng.choice(members) if members else None

    def ask(self, command: Any) -> Request:
        """Send one request."""
        request = Request(self, command)
        self.requests.append(request)
        request.attempt()
        return request

    def submit(self, *, job: bool = False) -> Request:
        """A new task of modest size."""
        self._submitted += 1
        kind = RestartKind.NO if job else RestartKind.ALWAYS
        amount = Resources(cpu_millicores=self.rng.choice((100, 250, 400)), memory_bytes=64 << 20, tasks=1)
        spec = TaskSpec(f"t{self._submitted}", "image", resources=amount, restart=Restart(kind), stop_grace_s=1.0)
        return self.ask(Submit(TaskId(random_id(self.rng)), spec))

    def _next(self) -> None:
        if self.is_over:
            return
        what = self.rng.random()
        if what < 0.7 and self._submitted < self.tasks_max:
            self.submit(job=self.rng.random() < 0.2)
        elif what < 0.85 and self.wanted:
            self.ask(StopTask(self.rng.choice(list(self.wanted))))
        elif what > 0.95:
            self._drain_or_back()
        self.cluster.world.after(self.rng.expovariate(1 / self.every_s), self._next)

    def _drain_or_back(self) -> None:
        host = self.rng.choice(self.cluster.hosts)
        wish = self.rng.choice((Availability.DRAIN, Availability.ACTIVE))
        self.ask(SetNode(host.node_id, wish))

    def answered(self, request: Request) -> None:
        """Write down what was acknowledged."""
        assert request.answer is not None
        if request.answer.outcome is not None:
            return
        command = request.command
        if isinstance(command, Submit):
            self.wanted[command.task_id] = command.spec
        elif isinstance(command, StopTask):
            self.wanted.pop(command.task_id, None)
            self.stopped[command.task_id] = None

    def submitted(self) -> list[TaskId]:
        """Every task that was ever asked for, oldest first."""
        return [request.command.task_id for request in self.requests if isinstance(request.command, Submit)]

    def operations(self) -> list[Operation]:
        """Submits and stops as a history: refused ones changed nothing, unanswered ones may have."""
        kinds: dict[type[Any], str] = {Submit: SUBMIT, StopTask: STOP}
        return [
            Operation(
                "w", f"task/{request.command.task_id}", kinds[type(request.command)], "", request.asked_at, request.answered_at
            )
            for request in self.requests
            if type(request.command) in kinds and (request.answer is None or request.answer.outcome is None)
        ]

    def stop(self) -> None:
        """No new requests; once every drain that was asked for is answered, all nodes are to take work again."""
        self.is_over = True
        if any(request.answer is None and isinstance(request.command, SetNode) for request in self.requests):
            self.cluster.world.after(0.5, self.stop)
            return
        for host in self.cluster.hosts:
            self.ask(SetNode(host.node_id, Availability.ACTIVE))
