"""What happened: the last 4,096 events in a ring, and the moves of a task.

Events are numbered by the index of their entry, so a stream that was cut resumes after the last index it saw. The ring says
when it no longer goes back that far; the reader then lists everything again.

Pure: no I/O, no clock, no randomness of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile

import msgspec

from swarm.catalog.checks import clipped
from swarm.model.ids import NodeId
from swarm.model.outcome import Event, EventPage
from swarm.model.phase import Phase
from swarm.model.task import MOVES_KEPT, Move, Task

EVENTS_KEPT = 4_096


class EventRing:
    """Events of the newest entries. A snapshot does not carry it: it begins anew at the snapshot's index."""

    def __init__(self, floor_index: int = 0) -> None:
        self._events: deque[Event] = deque()
        self._floor_index = floor_index
        """Every event of a later entry is here."""

    def add(self, events: Sequence[Event]) -> None:
        """Append the events of one entry; drop the oldest entries' beyond the ring's size."""
        self._events.extend(events)
        while len(self._events) > EVENTS_KEPT:
            self._floor_index = self._events.popleft().index
        while self._events and self._events[0].index <= self._floor_index:
            self._events.popleft()

    def since(self, index: int, *, last_index: int) -> EventPage:
        """Events of entries after `index`, oldest first. O(events returned)."""
        newer = list(takewhile(lambda event: event.index > index, reversed(self._events)))
        return EventPage(tuple(reversed(newer)), index >= self._floor_index, last_index)


def moved(task: Task, *, index: int, time_utc: float, attempt: int, phase: Phase, node_id: NodeId, reason: str = "") -> Task:
    """`task` with one more step in its history, of which the last `MOVES_KEPT` are kept."""
    move = Move(index, time_utc, attempt, phase, node_id, clipped(reason))
    return msgspec.structs.replace(task, moves=(*task.moves, move)[-MOVES_KEPT:], moves_total=task.moves_total + 1)
