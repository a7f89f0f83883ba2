"""One command for several things: all are found before any is changed, a few are asked for at once, each outcome is told.

What is asked of one may go wrong after others were done: then nothing more is begun, what is under way is waited for, and the
names that were not reached are told before the error is raised.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from swarm.cli.asking import clean
from swarm.client.client import Answer, Client, Interrupted
from swarm.errors import Conflict, NotFound, OperatorError

AT_ONCE = 8
"""Requests under way: a write takes some 15 ms, most of it a disk's, and the leader gathers what comes together. A node answers
128 writes at once, for all who ask."""
NAMES_SHOWN = 10
LISTED_FROM = 20
"""Beyond so many names one list costs a node less than a look at each."""


def listed(names: Sequence[str]) -> str:
    """The first few, and how many more."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def chosen(
    node: Client, references: Sequence[str], path_of: Callable[[str], str], check: Callable[[Sequence[dict[str, Any]]], None],
    *, listing: str = "",
) -> tuple[list[str], list[str]]:  # fmt: skip
    """What to ask for, and the names to tell people, each thing once. Where several are named they are found first and become
    ids, and `check` says whether they may be changed. Where many are, `listing` (all of the kind) is asked for once. Raises
    `NotFound` when one is not there."""
    if len(references) == 1:
        return list(references), list(references)
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    absent: list[NotFound] = []
    known = by_reference(node.get(listing).content) if listing and len(references) > LISTED_FROM else {}
    for number, reference in enumerate(references):
        try:
            row = known.get(reference) or node.get(path_of(reference), {"stale": 1 if number else None}).content
            refuse_queued(reference, row)
            found.setdefault(row["id"], (reference, row))
        except NotFound as error:
            absent.append(error)
    if absent:
        raise unchanged(absent)
    check([row for _, row in found.values()])
    return list(found), [reference for reference, _ in found.values()]


def by_reference(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By id, and by name as a node reads it: of several tasks the one that has not ended, else the newest. Oldest first."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        before = found.get(row["name"])
        if before is None or (before["ended"] and row["phase"] != "queued"):
            found[row["name"]] = row
    return found | {row["id"]: row for row in rows}


def refuse_queued(reference: str, row: dict[str, Any]) -> None:
    """Raises `NotFound` for a task that a node keeps: no command about tasks reaches it."""
    if row.get("phase") in ("queued", "not submitted"):
        raise NotFound(
            f"task '{reference}' is {row['phase']}: it is not in the log",
            hint=f"to take it out of this node's queue: swarm task queue rm {reference}",
        )


def unchanged(errors: Sequence[OperatorError]) -> OperatorError:
    """The first one, with the words of the others and that nothing was done."""
    first = errors[0]
    others = [error.message for error in errors[1:NAMES_SHOWN]]
    if len(errors) > NAMES_SHOWN:
        others.append(f"and {len(errors) - NAMES_SHOWN:,} more")
    first.cause = "; ".join([each for each in (first.cause, *others) if each] + ["nothing was changed"])
    return first


def check_ended(tasks: Sequence[dict[str, Any]]) -> None:
    """Raises `Conflict` when some have not."""
    running = [
        Conflict(f"task '{task['name']}' has not ended", cause=f"it is {task['phase']}", hint="stop them first, or use --force")
        for task in tasks if not task["ended"]
    ]  # fmt: skip
    if running:
        raise unchanged(running)


class _Crew:
    """Threads that ask for one thing after the other. A thread takes no new one once something went wrong."""

    def __init__(self, names: Sequence[str], make: Callable[[], Client], ask: Callable[[Client, int], Answer]) -> None:
        self.names = names
        self.results: dict[int, Answer | OperatorError] = {}
        self.taken = 0
        self.stopped = False
        self.changed = threading.Condition()
        self._make, self._ask = make, ask

    def start(self, count: int) -> None:
        """With at most so many threads."""
        for _ in range(min(count, len(self.names))):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        with self._make() as node:
            while (number := self._take()) is not None:
                result: Answer | OperatorError = OperatorError("the request failed", cause="a bug in swarm")
                try:
                    result = self._ask(node, number)
                except OperatorError as error:
                    result = error
                finally:
                    with self.changed:
                        self.results[number] = result
                        self.stopped = self.stopped or isinstance(result, OperatorError)
                        self.changed.notify_all()

    def _take(self) -> int | None:
        with self.changed:
            if self.stopped or self.taken >= len(self.names):
                return None
            self.taken += 1
            return self.taken - 1

    def result(self, number: int) -> Answer | OperatorError | None:
        """Waits for it; None when it is not asked for any more."""
        with self.changed:
            self.changed.wait_for(lambda: number in self.results or (self.stopped and number >= self.taken))
            return self.results.get(number)

    def left(self) -> str:
        """What is not known and what was not begun, for whoever interrupts."""
        with self.changed:
            self.stopped = True
            unknown = [name for number, name in enumerate(self.names[: self.taken]) if number not in self.results]
            parts = [f"{listed(unknown)}: the outcome is unknown"] if unknown else []
            rest = self.names[self.taken :]
            return "; ".join([*parts, f"{listed(rest)}: not reached"] if rest else parts)


def ask_each(
    names: Sequence[str], make: Callable[[], Client], ask: Callable[[Client, int], Answer], tell: Callable[[int, Answer], None],
    *, at_once: int = 0,
) -> None:  # fmt: skip
    """`ask` for each, by number and with a client of its thread's own; `tell` gets number and answer of each, in order, as they
    come. 0 `at_once` is the usual number.

    Raises the first error after everything else was told. Interrupted, it raises `Interrupted` that says what is left.
    """
    if len(names) == 1:
        with make() as node:
            tell(0, ask(node, 0))
        return
    crew = _Crew(names, make, ask)
    try:
        failed = _told(crew, tell, at_once or AT_ONCE)
    except KeyboardInterrupt:
        raise Interrupted(crew.left()) from None
    if failed:
        raise_first(failed)


def _told(crew: _Crew, tell: Callable[[int, Answer], None], at_once: int) -> list[tuple[str, OperatorError]]:
    """Those that went wrong."""
    failed: list[tuple[str, OperatorError]] = []
    crew.start(at_once)
    for number, name in enumerate(crew.names):
        result = crew.result(number)
        if result is None:
            print(clean(f"{listed(crew.names[number:])}: not reached"), file=sys.stderr, flush=True)
            break
        if isinstance(result, OperatorError):
            failed.append((name, result))
        else:
            tell(number, result)
    return failed


def raise_first(failed: Sequence[tuple[str, OperatorError]]) -> None:
    """The others on standard error."""
    for name, error in failed[1:]:
        print(clean(f"{name}: {error.message}"), file=sys.stderr)
    name, first = failed[0]
    if f"'{name}'" not in first.message:
        first.message = f"{name}: {first.message}"
    raise first
