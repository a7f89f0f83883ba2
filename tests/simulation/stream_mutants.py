"""Mutants of learners that take entries from peers. See `mutants`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from swarm.consensus import streaming
from swarm.consensus.messages import Pull
from swarm.consensus.state import State
from swarm.consensus.stream import Taking
from swarm.machine import NEVER
from swarm.model.ids import NodeId
from tests.simulation.mutants import WHERE_TO_LOOK, mutant, patched

WHERE_TO_LOOK.update(
    {
        "a_peer_serves_beyond_its_commit": {"hosts": 6, "kinds": ("crown", "cut"), "every_s": 1.0, "stream_fanout": 8},
        "a_taker_ignores_where_logs_meet": {"hosts": 6, "kinds": ("crown", "cut"), "every_s": 1.0, "stream_fanout": 8},
        "a_taker_never_goes_back": {"hosts": 6, "kinds": ("cut", "daemon"), "every_s": 1.0, "stream_fanout": 1},
        "entries_of_a_later_term_are_taken": {"hosts": 6, "kinds": ("crown", "cut"), "every_s": 1.0, "stream_fanout": 8},
    }
)


@mutant
def a_peer_serves_beyond_its_commit() -> Iterator[None]:
    """A peer gives away what is in its log, and calls it committed."""
    with patched(streaming, "servable_index", lambda state: state.log.last_index):
        yield


@mutant
def a_taker_ignores_where_logs_meet() -> Iterator[None]:
    """A learner asks for what comes after its log, and nobody looks whether the logs are equal up to there."""

    def ask(state: State, taking: Taking) -> None:
        index = state.log.last_index
        taking.asked_at, taking.asked_index = state.now, index
        state.send(taking.source, Pull(*state.header(), index, state.log.last_term, taking.hops))

    def can_serve(state: State, pull: Pull) -> bool:
        return pull.index >= state.log.offset

    with patched(streaming, "_ask", ask), patched(streaming, "can_serve", can_serve), patched(
        streaming, "meets", lambda state, message: message.previous_index <= state.log.last_index
    ):
        yield


@mutant
def a_taker_never_goes_back() -> Iterator[None]:
    """A learner waits for its source for ever."""
    with patched(streaming, "tick", lambda state: None), patched(streaming, "next_deadline", lambda state: NEVER):
        yield


@mutant
def entries_of_a_later_term_are_taken() -> Iterator[None]:
    """A learner takes what a peer sends that has entered a term the learner has not heard of."""

    def on_message(state: State, source: NodeId, message: Any) -> None:
        if isinstance(message, Pull):
            streaming.on_pull(state, source, message)
        else:
            streaming.on_pulled(state, source, message)

    with patched(streaming, "on_message", on_message):
        yield
