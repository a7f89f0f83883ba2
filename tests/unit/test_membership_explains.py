"""What a status rests on, in words: while a suspicion is open, after a death, and where only one way is cut."""

from __future__ import annotations

import random
import re

from swarm.membership import Config, MemberIdentity, Membership, PingOverStream, TryConnect
from swarm.membership.messages import Claim, Rumours
from swarm.model.liveness import MemberStatus
from tests.fakes.gossip_network import GossipNetwork, address, node_id

ALIVE, SUSPECT, DEAD = MemberStatus.ALIVE, MemberStatus.SUSPECT, MemberStatus.DEAD


def settled(count: int) -> GossipNetwork:
    network = GossipNetwork(count)
    network.run_until(network.all_alive, at_most_s=5.0)
    network.run(1.0)
    return network


def test_who_is_cut_off_from_one_other_says_for_how_long_and_who_reached_it() -> None:
    network = settled(4)
    network.cut |= {(1, 3), (3, 1)}
    network.run(2.0)
    said = set()
    for _ in range(100):
        network.run(0.02)
        assert network.status(1, 3) is ALIVE
        said.add(network.view(1, 3).evidence)
    pattern = r"n1 lost it \d\.\d s ago: no SYN-ACK; n[24] reached it \d+ ms ago"
    assert [words for words in said if not re.fullmatch(pattern, words)] == []
    lost_s = float(re.findall(r"lost it (\S+) s", network.view(1, 3).evidence)[0])
    assert 3.5 < lost_s < 4.5, "counted since it last answered, not since the last ping"
    network.heal()
    network.run(1.0)
    assert re.fullmatch(r"it answered \d+ ms ago", network.view(1, 3).evidence)


def test_a_new_suspicion_is_not_dated_by_one_that_is_long_over() -> None:
    network = settled(3)
    network.cut |= {(2, 3), (3, 2)}
    network.run(2.0)
    assert "n1 reached it" in network.view(2, 3).evidence
    network.heal()
    network.run(60.0)
    network.kill_host(3)
    network.run_until(lambda: network.status(2, 3) is SUSPECT, at_most_s=3.0)
    assert re.fullmatch(r"(n1, )?n2(, n1)? lost it (\d+ ms|[0-2]\.\d s) ago: no SYN-ACK(; .*)?", network.view(2, 3).evidence)
    assert "reached it" not in network.view(2, 3).evidence


def test_an_open_suspicion_already_tells_who_lost_it_and_what_the_kernel_did() -> None:
    network = settled(4)
    network.kill_host(3)
    network.run_until(lambda: network.status(1, 3) is SUSPECT, at_most_s=2.0)
    assert re.fullmatch(r"n1(, n\d)* lost it \d+ ms ago: no SYN-ACK(; .*)?", network.view(1, 3).evidence)


def test_a_killed_daemon_is_told_with_its_kernels_refusal_by_every_observer() -> None:
    network = settled(3)
    network.kill_daemon(3)
    network.run_until(lambda: network.all_see(3, DEAD), at_most_s=2.0)
    for observer in (1, 2):
        changes = [change for _, change in network.hosts[observer].changes if change.new.status is DEAD]
        assert len(changes) == 1
        assert "kernel refuses the port" in changes[0].evidence


def test_investigations_are_counted_by_how_they_ended() -> None:
    network = settled(3)
    network.cut |= {(1, 3), (3, 1)}
    network.run(2.0)
    counters = network.hosts[1].core.counters
    assert 0 < counters["cases_reached_by_others"] <= counters["cases_opened"]
    assert network.hosts[2].core.counters["cases_opened"] == 0


def test_a_stalled_daemon_is_told_with_the_silence_of_its_stream() -> None:
    network = settled(3)
    for observer in (1, 2):
        network.intend(observer, lambda core: core.observe_stream(node_id(3), True, network.now))
    network.freeze(3)
    network.run_until(lambda: network.all_see(3, DEAD), at_most_s=12.0)
    pattern = r"n1, n2 lost it 5\.\d s ago: its kernel accepts, nobody speaks; the last that came over its stream: 5\.\d s ago"
    assert re.fullmatch(pattern, network.view(1, 3).evidence), network.view(1, 3).evidence


def test_what_still_comes_over_a_stream_proves_a_host_whose_kernel_answers_no_connect() -> None:
    core = Membership(identity=MemberIdentity(node_id(1), "n1", address(1), 1), config=Config(), rng=random.Random(1), now=0.0)
    core.set_admitted({node_id(2): ("n2", address(2))}, 0.0)
    core.on_packet(("10.77.0.12", 4747), Rumours(Claim(node_id(2), 1, 0, ALIVE, "n2", address(2))), 0.0)
    core.observe_stream(node_id(2), True, 0.0)
    now = 0.0
    while now < 4.0:
        core.tick(now)
        for effect in core.take_effects():
            if isinstance(effect, TryConnect):
                core.on_connect_result(effect.probe_id, "silent", now)
            elif isinstance(effect, PingOverStream):
                core.on_stream_ping(effect.probe_id, False, now, 0.05)
        now += 0.05
    assert core.members()[node_id(2)].status is SUSPECT
    assert core.counters["deaths_host_silent"] == 0
