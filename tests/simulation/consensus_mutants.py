"""Mutants of consensus and its disk that came with the clients' reads, faults of disks and voter changes. See `mutants`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from swarm.catalog.requests import Requests
from swarm.consensus import follower, leader, quorum
from swarm.consensus.core import Consensus
from swarm.consensus.election import Election
from swarm.consensus.leader import Leadership
from swarm.consensus.lease import Promise
from swarm.consensus.log import Log
from swarm.consensus.messages import TimeoutNow
from swarm.consensus.progress import Progress
from swarm.consensus.quorum import quorum_value
from swarm.consensus.replication import Replication
from swarm.consensus.state import State
from swarm.model.entry import Configuration, Voter
from swarm.model.ids import NodeId
from swarm.simulation.disk import Disk
from swarm.simulation.submit import Forwarding
from tests.simulation.mutants import WHERE_TO_LOOK, mutant, patched

WHERE_TO_LOOK.update(
    {
        "joint_counts_the_new_set_only": {"hosts": 5, "kinds": ("coup",), "every_s": 1.0},
        "lease_in_the_new_set_only": {"hosts": 5, "kinds": ("coup",), "every_s": 1.0},
        "store_generation_ignored": {"hosts": 3, "kinds": ("lost_store",), "every_s": 1.0, "append_entries_max": 1},
        "a_damaged_store_keeps_its_name": {"hosts": 3, "kinds": ("lost_store",), "every_s": 1.0, "append_entries_max": 1},
        "a_learner_counts": {"hosts": 5, "kinds": ("crown", "split"), "every_s": 1.0},
        "a_hand_over_keeps_the_lease": {"hosts": 3, "kinds": ("hand_over",), "every_s": 1.0},
        "a_promise_is_waived_for_anybody": {"hosts": 3, "kinds": ("hand_over", "forget"), "every_s": 1.0},
        "a_snapshot_without_its_voters": {"hosts": 4, "kinds": ("power", "voters", "rot"), "every_s": 1.5, "seconds": 45.0},
        "a_failed_write_counts": {"hosts": 3, "kinds": ("no_sync", "crown"), "every_s": 0.7},
        "a_small_cluster_forgets_its_learners": {"hosts": 2, "kinds": ("disk", "freeze"), "every_s": 1.0},
        "a_vote_for_any_log": {"hosts": 3, "kinds": ("crown", "cut"), "every_s": 1.0},
        "the_lease_outlives_the_disk": {"hosts": 3, "kinds": ("disk",), "every_s": 1.5},
        "a_barrier_without_a_lease": {"hosts": 3, "kinds": ("cut", "one_way"), "every_s": 1.5},
        "applied_before_it_is_committed": {"hosts": 3, "kinds": ("crown", "cut"), "every_s": 1.0},
        "a_conflict_is_kept": {"hosts": 3, "kinds": ("crown", "cut"), "every_s": 1.0},
    }
)


@mutant
def a_learner_counts() -> Iterator[None]:
    """A majority of everybody who has the log commits, voter or not."""

    def maybe_commit(self: Leadership) -> bool:
        state = self._state
        everybody = Configuration(state.learners or state.log.configuration.voters)
        index = int(max(0, quorum_value(everybody, self.replication.match_of)))
        if state.log.term_at(index) != state.term or not state.commit(index):
            return False
        self._maybe_finish_change()
        return True

    with patched(Leadership, "maybe_commit", maybe_commit):
        yield


@mutant
def a_hand_over_keeps_the_lease() -> Iterator[None]:
    """A leader sends TimeoutNow and goes on leading until it hears of the next term."""

    def generous(self: Leadership) -> None:
        if self._transfer is None or self.over:
            return
        to = self._transfer[0]
        progress = self.replication.followers.get(to)
        if progress is not None and progress.match == self._state.log.last_index:
            self._state.send(to, TimeoutNow(*self._state.header()))
            self._transfer = None

    with patched(Leadership, "_maybe_hand_over", generous):
        yield


@mutant
def a_promise_is_waived_for_anybody() -> Iterator[None]:
    """Whoever says that a leader released it gets votes past a promise, and everybody says so."""
    ask = Election._ask

    def released(self: Election) -> None:
        self._released = (self._state.promise.leader_id or NodeId("somebody"), self._state.term)
        ask(self)

    def waived(self: Promise, leader_id: NodeId, term: int, now: float) -> bool:
        return True

    def on_pre_vote(self: Election, source: NodeId, message: Any) -> None:
        promise = self._state.promise
        until, promise.until = promise.until, float("-inf")
        answer(self, source, message)
        promise.until = until

    answer = Election.on_pre_vote
    asking, asked = patched(Election, "_ask", released), patched(Election, "on_pre_vote", on_pre_vote)
    with asking, asked, patched(Promise, "is_waived_by", waived):
        yield


@mutant
def a_snapshot_without_its_voters() -> Iterator[None]:
    """Who takes a snapshot keeps the voters it knew."""
    reset = Log.reset

    def forgetful(self: Log, meta: Any, data: bytes) -> None:
        known = self._configurations
        reset(self, meta, data)
        self._configurations = known or self._configurations

    with patched(Log, "reset", forgetful):
        yield


@mutant
def a_failed_write_counts() -> Iterator[None]:
    """A write that failed is taken for done: its pages are clean now, and were never written."""
    complete = Disk._complete

    def blind(self: Disk, opened: int) -> None:
        if self.failing and opened == self._opened and not self.hung and self._under_way:
            self.failing = False
            number, self._under_way = self._under_way[-1].number, []
            done = self._done
            assert done is not None
            done(number)
            if opened == self._opened:
                self._begin()
        else:
            complete(self, opened)

    with patched(Disk, "_complete", blind):
        yield


@mutant
def a_small_cluster_forgets_its_learners() -> Iterator[None]:
    """With one voter, what is on its disk alone is acknowledged."""
    with patched(leader, "is_small", lambda configuration: False):
        yield


@mutant
def a_vote_for_any_log() -> Iterator[None]:
    """Votes are given to candidates that lack entries."""
    with patched(Election, "_is_up_to_date", lambda self, message: True):
        yield


@mutant
def the_lease_outlives_the_disk() -> Iterator[None]:
    """A leader whose disk hangs goes on as long as the network answers."""

    def is_lease_valid(self: Leadership, now: float) -> bool:
        return not self.is_given_up and not self.over and now < self.lease_from() + self._state.config.lease_s

    with patched(Leadership, "is_lease_valid", is_lease_valid), patched(State, "is_disk_stalled", property(lambda self: False)):
        yield


@mutant
def a_barrier_without_a_lease() -> Iterator[None]:
    """Who leads names its commit index, lease or not."""

    def read_index(self: Consensus, now: float) -> int:
        if self._leadership is None:
            return honest(self, now)
        return self.commit_index

    honest = Consensus.read_index
    with patched(Consensus, "read_index", read_index):
        yield


@mutant
def reads_without_a_barrier() -> Iterator[None]:
    """A node answers reads from what it has."""

    def read(self: Forwarding, timeout_s: float, look: Any, done: Any) -> None:
        done(look(self.replica.catalog))

    with patched(Forwarding, "read", read):
        yield


@mutant
def applied_before_it_is_committed() -> Iterator[None]:
    """A follower applies what it was sent."""
    on_append = follower.on_append

    def eager(state: State, source: NodeId, message: Any) -> None:
        on_append(state, source, message)
        if message.previous_index <= state.log.last_index and message.entries:
            state.commit(state.log.last_index)

    with patched(follower, "on_append", eager):
        yield


@mutant
def a_conflict_is_kept() -> Iterator[None]:
    """Entries that contradict the leader's stay in the log, and are acknowledged."""

    def take(self: State, entries: Any) -> None:
        new = [entry for entry in entries if entry.index > self.log.last_index]
        if new:
            self.log.append(new)

    with patched(State, "take", take):
        yield


@mutant
def a_request_id_is_enough() -> Iterator[None]:
    """The same request id with other content is taken for a repetition."""

    def earlier(self: Requests, entry: Any) -> Any:
        record = self._by_id.get(entry.request_id)
        return None if record is None else (record.value, record.rejected, True)

    with patched(Requests, "earlier", earlier):
        yield


@mutant
def joint_counts_the_new_set_only() -> Iterator[None]:
    """During a joint change the set that goes is not asked any more."""
    with patched(quorum, "voter_sets", lambda configuration: (configuration.voters,)):
        yield


@mutant
def lease_in_the_new_set_only() -> Iterator[None]:
    """During a joint change the lease needs a majority of the new set alone."""

    def lease_from(self: Leadership) -> float:
        return quorum_value(Configuration(self._state.log.configuration.voters), self._answered_at)

    with patched(Leadership, "lease_from", lease_from):
        yield


@mutant
def store_generation_ignored() -> Iterator[None]:
    """Votes and acknowledgements of a node count, whatever became of the store that they were made with."""

    def hear(self: Progress, generation: int, last_index: int, now: float) -> bool:
        self.last_contact = now
        return True

    def match_of(self: Replication, voter: Voter) -> int:
        if voter.node_id == self._state.node_id:
            return self._state.writes.durable_index
        progress = self.followers.get(NodeId(voter.node_id))
        return progress.match if progress else 0

    def is_granted(self: Election) -> bool:
        return quorum.has_quorum(self._state.log.configuration, lambda voter: voter.node_id in self._granted)

    def is_voter(configuration: Configuration, voter: Voter) -> bool:
        return voter.node_id in {each.node_id for each in quorum.voters_of(configuration)}

    with (
        patched(Progress, "hear", hear), patched(Replication, "match_of", match_of), patched(Election, "_is_granted", is_granted),
        patched(leader, "is_voter", is_voter),
    ):
        yield


@mutant
def a_damaged_store_keeps_its_name() -> Iterator[None]:
    """A store that was set aside is followed by an empty one under the same generation."""
    wipe = Disk.wipe

    def quietly(self: Disk) -> None:
        wipe(self)
        self.store_generation -= 1

    with patched(Disk, "wipe", quietly):
        yield
