"""Submits and barriers of a simulated daemon, as `drivers.replica_forward` makes them.

A node that leads proposes by itself, any other forwards to the leader it knows; then it waits for its own catalog, retries under
the same request id, and says `UnknownOutcome` whenever any try may have been carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from swarm.catalog import Catalog
from swarm.consensus.core import Proposed
from swarm.errors import OperatorError, Overloaded, Unavailable, UnknownOutcome
from swarm.model.command import COMMANDS, KIND_OF
from swarm.model.ids import NodeId, RequestId
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Outcome, Replica
from swarm.simulation.streams import Reply
from swarm.wire.codec import encode

CALL_TIMEOUT_S = 2.0
RETRY_S = 0.1
GIVEN_UP_S = 5.0
Packed = tuple[str, int, bytes, RequestId]
Look = Callable[[Catalog], str]
Seen = Callable[[str | None], None]


class Forwarding:
    """Any node takes any command."""

    def __init__(self, daemon: Daemon, replica: Replica) -> None:
        self.daemon = daemon
        self.replica = replica
        self.started_at = daemon.now()
        self._readers: list[tuple[int, Look, Seen]] = []
        """Who waits for the catalog here to reach an index."""
        replica.on_applied.append(self._serve_readers)
        daemon.handlers["consensus.propose"] = self._on_propose
        daemon.handlers["consensus.barrier"] = self._on_barrier

    def submit(self, command: Any, request_id: RequestId, timeout_s: float, done: Callable[[Outcome], None]) -> None:
        """Have a command committed, and applied here; `done` is told the result or the error."""
        kind = KIND_OF[type(command)]
        packed = (kind, COMMANDS[kind][0], encode(command), request_id)
        _Submission(self, packed, self.daemon.now() + timeout_s, done).attempt()

    def barrier(self, timeout_s: float, done: Callable[[int | None], None]) -> None:
        """The commit index a leader inside its lease names after this call began; None when none does in time."""
        _Barrier(self, self.daemon.now() + timeout_s, done).attempt()

    def read(self, timeout_s: float, look: Look, done: Seen) -> None:
        """A linearizable read through this node: a barrier, then this node's catalog once it has applied that much. `done` is
        told what `look` saw, None when no leader answered in time, or nothing while this node cannot follow."""

        def named(index: int | None) -> None:
            if index is None:
                done(None)
            else:
                self._readers.append((index, look, done))
                self._serve_readers()

        self.barrier(timeout_s, named)

    def _serve_readers(self, *_: object) -> None:
        applied = self.replica.applied_index
        ready = [reader for reader in self._readers if reader[0] <= applied]
        self._readers = [reader for reader in self._readers if reader[0] > applied]
        for _index, look, done in ready:
            done(look(self.replica.catalog))

    def must_give_up(self, deadline: float) -> bool:
        """Too late to try again, or nobody to try it with."""
        now = self.daemon.now()
        lonely_s = min(now - self.replica.core.leader_contact, now - self.started_at)
        return now + RETRY_S >= deadline or lonely_s > GIVEN_UP_S

    def _on_propose(self, source: NodeId, packed: Packed, reply: Reply) -> None:
        try:
            reply(self.replica.propose(*packed))
        except OperatorError as error:
            reply(error)

    def _on_barrier(self, source: NodeId, question: None, reply: Reply) -> None:
        try:
            reply(self.read_index())
        except OperatorError as error:
            reply(error)

    def read_index(self) -> int:
        """This node's own answer to a barrier. Raises `Unavailable`."""
        index = self.replica.core.read_index(self.daemon.now())
        self.replica.scene.watch.acted(self.daemon, "barrier")
        return index


class _Submission:
    """One command on its way. Its own timeout runs on true time: the drivers' is as long on any clock that is nearly right."""

    def __init__(self, forwarding: Forwarding, packed: Packed, deadline: float, done: Callable[[Outcome], None]) -> None:
        self.forwarding = forwarding
        self.daemon = forwarding.daemon
        self.packed = packed
        self.deadline = deadline
        self.done = done
        self.maybe_done: UnknownOutcome | None = None
        self.tries = 0

    def attempt(self) -> None:
        replica = self.forwarding.replica
        leader_id = replica.core.leader_id
        self.tries += 1
        this_try = self.tries
        if leader_id in ("", self.daemon.node_id):
            try:
                proposed = replica.propose(*self.packed)
            except OperatorError as error:
                self._failed(error)
            else:
                self._wait(this_try, proposed)
            return
        if not self.daemon.scene.streams.connected(self.daemon.node_id, leader_id):
            self._failed(Unavailable(f"cannot reach the leader {leader_id}"))
            return
        bound_s = max(0.01, min(CALL_TIMEOUT_S, self.deadline - self.daemon.now()))
        self.daemon.scene.streams.call(
            self.daemon, leader_id, "consensus.propose", self.packed, timeout_s=bound_s,
            done=lambda answer: self._answered(this_try, answer),
        )

    def _answered(self, this_try: int, answer: Any) -> None:
        if answer is None:
            self._failed(UnknownOutcome("the leader did not answer"))
        elif isinstance(answer, Exception):
            self._failed(answer)
        else:
            self._wait(this_try, answer)

    def _wait(self, this_try: int, proposed: Proposed) -> None:
        left_s = max(0.0, self.deadline - self.daemon.now())
        self.daemon.later(left_s, None, self._settled, this_try, UnknownOutcome("no majority confirmed it in time"))
        self.forwarding.replica.result_of(proposed, lambda outcome: self._settled(this_try, outcome))

    def _settled(self, this_try: int, outcome: Outcome) -> None:
        if this_try != self.tries:
            return
        if isinstance(outcome, Exception):
            self._failed(outcome)
        else:
            self.tries += 1
            self.done(outcome)

    def _failed(self, error: Exception) -> None:
        self.tries += 1
        if isinstance(error, UnknownOutcome):
            self.maybe_done = error
        elif not isinstance(error, Unavailable | Overloaded):
            self.done(error)
            return
        if self.forwarding.must_give_up(self.deadline):
            self.done(self.maybe_done or error)
        else:
            self.daemon.later(RETRY_S, None, self.attempt)


class _Barrier:
    """One question for the newest commit index."""

    def __init__(self, forwarding: Forwarding, deadline: float, done: Callable[[int | None], None]) -> None:
        self.forwarding = forwarding
        self.deadline = deadline
        self.done = done

    def attempt(self) -> None:
        daemon = self.forwarding.daemon
        leader_id = self.forwarding.replica.core.leader_id
        if leader_id in ("", daemon.node_id):
            try:
                index = self.forwarding.read_index()
            except Unavailable:
                self._again()
            else:
                self.done(index)
            return
        bound_s = max(0.01, min(CALL_TIMEOUT_S, self.deadline - daemon.now()))
        daemon.scene.streams.call(
            daemon, leader_id, "consensus.barrier", None, timeout_s=bound_s, done=self._answered
        )

    def _answered(self, answer: Any) -> None:
        if isinstance(answer, int):
            self.done(answer)
        else:
            self._again()

    def _again(self) -> None:
        if self.forwarding.must_give_up(self.deadline):
            self.done(None)
        else:
            self.forwarding.daemon.later(RETRY_S, None, self.attempt)
