"""Faults of disks: a store damaged or lost, a write that fails, a copy put back.

A damaged store counts for nothing any more; so a store is only damaged while a majority of every voter set that is in force
anywhere keeps its own, as a cluster that loses a majority of its disks has lost what was on them. A disk is set back only under a
node that does not vote, and did not when the copy was made or since: what an acknowledgement of a voter promised would be broken
with nobody knowing, and a copy from when it was the only voter leads by itself (docs/guarantees.md).

Promise: after any of these a majority of voters still has everything it acknowledged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from swarm.consensus.log import Log
from swarm.consensus.quorum import is_voter, majority, voter_sets
from swarm.model.entry import Configuration, Voter
from swarm.model.ids import NodeId
from swarm.ports import Stored
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.host import Host


class DiskFaults:
    """Of one cluster. `is_over` is asked before what happens later."""

    def __init__(self, cluster: Cluster, rng: random.Random, is_over: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._rng = rng
        self._is_over = is_over

    def no_sync(self, host: Host) -> None:
        """The next write fails."""
        self._cluster.world.trace(host.name, "the next write will fail")
        host.disk.failing = True

    def misread(self, host: Host) -> None:
        """For up to 15 s what is read of snapshots is wrong now and then; nothing that was written is."""
        self._cluster.world.trace(host.name, "DISK MISREADS")
        host.disk.misread = 0.4

        def read_well() -> None:
            host.disk.misread = 0.0

        self._cluster.world.after(15.0 * self._rng.random(), read_well)

    def full(self, host: Host) -> None:
        """Others fill the disk, and for up to 15 s what is written comes out of the reserve."""
        self._cluster.world.trace(host.name, "DISK FULL")
        host.disk.full = True

        def empty() -> None:
            host.disk.full = False

        self._cluster.world.after(15.0 * self._rng.random(), empty)

    def rot(self, host: Host) -> None:
        """The store is damaged under a daemon that ends just then; its next start finds that. Where others have meanwhile made
        it a voter that they need, it was spared: only an operator could go on without it."""
        if host.disk.is_damaged or not self._may_be_lost(host):
            return
        self._cluster.world.trace(host.name, "STORE DAMAGED")
        host.crash_daemon()
        host.disk.is_damaged = True
        host.disk.may_be_wiped = lambda: self._may_be_lost(host)

    def set_back(self, host: Host) -> None:
        """A copy is taken now, and put in the disk's place some seconds later, if the node has been no voter from then on."""
        copy = host.disk.stored()
        voter = Voter(host.node_id, copy.store_generation)

        def put() -> None:
            if self._is_over() or host.disk.is_damaged or copy.store_generation != host.disk.store_generation:
                return
            if self._has_voted_since(copy, voter):
                return
            self._cluster.world.trace(host.name, f"DISK SET BACK to {len(copy.entries)} entries")
            host.crash_daemon()
            host.disk.set_back(copy)

        self._cluster.world.after(1.0 + 6.0 * self._rng.random(), put)

    def _may_be_lost(self, host: Host) -> bool:
        """Whether a majority of every voter set in force, anywhere, keeps its store without this one."""
        by_id = self._cluster.scene.by_id

        def keeps(voter: Voter) -> bool:
            disk = by_id[NodeId(voter.node_id)].disk
            return voter.node_id != host.node_id and not disk.is_damaged and disk.store_generation == voter.store_generation

        return all(
            sum(map(keeps, voters)) >= majority(len(voters))
            for configuration in self._configurations()
            for voters in voter_sets(configuration)
        )

    def _has_voted_since(self, copy: Stored, voter: Voter) -> bool:
        """Whether a node was a voter when a copy of its disk was made, or in any set since, as far as any log tells."""
        copied = Log(copy.entries, copy.snapshot, copy.snapshot_data)
        logs = [Log(s.entries, s.snapshot, s.snapshot_data) for s in (host.disk.stored() for host in self._cluster.hosts)]
        longest = max(logs, key=lambda log: log.last_index)
        if longest.offset > copied.last_index:
            return True  # nobody can say any more
        since = (log.configuration_at(index)[1] for log in logs for index in range(copied.last_index, log.last_index + 1))
        return any(is_voter(each, voter) for each in (copied.configuration, *since, *self._configurations()))

    def _configurations(self) -> Iterator[Configuration]:
        """What each node, running or not, takes for the voters. O(log) for one that does not run."""
        for host in self._cluster.hosts:
            stored = host.disk.stored()
            yield Log(stored.entries, stored.snapshot, stored.snapshot_data).configuration
            if isinstance(host.daemon, Member):
                yield host.daemon.replica.core.configuration
