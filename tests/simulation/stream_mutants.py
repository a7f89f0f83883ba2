"""Mutants of learners that take entries from peers. See `mutants`."""

from __future__ import annotations

from collections.abc import Iterator

from swarm.consensus import streaming
from swarm.consensus.messages import Pull
from swarm.consensus.progress import Progress, Way
from swarm.consensus.state import State
from swarm.machine import NEVER
from swarm.model.ids import NodeId
from tests.simulation.mutants import WHERE_TO_LOOK, mutant, patched

WHERE_TO_LOOK.update(
    {
        "a_peer_serves_beyond_its_commit": {"hosts": 6, "kinds": ("crown", "cut"), "every_s": 1.0, "stream_fanout": 8},
        "nobody_looks_where_logs_meet": {"hosts": 6, "kinds": ("cut", "power"), "every_s": 1.0, "snapshot_every": 16},
        "a_taker_never_goes_back": {"hosts": 6, "kinds": ("cut", "daemon"), "every_s": 0.5, "stream_fanout": 1},
        "a_leader_never_takes_a_learner_back": {"hosts": 6, "kinds": ("cut", "power"), "every_s": 1.0, "snapshot_every": 16},
    }
)


@mutant
def a_peer_serves_beyond_its_commit() -> Iterator[None]:
    """A peer gives away what is in its log, and calls it committed."""
    with patched(streaming, "servable_index", lambda state: state.log.last_index):
        yield


@mutant
def nobody_looks_where_logs_meet() -> Iterator[None]:
    """A peer answers from whatever stands in its log at that place, and the learner takes it."""

    def can_serve(state: State, pull: Pull) -> bool:
        return state.stream.hops < pull.hops

    with patched(streaming, "can_serve", can_serve), patched(streaming, "meets", lambda state, message: True):
        yield


@mutant
def a_taker_never_goes_back() -> Iterator[None]:
    """A learner waits for its source for ever."""
    with patched(streaming, "tick", lambda state: None), patched(streaming, "next_deadline", lambda state: NEVER):
        yield


@mutant
def a_leader_never_takes_a_learner_back() -> Iterator[None]:
    """Whom a leader has sent to a peer it does not feed any more, whatever the learner says."""
    refuse, send_to = Progress.refuse, Progress.send_to

    def hear_source(self: Progress, source: NodeId) -> bool:
        if source and source == self.source:
            self.way = Way.STREAM
        return False

    def deaf(self: Progress, index: int) -> None:
        if self.way is not Way.STREAM:
            refuse(self, index)

    def for_good(self: Progress, source: NodeId, hops: int) -> None:
        if source or self.way is not Way.STREAM:
            send_to(self, source, hops)

    hearing, refusing = patched(Progress, "hear_source", hear_source), patched(Progress, "refuse", deaf)
    with hearing, refusing, patched(Progress, "send_to", for_good):
        yield
