"""Checkers: what must hold at every moment of a run, seen from outside and in true time.

The checkers hold a catalog of their own, the `truth`: each committed entry is applied to it once, when the first node applies it.
Everything a node does is judged against it: who leads, whose lease stands, what is in the logs, what the catalogs hold, which
containers really run. A violation is an exception that names the rule, and ends the run.
"""

from __future__ import annotations

from swarm.catalog import Catalog
from swarm.consensus.effects import Role
from swarm.consensus.quorum import is_small, voters_of
from swarm.model.command import Assign, PassVerdict, Submit
from swarm.model.entry import Configuration, Entry, SnapshotMeta
from swarm.model.ids import NodeId, RequestId, TaskId
from swarm.model.node import Availability, VerdictKind
from swarm.model.outcome import Applied
from swarm.model.phase import Desired
from swarm.model.resources import fits
from swarm.runner import labels as container_labels
from swarm.runner.effects import Operation, Run, Start, Stop
from swarm.simulation.cluster import Member
from swarm.simulation.host import Host
from swarm.simulation.node import Daemon
from swarm.simulation.scene import Watch
from swarm.wire.codec import decode_untrusted
from swarm.wire.limits import PAYLOAD_BYTES_MAX
from tests.simulation.silence import Silence

DIGEST_EVERY = 8
CORE_CHECK_EVERY = 128
NEWS_CHECK_EVERY = 16
STALE_START_S = 8.0
"""A node without the leader may start nothing new after 5 s; with what is under way, and clocks that are off, after 8."""
PLAN_AGE_S = 15.0
"""So late may a plan be committed: its leader was cut off with it, and a later one found it in its log."""
DISK_STALL_S = 3.4
"""A lease may outlive its disk by 3 s on a clock that is 5 % slow, and the tick that ends it."""
VERDICT_AGE_S = 30.0
"""So late may a silence become a verdict: who believed in it stood still for 18 s, or its leader was cut off with the entry. Of
155 verdicts in 250 runs all but one were passed within 4 s, that one after 8."""
FUTILE_MAX = 12
"""The same plan, refused so many times, is a loop."""


class Violation(AssertionError):
    """A rule is broken. The message begins with the rule's name."""


class Checkers(Watch):
    """All of them. `truth` is the catalog of what is committed."""

    def __init__(self) -> None:
        self.truth = Catalog()
        self.turns = 0
        self._leaders: dict[int, str] = {}
        self._leading: dict[int, Member] = {}
        self._entries: dict[tuple[int, int], Entry] = {}
        self._committed: dict[int, Entry] = {}
        self._digests: dict[int, bytes] = {}
        self._applied: dict[tuple[int, int], int] = {}
        """Life of a daemon -> how far its catalog is."""
        self._requests: dict[RequestId, int] = {}
        self.copies: dict[TaskId, dict[tuple[int, int], Host]] = {}
        """Task -> (attempt, host number) of every container that runs now."""
        self._over_since: dict[str, float] = {}
        """Assignment -> when the log first said that it is to run no more."""
        self._decided: dict[str, NodeId] = {}
        """Assignment -> node, of every one that was ever committed: the catalog forgets those that ended."""
        self._silence = Silence()
        self._news: dict[tuple[int, int], dict[str, tuple[int, int]]] = {}
        self._unwell_at: dict[str, float] = {}
        self._refused: dict[bytes, int] = {}
        self._began: dict[int, float] = {}
        self._leads_with: dict[int, tuple[int, Configuration]] = {}
        """Leading host -> its commit index and voters after its last turn."""
        self._now = 0.0

    # ---- consensus

    def turned(self, daemon: Daemon) -> None:
        assert isinstance(daemon, Member)
        self.turns += 1
        if daemon.world.now >= self._silence.due_at:
            self._silence.look(daemon.scene)
        core = daemon.replica.core
        if core.role is Role.LEADER:
            known = self._leaders.setdefault(core.term, core.me.node_id)
            if known != core.me.node_id:
                raise Violation(f"one leader per term: {known} and {core.me.node_id} both lead term {core.term}")
            self._leading[daemon.host_number] = daemon
            if len(self._leading) > 1:
                self._check_leases()
            self._check_disk(daemon)
            self._check_small(daemon)
        else:
            self._leading.pop(daemon.host_number, None)
            self._leads_with.pop(daemon.host_number, None)
        if self.turns % NEWS_CHECK_EVERY == 0:
            self._check_news(daemon)
        if self.turns % CORE_CHECK_EVERY == 0:
            daemon.check()

    def _check_news(self, daemon: Member) -> None:
        """What a life of a daemon believes of a member never gets older."""
        known = self._news.setdefault((daemon.host_number, daemon.life), {})
        table = daemon.gossip.core._table
        for record in (*table.records.values(), table.me):
            order = (record.generation, record.incarnation)
            if order < known.get(record.name, order):
                raise Violation(
                    f"news never gets older: {daemon.host.name} believed {record.name} {known[record.name]}, now {order}"
                )
            known[record.name] = order

    def _check_leases(self) -> None:
        holders = [
            member.host.name
            for member in self._leading.values()
            if member.is_alive and member.replica.core.lease_valid(member.now())
        ]
        if len(holders) > 1:
            raise Violation(f"leases are disjoint: {' and '.join(holders)} hold one at the same moment")

    def _check_disk(self, daemon: Member) -> None:
        """A disk that completes nothing holds up no lease (S17). What excuses it: a start, a pause of the process."""
        disk, now = daemon.host.disk, daemon.world.now
        since = max(disk.hung_at, self._began.get(daemon.host_number, 0.0))
        stalled = disk.hung and now - since > DISK_STALL_S and not daemon.frozen_lately_s
        if stalled and daemon.replica.core.lease_valid(daemon.now()):
            raise Violation(f"a lease needs a disk: {daemon.host.name} holds one though its disk hangs for {now - since:.1f} s")

    def _check_small(self, daemon: Member) -> None:
        """Below three voters, what is committed is on the disks of the learners that are there, two at most."""
        core, leadership = daemon.replica.core, daemon.replica.core._leadership
        commit = core.commit_index
        before, configuration = self._leads_with.get(daemon.host_number, (commit, core.configuration))
        self._leads_with[daemon.host_number] = commit, core.configuration
        if leadership is None or commit <= before or not is_small(configuration):
            return
        ids = {voter.node_id for voter in (*voters_of(configuration), *voters_of(core.configuration))}
        there = [
            progress
            for progress in leadership.replication.followers.values()
            if progress.node_id not in ids and progress.caught_up and daemon.now() - progress.last_contact <= 1.0
            and progress.disk_age_s <= 3.0 and not progress.disk_full
        ]
        for progress in sorted(there, key=lambda each: (-each.match, each.node_id))[:2]:
            disk = daemon.scene.by_id[progress.node_id].disk
            same = disk.store_generation == progress.generation and not disk.is_damaged and not disk.was_set_back
            if same and disk.durable_index < commit:
                raise Violation(
                    f"below three voters a learner's disk has it too: {commit} is committed, "
                    f"{daemon.scene.name_of(progress.node_id)} has {disk.durable_index}"
                )

    def began(self, daemon: Daemon) -> None:
        self._began[daemon.host_number] = daemon.world.now
        self._leads_with.pop(daemon.host_number, None)

    def ended(self, daemon: Daemon) -> None:
        self._leading.pop(daemon.host_number, None)

    def acted(self, daemon: Daemon, what: str) -> None:
        assert isinstance(daemon, Member)
        core = daemon.replica.core
        if not core.lease_valid(daemon.now()):
            raise Violation(f"a leader acts inside its lease: {daemon.host.name} did {what} without")
        if what == "barrier" and core.commit_index < self.truth.applied_index:
            raise Violation(
                f"a barrier names everything committed: {daemon.host.name} named {core.commit_index}, "
                f"entry {self.truth.applied_index} is applied somewhere"
            )
        if what != "barrier":
            missing = [i for i in range(daemon.replica.applied_index + 1, self.truth.applied_index + 1)
                       if self._committed[i].term < core.term]
            if missing:
                raise Violation(
                    f"a leader acts on what is applied: {daemon.host.name} did {what} in term {core.term} "
                    f"without entry {missing[0]} of term {self._committed[missing[0]].term}"
                )

    def persisting(self, daemon: Daemon, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            known = self._entries.setdefault((entry.index, entry.term), entry)
            if known is not entry and known != entry:
                raise Violation(f"logs agree: entry {entry.index} of term {entry.term} has two contents")

    def applied(self, daemon: Daemon, entry: Entry, applied: Applied) -> None:
        assert isinstance(daemon, Member)
        self._now = daemon.world.now
        if entry.index != self._applied.get((daemon.host_number, daemon.life), 0) + 1:
            raise Violation(f"a catalog goes on from where it is: {daemon.host.name} applied {entry.index} out of order")
        self._applied[daemon.host_number, daemon.life] = entry.index
        known = self._committed.get(entry.index)
        if known is None:
            if entry.index != self.truth.applied_index + 1:
                raise Violation(f"nothing is skipped: {daemon.host.name} applied {entry.index} after {self.truth.applied_index}")
            self._committed[entry.index] = entry
            self._commit(entry)
        elif known is not entry and known != entry:
            raise Violation(
                f"what is applied is final: {daemon.host.name} applied {entry.kind} of term {entry.term} at {entry.index}, "
                f"others {known.kind} of term {known.term}"
            )
        if entry.index % DIGEST_EVERY == 0:
            self._check_digest(daemon, entry.index)

    def restored(self, daemon: Daemon, meta: SnapshotMeta) -> None:
        assert isinstance(daemon, Member)
        if meta.index <= self._applied.get((daemon.host_number, daemon.life), 0):
            raise Violation(f"a catalog goes on from where it is: {daemon.host.name} went back to {meta.index}")
        self._applied[daemon.host_number, daemon.life] = meta.index
        if meta.index > self.truth.applied_index:
            raise Violation(f"a snapshot holds what is committed: index {meta.index} is beyond {self.truth.applied_index}")
        self._check_digest(daemon, meta.index)
        in_force = daemon.replica.core._state.log.configuration_at(meta.index)[1]
        if in_force != daemon.replica.catalog.configuration:
            raise Violation(f"a snapshot brings its voters: {daemon.host.name} has {in_force} at {meta.index}")

    def _check_digest(self, daemon: Member, index: int) -> None:
        digest = daemon.replica.catalog.digest()
        if self._digests.setdefault(index, digest) != digest:
            raise Violation(f"catalogs agree: {daemon.host.name} has another state than others at index {index}")

    # ---- the catalog

    def _commit(self, entry: Entry) -> None:
        """One more entry is committed: apply it to the truth, and judge it."""
        truth = self.truth
        before = dict(truth.assignments) if entry.kind == "task.assign" else {}
        for node in truth.nodes.values():
            if node.verdict.kind is not VerdictKind.ALIVE or node.availability is not Availability.ACTIVE:
                self._unwell_at[node.id] = self._now
        result = truth.apply(entry)
        if entry.index % DIGEST_EVERY == 0:
            self._digests.setdefault(entry.index, truth.digest())
        if entry.request_id and not result.repeated and not is_of_another(result):
            first = self._requests.setdefault(entry.request_id, entry.index)
            if first != entry.index:
                raise Violation(f"a request is applied once: {entry.request_id} at {first} and at {entry.index}")
        if result.outcome is not None:
            self._judge_rejection(entry)
        if result.outcome is not None or result.repeated:
            return
        if entry.kind == "task.assign":
            command = decode_untrusted(entry.payload, Assign, bytes_max=PAYLOAD_BYTES_MAX)
            self._decided[f"{command.task_id}.{command.attempt}"] = command.node_id
            self._judge_assign(command, before)
        elif entry.kind == "node.verdict":
            self._judge_verdict(decode_untrusted(entry.payload, PassVerdict, bytes_max=PAYLOAD_BYTES_MAX))
        for node_id in sorted(result.touched_nodes):
            self._check_fit(node_id)
        for assignment in truth.assignments.values():
            if assignment.ended or assignment.desired is Desired.STOPPED:
                self._over_since.setdefault(assignment.id, self._now)
            else:
                self._over_since.pop(assignment.id, None)

    def _judge_rejection(self, entry: Entry) -> None:
        """A leader that proposes what the catalog refuses must not do so for ever."""
        if entry.request_id:
            return
        times = self._refused[entry.payload] = self._refused.get(entry.payload, 0) + 1
        if times >= FUTILE_MAX:
            raise Violation(f"no futile plans: {entry.kind} was proposed and refused {times} times: {entry.payload!r}")

    def _judge_assign(self, command: Assign, before: dict[str, object]) -> None:
        """A second copy is decided only against a dead or drained node, or one that was so when it was planned."""
        truth = self.truth
        if truth.nodes[command.node_id].witness:
            raise Violation(f"a witness runs nothing: {command.task_id}.{command.attempt} is to run on one")
        others = [
            a for a in truth.assignments.values()
            if a.task_id == command.task_id and a.attempt != command.attempt and a.id in before and not a.ended
            and a.desired is Desired.RUNNING
        ]
        for other in others:
            if other.node_id not in truth.nodes or self._now - self._unwell_at.get(other.node_id, float("-inf")) < PLAN_AGE_S:
                continue
            raise Violation(f"no second copy without a reason: {command.task_id}.{command.attempt} while {other.id} is well")

    def _judge_verdict(self, command: PassVerdict) -> None:
        """A host is called silent only if somebody could not reach its kernel (S22, L8)."""
        age_s = self._silence.age_s(command.node_id, self._now)
        if command.kind is VerdictKind.HOST_SILENT and age_s > VERDICT_AGE_S:
            name = self.truth.nodes[command.node_id].name
            raise Violation(f"who is called silent was: {name} was last out of reach {age_s:.1f} s ago: {command.evidence}")

    def _check_fit(self, node_id: str) -> None:
        truth = self.truth
        node = next((n for n in truth.nodes.values() if n.id == node_id), None)
        if node is None:
            return
        total = None
        for assignment in truth.assignments.values():
            if assignment.node_id == node_id and not assignment.ended:
                amount = truth.tasks[assignment.task_id].spec.resources
                total = amount if total is None else total.plus(amount)
        if total is not None and (short := fits(total, node.capacity)) is not None:
            raise Violation(f"no node is overfull: {node.name} has too little {short}")

    def acknowledged(self, command: Submit) -> None:
        """A client was told that its task is submitted."""
        if command.task_id not in self.truth.tasks:
            raise Violation(f"what is acknowledged is committed: task {command.spec.name} is in no catalog")

    # ---- containers

    def operating(self, daemon: Daemon, operation: Operation) -> None:
        assert isinstance(daemon, Member)
        now = daemon.world.now
        match operation:
            case Run(plan):
                over_since = self._over_since.get(_assignment(plan.labels))
                if over_since is not None and now - over_since > STALE_START_S + daemon.frozen_lately_s:
                    raise Violation(
                        f"the fence: {daemon.host.name} starts {plan.name}, which the log gave up {now - over_since:.1f} s ago"
                    )
            case Stop(container_id):
                box = daemon.host.engine.boxes.get(container_id)
                if box is not None:
                    self._judge_stop(daemon, box.plan.labels)
            case Start():
                pass

    def _judge_stop(self, daemon: Member, labels: dict[str, str]) -> None:
        if labels[container_labels.CLUSTER] != daemon.scene.cluster_id or labels[container_labels.NODE] != daemon.node_id:
            raise Violation(f"what is not ours is not touched: {daemon.host.name} stops a stranger's container")
        assignment = self.truth.assignments.get(_assignment(labels))
        if assignment is None or assignment.ended or assignment.desired is Desired.STOPPED:
            return
        raise Violation(f"nothing is stopped that should run: {daemon.host.name} stops {assignment.id}")

    def copy_started(self, host: Host, labels: dict[str, str]) -> None:
        task_id, attempt = _parts(labels)
        running = self.copies.setdefault(task_id, {})
        if any(other == attempt for other, _ in running):
            raise Violation(f"an attempt runs once: {task_id}.{attempt} runs twice")
        running[attempt, host.number] = host
        if self._decided.get(_assignment(labels)) != host.node_id:
            raise Violation(f"what runs was decided: {host.name} runs {task_id}.{attempt}, which no log has named for it")

    def copy_ended(self, host: Host, labels: dict[str, str]) -> None:
        task_id, attempt = _parts(labels)
        self.copies.get(task_id, {}).pop((attempt, host.number), None)


def is_of_another(applied: Applied) -> bool:
    """Whether it was refused because its request id was first used for another request: a client's mistake, and not applied."""
    return applied.outcome is not None and "the id belongs to another request" in applied.outcome.message


def _parts(labels: dict[str, str]) -> tuple[TaskId, int]:
    return TaskId(labels[container_labels.TASK]), int(labels[container_labels.ATTEMPT])


def _assignment(labels: dict[str, str]) -> str:
    task_id, attempt = _parts(labels)
    return f"{task_id}.{attempt}"
