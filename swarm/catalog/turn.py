"""One entry being applied: where it stands in the log, and what it has changed so far.

Handlers are functions `(state, command, turn) -> Rejected | str`: they check everything first, then change the state, tell
events and say what they touched. The text they return is the id they made, if any.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

import math

from swarm.model.entry import Entry
from swarm.model.ids import NodeId, TaskId
from swarm.model.outcome import Event, Rejected


class Turn:
    """What a handler knows of the entry, and collects while applying it."""

    __slots__ = (
        "counters", "events", "index", "known_since_utc", "nodes", "recovery_generation", "refused", "tasks", "term", "time_utc",
    )  # fmt: skip

    def __init__(
        self, entry: Entry, time_utc: float, counters: dict[str, int], known_since_utc: float = -math.inf
    ) -> None:
        self.index = entry.index
        self.term = entry.term
        self.recovery_generation = entry.recovery_generation
        self.time_utc = time_utc
        self.known_since_utc = known_since_utc
        """Every request id applied since this moment of log time is remembered."""
        self.counters = counters
        self.events: list[Event] = []
        self.nodes: dict[NodeId, None] = {}
        self.tasks: dict[TaskId, None] = {}
        self.refused: list[tuple[int, Rejected]] = []
        """Items of a batch that were refused, by number."""

    def tell(self, kind: str, text: str, *subjects: str, **fields: str | int) -> None:
        """Emit one event."""
        self.events.append(Event(self.index, self.time_utc, kind, subjects, text, dict(fields)))

    def touch_node(self, node_id: NodeId) -> None:
        """Say that a node, or what is placed there, changed."""
        self.nodes[node_id] = None

    def touch_task(self, task_id: TaskId) -> None:
        """Say that a task or an assignment of it changed."""
        self.tasks[task_id] = None

    def count(self, reason: str) -> None:
        """Count something dropped."""
        self.counters[reason] = self.counters.get(reason, 0) + 1
