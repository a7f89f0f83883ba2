"""Mutants: cores and driver glue broken on purpose, one rule each. A checker that no mutant can wake is asleep.

Each is a context manager that patches the broken piece in and takes it out again; its docstring says which rule is gone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from swarm.catalog import Catalog
from swarm.catalog.requests import Requests
from swarm.catalog.state import State as CatalogState
from swarm.consensus import follower
from swarm.consensus.core import Consensus
from swarm.consensus.leader import Leadership
from swarm.consensus.lease import Promise
from swarm.consensus.messages import Heartbeat
from swarm.consensus.quorum import is_small, quorum_value
from swarm.consensus.replication import Replication
from swarm.consensus.state import State
from swarm.consensus.writes import Writes
from swarm.controllers.lead import LeadController
from swarm.controllers.verdict import VerdictController
from swarm.membership.table import Table
from swarm.model.entry import Voter
from swarm.model.hostport import take_ports
from swarm.model.liveness import MemberStatus
from swarm.runner import core as runner_core
from swarm.runner import labels as runner_labels
from swarm.runner.effects import Stop
from swarm.runner.fence import Fence
from swarm.simulation.containers import Containers
from swarm.simulation.disk import Disk


@contextmanager
def patched(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Put something else in an attribute's place for a while."""
    before = owner.__dict__[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, before)


WHERE_TO_LOOK: dict[str, dict[str, Any]] = {
    "vote_not_persisted": {"hosts": 3, "kinds": ("crown",), "every_s": 2.0},
    "no_wait_after_a_start": {"hosts": 3, "kinds": ("forget",), "every_s": 4.0},
    "old_terms_are_counted": {"hosts": 7, "kinds": ("figure_8",), "every_s": 1.0, "append_entries_max": 1, "seconds": 25.0},
    "a_leader_keeps_the_verdict_on_itself": {"hosts": 3, "kinds": ("dead_king",), "every_s": 1.0},
    "commit_believed_without_a_match": {"hosts": 3, "kinds": ("crown",), "every_s": 2.0},
    "promise_not_kept": {"hosts": 3, "kinds": ("forget", "pair"), "every_s": 4.0},
    "leader_counts_itself_before_its_disk": {"hosts": 1, "kinds": ("daemon", "blackout")},
    "lease_counted_from_the_answer": {"hosts": 3, "kinds": ("forget", "pair"), "every_s": 4.0, "reads": False},
    "sent_before_persisted": {"hosts": 3, "kinds": ("crown", "daemon"), "every_s": 1.0},
    "fence_dropped": {"hosts": 3, "kinds": ("cut", "power"), "every_s": 2.0},
    "reservations_are_forgotten": {"reads": False, "later": False},
    "a_witness_leads_on": {"hosts": 3, "witnesses": 1, "kinds": ("cut", "power"), "seconds": 12.0},
    "snapshot_forgets_requests": {"hosts": 3, "kinds": ("power",), "seconds": 60.0},
}
"""What makes a mutant's accident likely; without an entry the seeds of everybody show it soon."""
SHOWN_BY = {
    "lease_counted_from_the_answer": 96,
    "no_wait_after_a_start": 32,
    "a_promise_is_waived_for_anybody": 22,
    "a_leader_keeps_the_verdict_on_itself": 11,
    "a_vote_for_any_log": 11,
    "the_lease_outlives_the_disk": 9,
    "reservations_are_forgotten": 8,
    "old_terms_are_counted": 15,
    "an_older_incarnation_is_accepted": 7,
}
"""The first seed that showed it when it was last looked for: tried before all others, which only saves time."""

Mutant = Callable[[], Any]
MUTANTS: dict[str, Mutant] = {}


def mutant(function: Callable[[], Iterator[None]]) -> Mutant:
    """Register one."""
    made = contextmanager(function)
    functools.update_wrapper(made, function)
    MUTANTS[function.__name__] = made
    return made


@mutant
def vote_not_persisted() -> Iterator[None]:
    """Term and vote are forgotten at a crash."""
    apply = Disk._apply

    def without_vote(self: Disk, batch: Any) -> None:
        before = self._hard_state
        apply(self, batch)
        self._hard_state = before

    with patched(Disk, "_apply", without_vote):
        yield


@mutant
def no_noop_gate() -> Iterator[None]:
    """A new leader acts, and answers barriers, before what earlier leaders left is applied."""

    def read_index(self: Consensus, now: float) -> int:
        return self.commit_index

    with patched(Consensus, "may_act", Consensus.lease_valid), patched(Consensus, "read_index", read_index):
        yield


@mutant
def lease_counted_from_the_answer() -> Iterator[None]:
    """The lease runs from when an answer came, not from when its round was sent."""

    def on_heartbeat_reply(self: Leadership, source: Any, message: Any) -> None:
        sent_at = self._rounds.sent(message.round)
        if sent_at is None:
            return
        progress = self.replication.on_heartbeat_reply(source, message, sent_at)
        if progress:
            progress.answered_at = self._state.now

    with patched(Leadership, "on_heartbeat_reply", on_heartbeat_reply):
        yield


@mutant
def no_wait_after_a_start() -> Iterator[None]:
    """A restarted voter votes at once, though it may have promised not to."""
    begin = Promise.__init__

    def __init__(self: Promise, config: Any, now: float) -> None:
        begin(self, config, now)
        self.until = now

    with patched(Promise, "__init__", __init__):
        yield


@mutant
def promise_not_kept() -> Iterator[None]:
    """A voter that heard its leader votes for another all the same."""
    with patched(Promise, "holds", lambda self, now: False):
        yield


@mutant
def old_terms_are_counted() -> Iterator[None]:
    """Replicas of earlier terms' entries count for commit (figure 8)."""

    def maybe_commit(self: Leadership) -> bool:
        index = int(max(0, quorum_value(self._state.log.configuration, self.replication.match_of)))
        if is_small(self._state.log.configuration):
            index = min([index, *(progress.match for progress in self._witnessing_learners())])
        if not self._state.commit(index):
            return False
        self._maybe_finish_change()
        return True

    with patched(Leadership, "maybe_commit", maybe_commit):
        yield


@mutant
def leader_counts_itself_before_its_disk() -> Iterator[None]:
    """A leader's own write counts before it is durable."""
    match_of = Replication.match_of

    def hasty(self: Replication, voter: Voter) -> int:
        return self._state.log.last_index if voter == self._state.me else match_of(self, voter)

    with patched(Replication, "match_of", hasty):
        yield


@mutant
def sent_before_persisted() -> Iterator[None]:
    """Votes and acknowledgements leave beside the write they promise."""

    def release(self: Writes, send: Any) -> None:
        self._outbox.emit(send)

    with patched(Writes, "release", release):
        yield


@mutant
def commit_believed_without_a_match() -> Iterator[None]:
    """A leader tells everybody its commit index, and it is taken though the entry there may be another."""

    def heartbeat(self: Replication, progress: Any, number: int) -> Heartbeat:
        commit = progress.told_commit = self._state.commit_index
        return Heartbeat(*self._state.header(), number, commit, self._state.log.term_at(commit) or 0)

    def on_heartbeat(state: State, source: Any, message: Any) -> None:
        state.hear_leader(source)
        state.commit(min(message.commit, state.log.last_index))
        if message.round:
            state.send(source, follower.heartbeat_reply(state, message.round))

    with patched(follower, "on_heartbeat", on_heartbeat), patched(Replication, "heartbeat", heartbeat):
        yield


@mutant
def an_older_incarnation_is_accepted() -> Iterator[None]:
    """Old news about a member prevails over new, if it accuses."""
    adopt = Table.adopt

    def gullible(self: Table, record: Any, claim: Any, now: float) -> bool:
        if claim.status in (MemberStatus.SUSPECT, MemberStatus.DEAD) and claim.generation == record.generation:
            record.incarnation = min(record.incarnation, claim.incarnation)
        return adopt(self, record, claim, now)

    with patched(Table, "adopt", gullible):
        yield


@mutant
def fence_dropped() -> Iterator[None]:
    """A runner starts what it last heard of, however long ago."""
    with (
        patched(Fence, "may_start", lambda self, applied_index, now: True),
        patched(Fence, "is_fresh", lambda self, applied_index: True),
    ):
        yield


@mutant
def label_filter_dropped() -> Iterator[None]:
    """Every container with a task label counts as ours."""

    def anybodys(found: Any, cluster_id: Any, node_id: Any) -> str | None:
        task_id = found.get(runner_labels.TASK)
        return f"{task_id}.{found.get(runner_labels.ATTEMPT)}" if task_id else None

    with patched(runner_labels, "assignment_of", anybodys), patched(runner_core.labels, "assignment_of", anybodys):
        yield


@mutant
def requests_are_not_remembered() -> Iterator[None]:
    """The same request id is applied again."""
    with patched(Requests, "earlier", lambda self, entry: None):
        yield


@mutant
def snapshot_forgets_requests() -> Iterator[None]:
    """A catalog restored from a snapshot does not know which requests were applied."""
    restore = Catalog.restore

    def forgetful(self: Catalog, data: bytes) -> None:
        restore(self, data)
        self._requests = Requests()

    with patched(Catalog, "restore", forgetful):
        yield


@mutant
def reservations_are_forgotten() -> Iterator[None]:
    """What runs on a node takes no room."""

    def forgetful(self: CatalogState, assignment: Any) -> None:
        self.by_node[assignment.node_id][assignment.id] = None
        take_ports(self.ports_taken[assignment.node_id], self.tasks[assignment.task_id].spec.ports)

    def release(self: CatalogState, assignment: Any) -> None:
        del self.by_node[assignment.node_id][assignment.id]

    with patched(CatalogState, "_reserve", forgetful), patched(CatalogState, "_release", release):
        yield


@mutant
def a_daemons_start_stops_what_runs() -> Iterator[None]:
    """A starting daemon begins with a clean table: it stops the containers it finds."""
    begin = Containers.__init__

    def __init__(self: Containers, daemon: Any, *others: Any, **options: Any) -> None:
        begin(self, daemon, *others, **options)
        for box in self.engine.boxes.values():
            stop = Stop(box.container_id, "", 1.0)
            self.daemon.scene.watch.operating(daemon, stop)
            self.engine.call(stop, lambda result: None, lambda: True)

    with patched(Containers, "__init__", __init__):
        yield


@mutant
def apply_reads_the_clock() -> Iterator[None]:
    """The catalog's time is this host's, not the entry's."""
    apply = Catalog.apply
    calls = [0]

    def impure(self: Catalog, entry: Any) -> Any:
        result = apply(self, entry)
        calls[0] += 1
        self._state.last_time_utc += calls[0] * 1e-3
        return result

    with patched(Catalog, "apply", impure):
        yield


@mutant
def a_leader_keeps_the_verdict_on_itself() -> Iterator[None]:
    """A leader that an earlier one judged dead leaves that verdict standing."""
    reconcile = VerdictController.reconcile

    def modest(self: VerdictController, view: Any) -> Any:
        return [command for command in reconcile(self, view) if command.node_id != view.self_id]

    with patched(VerdictController, "reconcile", modest):
        yield


@mutant
def a_witness_leads_on() -> Iterator[None]:
    """A witness that was elected goes on leading when full voters could."""
    with patched(LeadController, "reconcile", lambda self, view: None):
        yield
