"""A quorum is lost for good, a survivor begins a new recovery generation, and those who were lost come back after all.

More on demand: raise `SEEDS`. What must hold at every moment: no runner acts for an earlier generation once it acted for a later
one, an attempt runs once, and (below three voters, where it is promised) nothing acknowledged is lost. In the end: one
generation, one log, every wanted task once.
"""

from __future__ import annotations

import random

import pytest

from swarm.consensus.recovery import Look, Survey
from swarm.drivers.recovery import refuse_needless
from swarm.errors import Bug, Conflict
from swarm.model.entry import Entry
from swarm.model.generation import supersedes
from swarm.model.ids import TaskId
from swarm.model.outcome import Applied
from swarm.model.phase import Desired, Phase
from swarm.runner import labels as container_labels
from swarm.runner.config import RunnerConfig
from swarm.runner.effects import Operation
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.host import Host
from swarm.simulation.node import Daemon
from swarm.simulation.scene import Settings, Watch
from swarm.simulation.workload import Workload
from tests.simulation.recovery_mutants import RECOVERY_MUTANTS

SEEDS = 8
CONVERGE_S = 150
pytestmark = pytest.mark.timeout(300)


class Witness(Watch):
    """Sees what runs, and under which generation runners act."""

    def __init__(self) -> None:
        self.copies: dict[TaskId, dict[int, Host]] = {}
        self.acted_for: dict[int, int] = {}
        """Host -> the latest generation its runner acted for."""
        self.entries: dict[tuple[int, int, int], Entry] = {}
        self.leaders: dict[tuple[int, int], str] = {}

    def operating(self, daemon: Daemon, operation: Operation) -> None:
        generation = daemon.recovery_generation
        before = self.acted_for.get(daemon.host_number, 0)
        assert not supersedes(before, generation), f"{daemon.host.name} acts for {generation} after {before}"
        self.acted_for[daemon.host_number] = generation

    def turned(self, daemon: Daemon) -> None:
        assert isinstance(daemon, Member)
        core = daemon.replica.core
        if core.role.value == "leader":
            known = self.leaders.setdefault((daemon.recovery_generation, core.term), daemon.host.name)
            assert known == daemon.host.name, f"{known} and {daemon.host.name} both lead term {core.term}"

    def applied(self, daemon: Daemon, entry: Entry, applied: Applied) -> None:
        known = self.entries.setdefault((entry.recovery_generation, entry.index, entry.term), entry)
        assert known == entry, f"entry {entry.index} of term {entry.term} has two contents"

    def copy_started(self, host: Host, labels: dict[str, str]) -> None:
        copies = self.copies.setdefault(TaskId(labels[container_labels.TASK]), {})
        copies[host.number] = host

    def copy_ended(self, host: Host, labels: dict[str, str]) -> None:
        self.copies.get(TaskId(labels[container_labels.TASK]), {}).pop(host.number, None)


class Story:
    """One cluster, and what an operator would do to it."""

    def __init__(self, seed: int, hosts: int) -> None:
        self.rng = random.Random(f"{seed}/lost quorum")
        self.watch = Witness()
        self.cluster = Cluster(
            seed, hosts, settings=Settings(runner=RunnerConfig(stray_grace_s=8.0)), watch=self.watch
        )
        self.workload = Workload(self.cluster, every_s=0.4)

    def leads(self) -> bool:
        return self.cluster.leader() is not None

    def until_led(self, seconds: int = 15) -> Member:
        for _ in range(10 * seconds):
            leader = self.cluster.leader()
            if leader is not None:
                return leader
            self.cluster.run(0.1)
        raise AssertionError("nobody leads")

    def voters(self) -> list[Host]:
        ids = [voter.node_id for voter in self.until_led().replica.core.configuration.voters]
        return [host for host in self.cluster.hosts if host.node_id in ids]

    def look(self, host: Host) -> Look:
        assert isinstance(host.daemon, Member)
        core = host.daemon.replica.core
        return Look(
            host.node_id, core.me.store_generation, core.term, core.last_index, core.term_at(core.last_index) or 0,
            core.commit_index, core.applied_index, host.daemon.now() - core.leader_contact, core.lease_valid(host.daemon.now()),
        )  # fmt: skip

    def survey(self, host: Host, others: list[Host]) -> Survey:
        assert isinstance(host.daemon, Member)
        return Survey(self.look(host), tuple(map(self.look, others)), host.daemon.replica.core.configuration)

    def recover(self, survivors: list[Host]) -> Host:
        """What the command makes of them: refused on all but the best, and done there."""
        first, *others = survivors
        best = next(h for h in survivors if h.node_id == self.survey(first, others).best.node_id)
        for host in survivors:
            survey = self.survey(host, [other for other in survivors if other is not host])
            try:
                refuse_needless(survey, str, even_behind=False)
            except Conflict as refused:
                assert host is not best and "newer log" in refused.message, refused
        best.begin_recovery()
        return best

    def known(self, host: Host) -> set[TaskId]:
        assert isinstance(host.daemon, Member)
        return set(host.daemon.replica.catalog.tasks)

    def converge(self) -> None:
        """Nothing is broken any more: it must become well, and stay so for three seconds."""
        self.workload.stop()
        held, wrong = 0, ["not looked yet"]
        for _ in range(CONVERGE_S):
            self.cluster.run(1.0)
            wrong = self.wrong()
            held = 0 if wrong else held + 1
            if held == 3:
                return
        raise AssertionError("; ".join(wrong[:6]))

    def wrong(self) -> list[str]:
        members = list(self.cluster.daemons())
        wrong = [f"{host.name} has no daemon" for host in self.cluster.hosts if host.daemon is None]
        generations = {member.recovery_generation for member in members}
        leader = self.cluster.leader()
        if len(generations) != 1 or leader is None:
            return [*wrong, f"generations {generations}, leader {leader and leader.host.name}"]
        catalog = leader.replica.catalog
        if len({(m.replica.catalog.applied_index, m.replica.catalog.digest()) for m in members}) != 1:
            wrong.append("catalogs differ")
        for task in catalog.tasks.values():
            copies = self.watch.copies.get(task.id, {})
            current = catalog.assignments.get(task.assignment)
            if task.ended or task.desired is not Desired.RUNNING:
                wrong += [f"{task.spec.name} should not run on {sorted(copies)}"] if copies else []
            elif len(copies) != 1 or current is None or current.phase is not Phase.RUNNING:
                wrong.append(f"{task.spec.name} runs on {sorted(copies)}, {current and current.phase.value}: {task.reason}")
        return wrong


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_the_only_voter_is_lost_and_nothing_acknowledged_with_it(seed: int) -> None:
    story = Story(seed, hosts=2)
    story.cluster.run(story.rng.uniform(6, 14))
    (only,) = story.voters()
    (survivor,) = [host for host in story.cluster.hosts if host is not only]
    only.lose_power()
    acknowledged = {*story.workload.wanted, *story.workload.stopped}
    story.cluster.run(story.rng.uniform(6, 10))
    assert not story.leads()
    story.recover([survivor])
    leader = story.until_led()
    assert leader.host is survivor and acknowledged <= story.known(survivor), "nothing acknowledged is lost"
    story.cluster.run(story.rng.uniform(0, 8))
    story.workload.is_over = True
    while any(request.answer is None for request in story.workload.requests):
        story.cluster.run(0.5)
    acknowledged |= {*story.workload.wanted, *story.workload.stopped}
    only.restore_power()
    story.converge()
    assert acknowledged <= story.known(survivor) and acknowledged <= story.known(only)
    assert only.disk.store_generation > 1, "its old log is not continued"


@pytest.mark.parametrize("seed", range(1, SEEDS + 1))
def test_a_majority_is_lost_the_best_survivor_goes_on_and_the_others_take_its_log(seed: int) -> None:
    story = Story(seed, hosts=5)
    story.cluster.run(story.rng.uniform(6, 12))
    lost = story.rng.sample(story.voters(), 2)
    behind = story.rng.choice([host for host in story.cluster.hosts if host not in lost])
    others = [host.number for host in story.cluster.hosts if host is not behind]
    story.cluster.scene.network.split([behind.number], others)
    story.cluster.run(story.rng.uniform(0.2, 1.5))
    for host in lost:
        host.lose_power()
        story.cluster.run(story.rng.choice((0.0, 0.05, 0.4)))
    survivors = [host for host in story.cluster.hosts if host not in lost]
    story.cluster.scene.network.heal()
    story.cluster.run(10.0)
    assert not story.leads()
    everywhere = set.union(*map(story.known, survivors))
    best = story.recover(survivors)
    assert story.until_led().host is best and everywhere <= story.known(best)
    story.cluster.run(story.rng.uniform(0, 10))
    for host in lost:
        host.restore_power()
        story.cluster.run(story.rng.uniform(0, 3))
    story.converge()
    assert everywhere <= story.known(best)


@pytest.mark.parametrize("seed", range(1, SEEDS // 2 + 1))
def test_two_recoveries_at_once_never_merge_and_one_more_settles_them(seed: int) -> None:
    story = Story(seed, hosts=4)
    story.cluster.run(8.0)
    story.workload.is_over = True
    lost = story.voters()[:2]
    for host in lost:
        host.lose_power()
    one, two = [host for host in story.cluster.hosts if host not in lost]
    story.cluster.scene.network.split([one.number], [two.number])
    story.cluster.run(10.0)
    generations = [one.begin_recovery(), two.begin_recovery()]
    story.cluster.run(5.0)
    story.cluster.scene.network.heal()
    story.cluster.run(10.0)
    assert [one.recovery_generation, two.recovery_generation] == generations
    assert not story.cluster.scene.streams.connected(one.node_id, two.node_id)
    leading = [member.host for member in story.cluster.daemons() if member.replica.may_act]
    assert set(leading) == {one, two}, "each by itself"
    before = story.known(two)
    two.begin_recovery()
    for host in lost:
        host.restore_power()
    story.converge()
    assert one.recovery_generation == two.recovery_generation and before <= story.known(one)


NOTICED_BY = {
    "the_worst_survivor_goes_on": test_a_majority_is_lost_the_best_survivor_goes_on_and_the_others_take_its_log,
}
"""The story that shows a mutant; the first one where none is named."""


@pytest.mark.parametrize("name", sorted(RECOVERY_MUTANTS))
def test_a_broken_recovery_is_noticed(name: str) -> None:
    story = NOTICED_BY.get(name, test_the_only_voter_is_lost_and_nothing_acknowledged_with_it)
    with RECOVERY_MUTANTS[name](), pytest.raises((AssertionError, Bug)):
        for seed in range(1, 1 + SEEDS):
            story(seed)
