"""Calls in flight on one connection, and errors on their way through it.

An `OperatorError` or `PeerError` that a handler raises travels as its code and words, and is raised again at the caller as
the same class; a class that is not known there becomes its family. A `Bug` ends that call only.

Promise: every waiting call gets exactly one outcome: an answer, a failure, or `Unreachable` when its connection ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TypeVar

import trio

from swarm.errors import Bug, OperatorError, PeerError, Unreachable
from swarm.wire.frame import Answer, Failure
from swarm.wire.text import plain_text

K = TypeVar("K", OperatorError, PeerError)

_TEXT_MAX = 4_000


class _Waiting:
    __slots__ = ("done", "outcome")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.outcome: bytes | Exception | None = None

    def finish(self, outcome: bytes | Exception) -> None:
        self.outcome = outcome
        self.done.set()


class PendingCalls:
    """The calls that wait for an answer on one connection. Numbers are never reused on it."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._waiting: dict[int, _Waiting] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def new(self) -> int:
        """A number for one more call."""
        self._last += 1
        self._waiting[self._last] = _Waiting()
        return self._last

    async def wait(self, call_id: int) -> bytes:
        """The answer to that call. Raises what the other side raised, or `Unreachable`. Cancelling forgets the call."""
        waiting = self._waiting[call_id]
        try:
            await waiting.done.wait()
        finally:
            self.forget(call_id)
        if isinstance(waiting.outcome, Exception):
            raise waiting.outcome
        assert waiting.outcome is not None
        return waiting.outcome

    def forget(self, call_id: int) -> None:
        """Nobody waits for it any more."""
        self._waiting.pop(call_id, None)

    def on_reply(self, reply: Answer | Failure) -> None:
        """Give an answer to whom it belongs; a late one is counted."""
        waiting = self._waiting.get(reply.call_id)
        if waiting is None:
            self._counters["answers_too_late"] += 1
        else:
            waiting.finish(reply.payload if isinstance(reply, Answer) else error_of(reply))

    def end(self, reason: str) -> None:
        """The connection has ended: whoever waits hears that the outcome is unknown."""
        for waiting in self._waiting.values():
            waiting.finish(Unreachable(f"the connection ended before the answer came: {reason}"))


def failure_of(call_id: int, error: OperatorError | PeerError | Bug) -> Failure:
    """An error as it travels."""
    if isinstance(error, OperatorError):
        return Failure(call_id, "operator", error.code, *(text[:_TEXT_MAX] for text in (error.message, error.cause, error.hint)))
    code = error.reason if isinstance(error, PeerError) else "bug"
    return Failure(call_id, "peer", code, str(error)[:_TEXT_MAX])


def error_of(failure: Failure) -> OperatorError | PeerError:
    """The error that travelled, as the class it was."""
    if failure.family == "operator":
        kind = next((kind for kind in _kinds(OperatorError) if kind.code == failure.code), OperatorError)
        message, cause, hint = (plain_text(text, _TEXT_MAX) for text in (failure.message, failure.cause, failure.hint))
        return kind(message, cause=cause, hint=hint)
    peer_kind = next((kind for kind in _kinds(PeerError) if kind.reason == failure.code), PeerError)
    return peer_kind(plain_text(failure.message))


def _kinds(root: type[K]) -> Iterator[type[K]]:
    """Every class below `root` that is made like it."""
    for kind in root.__subclasses__():
        if kind.__init__ is root.__init__:
            yield kind
        yield from _kinds(kind)
