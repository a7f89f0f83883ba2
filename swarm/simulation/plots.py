"""Plots: faults that follow each other in one order, for accidents that chance alone would show once in thousands of runs.

Each watches the cluster more closely than anybody could and strikes at the worst moment. A plot that does not get as far as it
wants ends by itself; what it broke is repaired either way.

Promise: nothing here changes a node's state. Power is cut and restored, paths are closed and opened, commands are submitted.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import cast

from swarm.consensus.effects import Role
from swarm.errors import OperatorError
from swarm.model.command import SetNode
from swarm.model.ids import RequestId, random_id
from swarm.model.node import Availability, VerdictKind
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.host import Host
from swarm.simulation.node import Daemon

LOOK_S = 0.001
ELECTION_S = 6.0
"""Within this an election is over, or the plot is."""
SUBMIT_S = 2.0

Condition = Callable[[], bool]
Step = tuple[Condition, float]
"""What to wait for, and for how long at most."""


class Plots:
    """Of one cluster. `is_over` is asked before every step."""

    def __init__(self, cluster: Cluster, rng: random.Random, is_over: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._rng = rng
        self._is_over = is_over
        self._under_way = False
        self._lonely: list[Host] = []
        """Whoever of them comes to lead is cut off before it can say so."""
        cluster.scene.on_leader.append(self._on_leader)

    def _on_leader(self, daemon: Daemon) -> None:
        if daemon.host in self._lonely and not self._is_over():
            self._split([daemon.host], [host for host in self._cluster.hosts if host is not daemon.host])

    def begin(self, plot: Iterator[Step]) -> None:
        """Follow a plot, unless one is followed already."""
        if not self._under_way:
            self._under_way = True
            self._follow(plot)

    def _follow(self, plot: Iterator[Step]) -> None:
        step = None if self._is_over() else next(plot, None)
        if step is None:
            self._under_way = False
        else:
            self._wait(plot, step[0], self._cluster.world.now + step[1])

    def _wait(self, plot: Iterator[Step], condition: Condition, until: float) -> None:
        if condition() or self._cluster.world.now >= until:
            self._follow(plot)
        else:
            self._cluster.world.after(LOOK_S, self._wait, plot, condition, until)

    # ---- the plots

    def figure_8(self) -> Iterator[Step]:
        """The Raft paper's figure 8. Two nodes hold entries of an old term; a leader of a later one is gone before anybody has
        its first entry; one of the two leads again and brings the old entries to a majority; then both are gone, and the one
        with the later entry is back. Needs five voters."""
        first = self._cluster.leader()
        voters = [] if first is None else self._voters(first)
        if first is None or len(voters) < 5:
            return
        second = self._rng.choice([host for host in voters if host is not first.host])
        pair, others = [first.host, second], [host for host in self._cluster.hosts if host not in (first.host, second)]
        self._split(pair, others)
        old = first.replica.core.last_index + 1
        for _ in range(6):
            self._submit(first)
        yield lambda: self._last_index(second) >= old + 5, 0.5
        self._lose_power(*pair)
        self._cluster.scene.network.heal()
        self._lonely = others
        yield lambda: self._leads_among(others) is not None, ELECTION_S
        self._lonely, third = [], self._leads_among(others)
        if third is not None:
            yield self._after(0.1)
            self._lose_power(third)
            self._cluster.scene.network.heal()
            self._restore_power(*pair)
            yield lambda: self._commits(pair, old), ELECTION_S
            self._lose_power(*pair)
            self._restore_power(third)
            yield lambda: self._leads_among([third]) is not None, ELECTION_S
        self._restore_power(*self._cluster.hosts)

    def dead_king(self) -> Iterator[Step]:
        """A node that a leader judged dead is back and knows the whole log; before it is judged alive the leader is gone, and
        the node leads in its stead."""
        leader = self._cluster.leader()
        if leader is None or len(self._cluster.hosts) < 3:
            return
        king = self._rng.choice([host for host in self._cluster.hosts if host is not leader.host])
        self._lose_power(king)
        yield lambda: self._judged_dead(king), 5.0
        self._restore_power(king)
        now = self._cluster.leader()
        yield lambda: now is None or self._last_index(king) >= now.replica.core.last_index, 3.0
        third = [host for host in self._cluster.hosts if now is not None and host not in (king, now.host)]
        if now is not None:
            self._lose_power(now.host)
        for host in third:
            if host.daemon is not None:
                host.daemon.freeze(0.9 + self._rng.random())
        yield lambda: self._leads_among([king]) is not None, ELECTION_S
        self._restore_power(*self._cluster.hosts)

    def lost_store(self) -> Iterator[Step]:
        """An entry is on two disks of three; one of them is damaged, and when that node has the first entry again the other one's
        host is gone: the third, which never heard of the entry, and the one that lost it must not lead. Needs three voters."""
        leader = self._cluster.leader()
        voters = [] if leader is None else self._voters(leader)
        if leader is None or len(voters) != 3 or any(host.daemon is None for host in voters):
            return
        named = {voter.node_id: voter.store_generation for voter in leader.replica.core.configuration.voters}
        if any(named[host.node_id] != host.disk.store_generation for host in voters):
            return
        witness, third = self._rng.sample([host for host in voters if host is not leader.host], 2)
        self._split([third], [host for host in self._cluster.hosts if host is not third])
        old = leader.replica.core.last_index + 1
        for _ in range(3):
            self._submit(leader)
        yield lambda: self._commits([leader.host], old), 1.0
        witness.crash_daemon()
        witness.disk.is_damaged = True
        witness.start_daemon()
        yield lambda: self._last_index(witness) >= 1, 2.0
        self._lose_power(leader.host)
        self._cluster.scene.network.heal()
        yield lambda: self._leads_among([third, witness]) is not None, 4.0
        self._restore_power(*self._cluster.hosts)

    def coup(self) -> Iterator[Step]:
        """A leader that is cut off from everybody would be the only voter from now on; the others elect another."""
        leader = self._cluster.leader()
        if leader is None or len(self._cluster.hosts) < 3:
            return
        others = [host for host in self._cluster.hosts if host is not leader.host]
        self._split([leader.host], others)
        core = leader.replica.core
        me = tuple(voter for voter in core.configuration.voters if voter.node_id == leader.node_id)
        utc = leader.host.clock.utc
        leader.feed(leader.replica, self._try, lambda: core.propose_configuration(me, leader.now(), utc()))
        yield lambda: self._leads_among(others) is not None, ELECTION_S
        yield self._after(1.0)
        self._cluster.scene.network.heal()

    def _try(self, intent: Callable[[], object]) -> None:
        with contextlib.suppress(OperatorError):
            intent()

    # ---- what is looked at

    def _after(self, delay_s: float) -> Step:
        until = self._cluster.world.now + delay_s
        return lambda: self._cluster.world.now >= until, delay_s

    def _member(self, host: Host) -> Member | None:
        return cast("Member | None", host.daemon)

    def _last_index(self, host: Host) -> int:
        member = self._member(host)
        return 0 if member is None else member.replica.core.last_index

    def _leads_among(self, hosts: list[Host]) -> Host | None:
        for host in hosts:
            member = self._member(host)
            if member is not None and member.replica.core.role is Role.LEADER:
                return host
        return None

    def _commits(self, hosts: list[Host], index: int) -> bool:
        members = [self._member(host) for host in hosts]
        return any(member is not None and member.replica.core.commit_index >= index for member in members)

    def _judged_dead(self, host: Host) -> bool:
        leader = self._cluster.leader()
        node = None if leader is None else leader.replica.catalog.nodes.get(host.node_id)
        return node is not None and node.verdict.kind is not VerdictKind.ALIVE

    def _voters(self, leader: Member) -> list[Host]:
        ids = {voter.node_id for voter in leader.replica.core.configuration.voters}
        return [host for host in self._cluster.hosts if host.node_id in ids]

    # ---- what is done

    def _split(self, left: list[Host], right: list[Host]) -> None:
        self._cluster.scene.network.split([host.number for host in left], [host.number for host in right])

    def _lose_power(self, *hosts: Host) -> None:
        for host in hosts:
            host.lose_power()

    def _restore_power(self, *hosts: Host) -> None:
        for host in hosts:
            host.restore_power()

    def _submit(self, member: Member) -> None:
        """A command that changes nothing, under an id of its own."""
        command = SetNode(member.host.node_id, Availability.ACTIVE)
        request_id = RequestId(random_id(self._rng))
        member.feed(None, member.forwarding.submit, command, request_id, SUBMIT_S, lambda outcome: None)
