"""Whole groups of membership cores on virtual time: what is found, how soon, and what must never be said."""

from __future__ import annotations

import pytest

from swarm.model.liveness import MemberStatus, Sample
from swarm.model.node import VerdictKind
from tests.fakes.gossip_network import GossipNetwork, node_id

ALIVE, SUSPECT, DEAD, LEFT = MemberStatus.ALIVE, MemberStatus.SUSPECT, MemberStatus.DEAD, MemberStatus.LEFT
SEEDS = range(5)


def settled(count: int, **how: object) -> GossipNetwork:
    """A group in which everybody knows everybody, at a moment that depends on the seed."""
    network = GossipNetwork(count, **how)  # type: ignore[arg-type]
    network.run_until(network.all_alive, at_most_s=3)
    network.run(2 + network.rng.random())
    return network


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [2, 3, 10])
def test_power_cut_is_silent_host_at_all_others_within_one_and_a_half_seconds(count: int, seed: int) -> None:
    network = settled(count, seed=seed)
    network.kill_host(count)
    took_s = network.run_until(lambda: network.all_see(count, DEAD), at_most_s=1.5)
    assert took_s > 0.6, "one lost ping must not be enough"
    assert {kind for _, _, _, kind in network.deaths()} == {"host_silent"}
    assert {subject for _, _, subject, _ in network.deaths()} == {count}
    network.run(5)
    assert network.all_see(count, DEAD)


@pytest.mark.parametrize("seed", SEEDS)
def test_power_cut_among_thirty_is_known_to_all_within_two_seconds(seed: int) -> None:
    network = settled(30, seed=seed)
    network.kill_host(30)
    network.run_until(lambda: network.all_see(30, DEAD), at_most_s=2)
    assert {subject for _, _, subject, _ in network.deaths()} == {30}


@pytest.mark.parametrize("count", [2, 3, 10])
def test_killed_daemon_is_gone_within_three_tenths_of_a_second(count: int) -> None:
    network = settled(count)
    network.kill_daemon(count)
    network.run_until(lambda: network.all_see(count, DEAD), at_most_s=0.3)
    assert {kind for _, _, _, kind in network.deaths()} == {"daemon_gone"}


def test_killed_daemon_is_gone_even_when_no_stream_tells() -> None:
    network = settled(3, streams=False)
    network.kill_daemon(3)
    network.run_until(lambda: network.all_see(3, DEAD), at_most_s=0.5)
    assert network.view(1, 3).death_kind is VerdictKind.DAEMON_GONE


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [2, 3, 10])
def test_stalled_daemon_is_suspect_soon_stalled_late_and_never_a_silent_host(count: int, seed: int) -> None:
    network = settled(count, seed=seed)
    network.freeze(count)
    network.run(3)
    assert network.all_see(count, SUSPECT), network.picture()
    assert not network.deaths()
    network.run(5)
    assert network.all_see(count, DEAD)
    assert {kind for _, _, _, kind in network.deaths()} == {"daemon_stalled"}


@pytest.mark.parametrize("frozen_s", [0.3, 1.0, 3.0, 10.0, 60.0])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_thawed_node_accuses_nobody_and_is_alive_again_within_two_seconds(count: int, frozen_s: float) -> None:
    network = settled(count)
    network.freeze(1)
    network.run(frozen_s)
    network.thaw(1)
    network.run_until(network.all_alive, at_most_s=2)
    network.run(5)
    assert network.all_alive()
    accusations = [c.new for _, c in network.hosts[1].changes if c.new.status in (SUSPECT, DEAD) and c.new.generation > 0]
    assert not accusations


def test_one_way_cut_between_two_of_three_kills_and_suspects_nobody() -> None:
    network = settled(3)
    network.cut.add((1, 2))
    network.run(20)
    assert network.all_alive()
    assert not network.deaths()


def test_full_cut_between_two_of_three_kills_and_suspects_nobody_and_says_who_reached_it() -> None:
    network = settled(3)
    before = len(network.hosts[1].changes)
    network.cut |= {(1, 2), (2, 1)}
    network.run(20)
    assert network.all_alive() and not network.deaths()
    assert len(network.hosts[1].changes) == before
    assert "n3 reached it" in network.view(1, 2).evidence


def test_isolated_node_is_silent_to_the_others_and_everyone_is_back_after_healing() -> None:
    network = settled(3)
    network.cut_off({1}, {2, 3})
    network.run_until(lambda: network.status(2, 1) is DEAD and network.status(3, 1) is DEAD, at_most_s=1.5)
    assert network.status(2, 3) is ALIVE and network.status(3, 2) is ALIVE
    network.run(60)
    network.heal()
    network.run_until(network.all_alive, at_most_s=5)


@pytest.mark.parametrize("split_s", [5, 300])
def test_split_heals_by_itself_however_long_it_was(split_s: float) -> None:
    network = settled(6)
    network.cut_off({1, 2, 3}, {4, 5, 6})
    network.run(10)
    assert all(network.status(a, b) is DEAD for a in (1, 2, 3) for b in (4, 5, 6))
    assert all(network.status(a, b) is ALIVE for a in (1, 2, 3) for b in (1, 2, 3))
    network.run(split_s)
    network.heal()
    network.run_until(network.all_alive, at_most_s=20)
    network.run(10)
    assert network.all_alive()


def test_two_hosts_of_five_at_once_are_both_found() -> None:
    network = settled(5)
    network.kill_host(4)
    network.kill_host(5)
    network.run_until(lambda: network.all_see(4, DEAD) and network.all_see(5, DEAD), at_most_s=2.5)
    assert {kind for _, _, _, kind in network.deaths()} == {"host_silent"}


def test_restarted_daemon_is_alive_at_once_by_its_higher_generation() -> None:
    network = settled(3)
    network.kill_daemon(3)
    network.run_until(lambda: network.all_see(3, DEAD), at_most_s=1)
    network.run(5)
    network.start(3)
    network.run_until(network.all_alive, at_most_s=0.3)
    assert network.view(1, 3).generation == 2


def test_restart_quicker_than_detection_still_replaces_the_old_incarnation() -> None:
    network = settled(3)
    network.kill_daemon(3, streams_notice=False)
    network.run(0.05)
    network.start(3)
    network.run_until(lambda: network.view(1, 3).generation == 2 and network.all_alive(), at_most_s=0.5)


def test_a_daemon_that_has_just_started_is_not_suspected_while_it_does_not_answer_yet_but_its_kernel_is_believed() -> None:
    network = settled(5)
    network.kill_daemon(3)
    network.run_until(lambda: network.all_see(3, DEAD), at_most_s=1)
    network.start(3)
    network.run_until(lambda: network.all_see(3, ALIVE), at_most_s=1)
    for host in network.hosts.values():
        host.changes.clear()
    network.freeze(3)
    network.run(2)
    assert not [change for number in (1, 2, 4, 5) for _, change in network.hosts[number].changes]
    network.thaw(3)
    network.run(5)
    network.kill_daemon(3)
    network.run_until(lambda: network.all_see(3, DEAD), at_most_s=1)
    network.start(3)
    network.run(0.5)
    network.kill_host(3)
    network.run_until(lambda: network.all_see(3, DEAD), at_most_s=1.5)
    assert network.view(1, 3).death_kind is VerdictKind.HOST_SILENT


def test_leave_is_not_death_and_the_leaver_is_let_alone() -> None:
    network = settled(5)
    network.intend(5, lambda core: core.leave(network.now))
    network.run_until(lambda: network.all_see(5, LEFT), at_most_s=0.5)
    assert not network.hosts[5].core.has_left(network.now)
    network.run(1.0)
    assert network.hosts[5].core.has_left(network.now)
    network.kill_daemon(5)
    network.run(60)
    assert network.all_see(5, LEFT) and not network.deaths()


def test_pause_is_known_to_all_and_survives_the_daemons_absence() -> None:
    network = settled(3)
    network.intend(3, lambda core: core.pause(network.now + 60, network.now))
    network.run_until(lambda: network.view(1, 3).paused_until > 0 and network.view(2, 3).paused_until > 0, at_most_s=0.5)
    paused_until = network.view(1, 3).paused_until
    assert paused_until == pytest.approx(network.now + 60, abs=1)
    assert network.status(1, 3) is ALIVE
    network.kill_daemon(3)
    network.run_until(lambda: network.all_see(3, DEAD), at_most_s=1)
    assert network.view(1, 3).paused_until == paused_until
    network.start(3)
    network.run_until(network.all_alive, at_most_s=1)
    assert network.view(1, 3).paused_until == 0


def test_removed_member_is_dropped_and_its_packets_are_ignored() -> None:
    network = settled(3)
    nodes = {node_id(n): (f"n{n}", network.view(1, n).address) for n in (1, 2)}
    network.intend(1, lambda core: core.set_admitted(nodes, network.now))
    network.run(2)
    members = network.hosts[1].core.members()
    assert node_id(3) not in members and network.status(1, 2) is ALIVE
    assert network.hosts[1].core.counters["not_admitted"] > 0
    assert any(change.removed for _, change in network.hosts[1].changes)


@pytest.mark.parametrize("seed", range(3))
def test_loss_of_three_packets_in_ten_kills_nobody(seed: int) -> None:
    network = settled(5, seed=seed, loss=0.3)
    network.run(90)
    assert not network.deaths()


def test_udp_blocked_while_streams_work_is_alive_and_said_so() -> None:
    network = settled(3)
    network.loss = 1.0
    network.run(30)
    assert not network.deaths()
    assert "UDP does not get through" in network.view(1, 2).evidence


def test_slow_replies_make_suspects_but_no_silent_hosts() -> None:
    network = settled(5)
    network.stalled_replies_s[5] = 1.5
    network.run(120)
    assert not [death for death in network.deaths() if death[3] != "daemon_stalled"]
    assert {subject for _, _, subject, _ in network.deaths()} <= {5}


def test_samples_reach_everybody_and_the_latest_wins() -> None:
    network = settled(10)
    for sequence in (1, 2, 3):
        sample = Sample(node_id(1), 1, sequence, cpu_used_permille=sequence)
        network.intend(1, lambda core, sample=sample: core.observe_sample(sample, network.now))
        network.run(1)
    network.run(1)
    seen = [network.view(observer, 1).sample for observer in range(2, 11)]
    assert all(sample is not None and sample.sequence == 3 for sample in seen)


def test_never_heard_member_is_found_dead_by_evidence() -> None:
    network = GossipNetwork(3)
    network.kill_host(3)
    network.run(3)
    assert network.view(1, 3).death_kind is VerdictKind.HOST_SILENT
    assert network.status(1, 2) is ALIVE


def test_accused_by_one_is_not_dead_to_those_who_reach_it_and_refutes() -> None:
    network = settled(5)
    network.cut_off({1}, {2, 3, 4, 5})
    network.run(10)
    assert network.status(1, 2) is DEAD
    network.heal()
    network.run_until(network.all_alive, at_most_s=5)
    subjects = {s for _, observer, s, _ in network.deaths() if observer != 1}
    assert subjects == {1}, "nobody took the word of the one that had been cut off"


def test_two_members_have_nothing_to_tell_each_other_for_ever() -> None:
    network = settled(2)
    network.run(10)
    before = {number: host.packets_sent for number, host in network.hosts.items()}
    network.run(10)
    sent = {number: host.packets_sent - before[number] for number, host in network.hosts.items()}
    assert sent == {1: 80, 2: 80}, "a ping in each round of a quarter of a second, and an answer to the other's"


def test_same_seed_gives_the_same_run() -> None:
    def history() -> list[tuple[float, int, int, str]]:
        network = settled(6, seed=7, loss=0.1)
        network.kill_host(2)
        network.run(3)
        return network.deaths()

    assert history() == history()


def test_bytes_sent_by_an_idle_member_of_thirty_stay_under_the_budget() -> None:
    network = settled(30)
    before = sum(host.bytes_sent for host in network.hosts.values())
    network.run(10)
    rate = (sum(host.bytes_sent for host in network.hosts.values()) - before) / 10 / 30
    assert rate < 21_000
