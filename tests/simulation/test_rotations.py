"""The secret is rotated while leaders die and daemons stumble: no two members ever part, and it always ends."""

from __future__ import annotations

import random

import pytest

from swarm.controllers import RotationController, rotation
from swarm.model.command import AckSecret
from swarm.model.ids import RequestId
from swarm.model.secret import Secrets, Wants, ack_of, wants
from swarm.simulation import keys
from swarm.simulation.cluster import Cluster, Member
from swarm.simulation.keys import HeldSecrets, Keys
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


def rotate_in_chaos(seed: int) -> Cluster:
    """Ten rotations asked for, each with a leader or somebody else killed or frozen in the middle; then quiet."""
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
    return cluster


@pytest.mark.parametrize("seed", range(12))
def test_a_rotation_ends_whoever_leads_and_parts_nobody_on_the_way(seed: int) -> None:
    cluster = rotate_in_chaos(seed)
    leader = cluster.leader()
    assert leader is not None
    secrets = leader.replica.catalog.secrets
    assert secrets.newest > 0 and secrets.phase == "none"
    name = secrets.records[0].authority.fingerprint
    assert all((host.secrets.sends, host.secrets.held) == (name, {name}) for host in cluster.hosts)
    assert len({member.replica.catalog.digest() for member in cluster.daemons()}) == 1


@pytest.mark.parametrize("broken", ["nobody is waited for", "answers come before the write", "an old log takes secrets back"])
def test_a_rotation_that_breaks_its_rules_is_caught(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken == "nobody is waited for":
        monkeypatch.setattr(RotationController, "_is_waited_for", lambda self, view, node_id: False)
        monkeypatch.setattr(rotation, "_core_answered", lambda view, unanswered: True)
    elif broken == "answers come before the write":
        monkeypatch.setattr(Keys, "_follow", answer_and_then_write)
    else:
        monkeypatch.setattr(keys, "wants", follow_any_log)
    with pytest.raises(Violation, match="no member is parted"):
        for seed in range(40):
            rotate_in_chaos(seed)


def answer_and_then_write(self: Keys) -> None:
    """`Keys._follow` of a node that says it has what it is about to write."""
    secrets, mine = self.replica.catalog.secrets, self._read()
    todo = wants(secrets, held=mine.held, sends=mine.sends)
    after = HeldSecrets(mine.held | {record.authority.fingerprint for record in todo.missing}, todo.send or mine.sends)
    after = HeldSecrets(after.held - frozenset(todo.forget), after.sends)
    ack = ack_of(secrets, self.daemon.node_id, held=after.held, sends=after.sends)
    if ack is not None:
        request_id = RequestId(f"ack-{self.daemon.host_number}-{self.daemon.life}-{ack.holds}-{ack.sends}")
        self.forwarding.submit(AckSecret(ack.node_id, ack.holds, ack.sends), request_id, 5.0, forget)
    if after != mine:
        self.daemon.later(0.5, None, self._write, after)


def follow_any_log(secrets: Secrets, *, held: frozenset[bytes], sends: bytes) -> Wants:
    """`wants` of a node that believes the log it reads, however old: at a start it goes back to what stands there."""
    if not secrets.records:
        return Wants()
    names = [record.authority.fingerprint for record in secrets.records]
    missing = tuple(record for record in secrets.records if record.authority.fingerprint not in held)
    now = next(record.authority.fingerprint for record in secrets.records if record.number == secrets.sending)
    return Wants(missing, now if now in held else sends, tuple(each for each in held if each not in names and each != now))


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
