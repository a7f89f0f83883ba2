"""The secret is rotated while leaders die and daemons stumble: no two members ever part, and it always ends."""

from __future__ import annotations

import random

import pytest

from swarm.model.ids import RequestId
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.node import Daemon
from swarm.simulation.replica import Outcome
from tests.simulation.checkers import Checkers, Violation

AWAY_S_MAX = 3.0
"""A dead daemon is back within this: sooner than a rotation goes on without it."""


class Together(Checkers):
    """All the rules of every run, and that every host can open what any other seals, at each moment."""

    cluster: Cluster

    def turned(self, daemon: Daemon) -> None:
        super().turned(daemon)
        held = [host.secrets for host in self.cluster.hosts]
        for one in held:
            for host, other in zip(self.cluster.hosts, held, strict=True):
                if one.sends not in other.held:
                    raise Violation(f"no member is parted from another: {host.name} does not hold what another sends with")


def ask_for_a_rotation(cluster: Cluster, rng: random.Random) -> None:
    """At any member that runs; refused while another rotation is under way."""
    members = [daemon for daemon in cluster.daemons() if daemon.is_running and daemon.replica.catalog.cluster_id]
    if members:
        member: Member = rng.choice(members)
        request_id = RequestId(f"rotate-{rng.getrandbits(64):x}")
        member.forwarding.submit(member.keys.rotation("chaos"), request_id, 5.0, forget)


def forget(outcome: Outcome) -> None:
    """Whoever asked has gone."""


@pytest.mark.parametrize("seed", range(12))
def test_a_rotation_ends_whoever_leads_and_parts_nobody_on_the_way(seed: int) -> None:
    rng = random.Random(f"{seed}/rotation")
    watch = Together()
    cluster = Cluster(seed, rng.choice((1, 3, 3, 5)), watch=watch)
    watch.cluster = cluster
    cluster.run(4.0)
    for _ in range(10):
        ask_for_a_rotation(cluster, rng)
        cluster.run(rng.uniform(0.0, 0.4))
        leader = cluster.leader()
        victim = leader.host if leader is not None and rng.random() < 0.7 else rng.choice(cluster.hosts)
        if rng.random() < 0.3 and victim.daemon is not None:
            victim.daemon.freeze(rng.uniform(0.1, AWAY_S_MAX))
        else:
            victim.crash_daemon()
            cluster.world.after(rng.uniform(0.1, AWAY_S_MAX), victim.start_daemon)
        cluster.run(rng.uniform(0.5, 4.0))
    cluster.run(20.0)
    leader = cluster.leader()
    assert leader is not None
    secrets = leader.replica.catalog.secrets
    assert secrets.newest > 0 and secrets.phase == "none"
    name = secrets.records[0].authority.fingerprint
    assert all((host.secrets.sends, host.secrets.held) == (name, {name}) for host in cluster.hosts)
    assert len({member.replica.catalog.digest() for member in cluster.daemons()}) == 1


def test_a_host_that_is_away_does_not_hold_a_rotation_up() -> None:
    cluster = Cluster(3, 3, watch=Checkers())
    cluster.run(4.0)
    leader = cluster.leader()
    assert leader is not None
    away = next(host for host in cluster.hosts if host is not leader.host)
    away.lose_power()
    ask_for_a_rotation(cluster, random.Random(1))
    cluster.run(30.0)
    leader = cluster.leader()
    assert leader is not None
    assert leader.replica.catalog.secrets.newest == 1 and leader.replica.catalog.secrets.phase == "none"
    assert away.secrets.sends != leader.host.secrets.sends
