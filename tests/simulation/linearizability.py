"""Linearizability: whether what clients saw could have happened one after the other, each within its own call (Herlihy and Wing).

A history is a list of operations of one key, each with the true times of its invocation and its answer. The search is Wing and
Gong's, with the memory of Lowe's: pick an operation that may come first, apply it to a sequential model of the object, go on with
the rest; a set of operations done and the state they led to is tried once. An operation whose outcome is unknown may have
happened at any time after its invocation, or never. Objects are independent, so a history is linearizable if each key's is.

Two objects: a `Register` (last write wins; written values are unique, so a write whose outcome is unknown and whose value nobody
read can be left out) and a `Lifecycle` (submitted once, then over).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from swarm.simulation.clients import ABSENT, OVER, READ, RUNNING, STOP, SUBMIT, WRITE, Operation

STATES_MAX = 200_000
"""Of one key. A history that needs more is reported as too hard to judge, not as good."""


class Model(Protocol):
    """A sequential object."""

    initial: Any

    def after(self, state: Any, operation: Operation) -> Any:
        """The state after this operation with this answer; None when it cannot give that answer in this state."""


class Register:
    """Holds what was written last."""

    initial = (ABSENT,)

    def after(self, state: Any, operation: Operation) -> Any:
        if operation.kind == WRITE:
            return (operation.value,)
        return state if state == (operation.value,) else None


class Lifecycle:
    """A task as its user sees it: not there, to run, over. A submit of one that is there is accepted by nobody, and a job may be
    over without a stop."""

    initial = (ABSENT,)

    def after(self, state: Any, operation: Operation) -> Any:
        match operation.kind:
            case "submit":
                return (RUNNING,) if state == (ABSENT,) else None
            case "stop":
                return None if state == (ABSENT,) else (OVER,)
            case _:
                seen = (operation.value,)
                return seen if state == seen or (state, seen) == ((RUNNING,), (OVER,)) else None


class NotLinearizable(AssertionError):
    """No order of these operations explains what was read. The message shows the history of that key."""


def check_history(history: Iterable[Operation]) -> int:
    """Judge every key of a history; returns how many operations were judged. Raises `NotLinearizable`."""
    by_key: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    judged = 0
    for key, operations in sorted(by_key.items()):
        model: Model = Lifecycle() if any(one.kind in (SUBMIT, STOP) for one in operations) else Register()
        relevant = _relevant(operations)
        judged += len(relevant)
        if not is_linearizable(relevant, model):
            raise NotLinearizable(f"reads and writes have an order: those of {key} have none:\n" + _told(operations))
    return judged


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without what says nothing: reads that were not answered, and writes of unknown outcome whose value nobody read."""
    seen = {operation.value for operation in operations if operation.kind == READ}
    return [
        operation
        for operation in operations
        if operation.answered < math.inf or (operation.kind != READ and (operation.kind != WRITE or operation.value in seen))
    ]


def is_linearizable(operations: Sequence[Operation], model: Model) -> bool:
    """Whether some order explains them. Exponential in the operations that overlap, linear in those that do not."""
    ordered = sorted(operations, key=lambda operation: (operation.invoked, operation.answered))
    certain = sum(1 << number for number, operation in enumerate(ordered) if operation.answered < math.inf)
    tried: set[tuple[int, Any]] = set()
    stack = [(0, model.initial)]
    while stack:
        done, state = stack.pop()
        if done & certain == certain:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        assert len(tried) < STATES_MAX, f"{len(ordered)} operations overlap too much to be judged"
        for number in _possible_next(ordered, done):
            following = model.after(state, ordered[number])
            if following is not None:
                stack.append((done | 1 << number, following))
    return False


def _possible_next(ordered: Sequence[Operation], done: int) -> list[int]:
    """Those that no operation still to come had ended before. O(operations)."""
    found: list[int] = []
    first_answer = math.inf
    for number, operation in enumerate(ordered):
        if done >> number & 1:
            continue
        if operation.invoked > first_answer:
            break
        found.append(number)
        first_answer = min(first_answer, operation.answered)
    return found


def _told(operations: Sequence[Operation]) -> str:
    return "\n".join(
        f"  {operation.invoked:9.4f} .. {operation.answered:9.4f}  {operation.client} {operation.kind} {operation.value}"
        for operation in sorted(operations, key=lambda operation: operation.invoked)[-60:]
    )
