"""Rolling upgrades across one schema version, with faults between the steps (PROTOCOLS S28).

The hosts run an older program at first; a client wants a kind of entry that only the newer one knows, from the beginning.
Upgraded one after the other, nobody meets what it does not know, and the entry is taken when the last one has declared itself.
A host that runs the older program after that stops applying at the entry, keeps its containers and its vote, leads no more, and
goes on from there when it is upgraded. Snapshots are left out: `tests/drivers/test_versions.py` has those.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from swarm.catalog import core as catalog_core
from swarm.catalog import snapshot
from swarm.consensus.config import ConsensusConfig
from swarm.drivers.declare import Admitted
from swarm.model import command
from swarm.simulation.cluster import Cluster
from swarm.simulation.faults import Faults
from swarm.simulation.host import Host
from swarm.simulation.scene import Settings
from swarm.simulation.workload import Request, Workload
from tests.simulation.checkers import Checkers
from tests.simulation.mutants import patched

OLD = command.SCHEMA_KNOWN
KIND = "later.kind"


class Later(msgspec.Struct, frozen=True, array_like=True):
    """Changes nothing. A kind that the newer program brings."""


@contextmanager
def newer_program() -> Iterator[None]:
    """This process knows one schema more; a host's `schema_known` says which program runs there."""
    command.COMMANDS[KIND], command.KIND_OF[Later], command.SCHEMA_SINCE[KIND, 1] = (1, Later), KIND, OLD + 1
    catalog_core.HANDLERS[Later] = lambda state, command, turn: ""
    try:
        with patched(command, "SCHEMA_KNOWN", OLD + 1), patched(snapshot, "SCHEMA_KNOWN", OLD + 1):
            yield
    finally:
        del command.COMMANDS[KIND], command.KIND_OF[Later], command.SCHEMA_SINCE[KIND, 1], catalog_core.HANDLERS[Later]


class Upgrade:
    """A cluster whose hosts run the older program, with clients and the checkers."""

    def __init__(self, seed: int, hosts: int) -> None:
        self.checkers = Checkers()
        settings = Settings(consensus=ConsensusConfig(snapshot_every=100_000))
        self.cluster = Cluster(seed, hosts, settings=settings, watch=self.checkers)
        self.workload = Workload(self.cluster)
        self.cluster.run(5.0)

    def install(self, host: Host, schema: int) -> None:
        host.crash_daemon()
        host.schema_known = schema
        host.start_daemon()

    def halted(self) -> list[str]:
        return [member.host.name for member in self.cluster.daemons() if member.replica.halted]

    def settle(self, request: Request) -> None:
        for _ in range(60):
            if request.answer is not None:
                return
            self.cluster.run(1.0)
        raise AssertionError(f"nobody answered: {request.command}")


def rolled_through(seed: int) -> None:
    """Upgrade three hosts under faults; raises AssertionError when a host is given what it does not know."""
    with newer_program():
        upgrade = Upgrade(seed, 3)
        cluster = upgrade.cluster
        faults = Faults(cluster, every_s=2.0, kinds=("daemon", "crown", "pair"))
        wanted = upgrade.workload.ask(Later())
        for host in cluster.hosts:
            cluster.run(3.0)
            assert wanted.answer is None, f"{host.name} did not know it yet"
            upgrade.install(host, OLD + 1)
            assert upgrade.halted() == []
        faults.heal()
        upgrade.settle(wanted)
        cluster.run(3.0)
        assert upgrade.halted() == []
        assert wanted.answer is not None and wanted.answer.outcome is None


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_rolling_upgrade_gives_nobody_what_it_does_not_know(seed: int) -> None:
    rolled_through(seed)


def test_without_holding_back_it_would() -> None:
    with patched(Admitted, "held_back", lambda self, kind, version, payload: ""), pytest.raises(AssertionError):
        rolled_through(1)


@pytest.mark.parametrize("seed", [1, 2])
def test_an_older_program_stops_there_keeps_its_containers_and_its_vote_and_goes_on_when_upgraded(seed: int) -> None:
    with newer_program():
        upgrade = Upgrade(seed, 3)
        cluster, workload = upgrade.cluster, upgrade.workload
        for host in cluster.hosts:
            upgrade.install(host, OLD + 1)
        upgrade.settle(workload.ask(Later()))
        leader = cluster.leader()
        assert leader is not None
        behind = next(host for host in cluster.hosts if host is not leader.host)
        running = sorted(behind.engine.boxes)
        upgrade.install(behind, OLD)
        cluster.run(5.0)
        assert upgrade.halted() == [behind.name]
        assert set(running) <= set(behind.engine.boxes), "its containers run on"
        other = next(host for host in cluster.hosts if host not in (behind, leader.host))
        other.lose_power()
        upgrade.settle(workload.submit())
        leads = cluster.leader()
        assert leads is not None and leads.host is leader.host, "with its vote, and not led by it"
        other.restore_power()
        upgrade.install(behind, OLD + 1)
        cluster.run(8.0)
        assert upgrade.halted() == []
        applied = {member.replica.applied_index for member in cluster.daemons()}
        assert max(applied) - min(applied) <= 4, "it went on from there"
