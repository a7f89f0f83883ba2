"""What clients asked and were told, and whether one single cluster can have answered so (linearizability).

Every task has a name of its own that is submitted once, and removed at most once after the submit was acknowledged. So a task is
there from one moment to another, and a history is right exactly when for each task such moments can be found: the submit took
effect between its call and its answer, the removal likewise, every read that showed the task has a moment of its own in between,
every other read has one outside. What was answered without an outcome may have taken effect at any time after its call, or never.

For one task this is decided exactly and in one pass: the moment it came is best as late, the moment it went as early, as the
answers and the reads that showed it allow (after Herlihy and Wing 1990; the general search is not needed for an object as plain).

Promise: `judge` says nothing of a history that some order explains, and names the task and the reads of every other one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

NEVER = math.inf


class Outcome(StrEnum):
    """What a client was told of a write."""

    DONE = "done"
    REFUSED = "refused"
    """Certainly not carried out."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Write:
    """From call to answer, in seconds of one clock."""

    called: float
    answered: float
    outcome: Outcome

    @property
    def until(self) -> float:
        """When it had taken effect at the latest."""
        return self.answered if self.outcome is Outcome.DONE else NEVER


@dataclass(frozen=True, slots=True)
class Read:
    """A list of all tasks that the node said to be the newest."""

    called: float
    answered: float
    node: int
    names: frozenset[str]


@dataclass(slots=True)
class History:
    """Written by many threads."""

    submits: dict[str, Write] = field(default_factory=dict)
    removals: dict[str, Write] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, change: Callable[[History], object]) -> None:
        with self.lock:
            change(self)


def judge(history: History) -> list[str]:
    """Everything that cannot be: empty for a history that one order explains. O(tasks x reads)."""
    found = []
    strangers = set().union(*(read.names for read in history.reads)) - history.submits.keys()
    found += [f"{name} was read and never submitted" for name in sorted(strangers)]
    for name, submit in history.submits.items():
        showing = [read for read in history.reads if name in read.names]
        hiding = [read for read in history.reads if name not in read.names]
        wrong = judge_task(submit, history.removals.get(name), showing, hiding)
        if wrong:
            found.append(f"{name}: {wrong}")
    return found


def judge_task(submit: Write, removal: Write | None, showing: list[Read], hiding: list[Read]) -> str:
    """Why no moments of coming and going explain these reads; empty when some do."""
    if submit.outcome is Outcome.REFUSED:
        return f"refused, and read: {shown(showing[0])}" if showing else ""
    came = min([submit.until, *(read.answered for read in showing)])
    if came < submit.called:
        return f"read before it was submitted: {shown(min(showing, key=lambda read: read.answered))}"
    carried_out = removal is not None and removal.outcome is not Outcome.REFUSED
    went = max([removal.called if removal is not None and carried_out else NEVER, *(read.called for read in showing)])
    if removal is not None and carried_out and went > removal.until:
        return f"read after it was removed: {shown(max(showing, key=lambda read: read.called))}"
    if came == NEVER:
        return ""  # it may never have come
    lost = [read for read in hiding if read.called >= came and read.answered < went]
    return f"lost: there from {came:.3f} at the latest to {went:.3f} at the earliest, but not in {shown(lost[0])}" if lost else ""


def shown(read: Read) -> str:
    return f"the list of h{read.node} asked at {read.called:.3f} and given at {read.answered:.3f}"
