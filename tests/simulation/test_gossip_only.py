"""What docs/benchmarks/membership.md measures at full size, held at a small one; and the mutants that must be noticed."""

from __future__ import annotations

import pytest

from swarm.simulation.gossip_member import Conditions, Core
from swarm.simulation.gossip_only import GossipOnly
from swarm.simulation.gossip_trials import FalseDeaths, churn, false_deaths, healed_split, plain_swim, spread, traffic
from tests.simulation import gossip_mutants as mutants
from tests.simulation.gossip_mutants import Mutant

SERF_MODEL_S = {0.0: 2.0, 0.3: 2.8}
"""100 members, 99.99 % of them, by loss."""


def check_spread() -> None:
    for loss, bound_s in SERF_MODEL_S.items():
        assert spread(100, loss=loss, seed=3, at_most_s=10.0).all_s <= bound_s


def check_split() -> None:
    healed = healed_split(4, 9, seconds=120.0, seed=1, at_most_s=60.0)
    assert healed.agreed_after_s <= 60.0
    assert healed.deaths_after == 0


def check_exchange() -> None:
    """One that was cut off, and believes everybody dead, exchanges tables with a healthy member."""
    crowd = GossipOnly(40, conditions=Conditions(sample_every_s=0.0))
    crowd.introduce()
    crowd.split([[1]])
    crowd.run(60.0)
    assert len(crowd.members[1].core.alive_ids()) == 1
    wronged = FalseDeaths(crowd)
    crowd.heal()
    state = crowd.members[1].core.sync_state(crowd.now)
    crowd.intend(2, lambda core, now: core.on_push_pull(state, now))
    crowd.run(5.0)
    assert not wronged.counts


def check_overload() -> None:
    for seed in (2, 4):
        wronged = false_deaths(30, overloaded=4, seconds=45.0, seed=seed)
        assert wronged.of_healthy == 0
        assert wronged.of_overloaded <= 2 * 26, "one or two of them once, before it is known that they are late and not dead"


def check_restart() -> None:
    crowd = GossipOnly(12, conditions=Conditions(sample_every_s=0.0))
    crowd.introduce()
    crowd.run(1.0)
    for _ in range(3):
        crowd.intend(1, lambda core, now: isinstance(core, Core) and core.pause(now, now))
    crowd.run(1.0)
    crowd.kill_daemon(1)
    crowd.run(10.0)
    crowd.start(1)
    assert crowd.run_until(crowd.agreed, at_most_s=5.0) <= 5.0
    subject = crowd.members[1].node_id
    assert {member.core.incarnation_of(subject) for member in crowd.living()} == {0}, "a new generation needs no rebuttal"


def test_news_reaches_all_of_a_hundred_at_least_as_fast_as_serfs_model() -> None:
    check_spread()


def test_a_split_heals_and_nobody_is_called_dead_over_it() -> None:
    check_split()


def test_who_believes_all_dead_kills_nobody_by_exchanging_tables() -> None:
    check_exchange()


def test_overloaded_members_call_nobody_healthy_dead_and_do_not_flap() -> None:
    check_overload()


def test_plain_swim_does_call_healthy_members_dead_there() -> None:
    assert false_deaths(30, overloaded=4, seconds=20.0, seed=2, make_core=plain_swim(2.0)).of_healthy > 10


def test_a_restarted_daemon_is_believed_at_its_first_word() -> None:
    check_restart()


def test_a_hundred_members_send_within_the_budget_samples_included() -> None:
    found = traffic(100, seconds=10.0, seed=1)
    assert 1_000 < found.mean <= 21_000
    assert found.busiest <= 21_000


def test_deaths_leaves_and_joins_end_in_one_membership() -> None:
    crowd = GossipOnly(30, conditions=Conditions(loss=0.05))
    crowd.introduce()
    found = churn(crowd, seconds=40.0, share=0.2, seed=1)
    assert found.happened == {"cut": 2, "leave": 2, "join": 2}
    assert found.agreed_after_s <= 30.0
    assert found.false_deaths == 0


def test_three_packets_lost_in_ten_are_no_storm_of_suspicions() -> None:
    crowd = GossipOnly(60, conditions=Conditions(loss=0.3, sample_every_s=0.0))
    crowd.introduce()
    told: list[str] = []
    crowd.on_change.append(lambda observer, change: told.append(change.new.status))
    crowd.run(8.0)
    assert told.count("dead") == 0
    assert told.count("suspect") <= 5 * 60 * 8, "five heard by each member in a second; told after 450 ms it was 19"


def test_what_waits_to_be_told_never_outgrows_the_table() -> None:
    crowd = GossipOnly(40, conditions=Conditions(loss=0.3))
    for _ in range(8):
        crowd.run(0.25)
        crowd.kill_host(crowd.living()[-1].number)
        for member in crowd.living():
            assert isinstance(member.core, Core)
            assert member.core.rumours_waiting <= 40
            member.core.check()


def test_every_packet_is_within_its_bound_and_counted_to_the_byte() -> None:
    crowd = GossipOnly(12, conditions=Conditions(loss=0.1), encode_every=1)
    crowd.run(2.0)
    crowd.kill_host(3)
    crowd.run(3.0)
    assert crowd.run_until(crowd.agreed, at_most_s=10.0) <= 10.0


def story(seed: int) -> list[tuple[int, int, int]]:
    crowd = GossipOnly(12, seed=seed, conditions=Conditions(loss=0.2))
    crowd.introduce()
    crowd.overload(2)
    crowd.cuts.add((4, 5))
    crowd.run(3.0)
    crowd.freeze(6)
    crowd.kill_host(7)
    crowd.run(3.0)
    crowd.thaw(6)
    crowd.leave(8)
    crowd.join()
    crowd.run(6.0)
    crowd.check()
    return [(member.number, member.packets_sent, member.bytes_sent) for member in crowd.members.values()]


def test_a_run_is_a_function_of_its_seed() -> None:
    assert story(1) == story(1)
    assert story(1) != story(2)


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (mutants.remote_dead_is_dead, check_exchange),
        (mutants.nobody_refutes, check_split),
        (mutants.no_local_health, check_overload),
        (mutants.late_is_dead, check_overload),
        (mutants.incarnation_before_generation, check_restart),
        (mutants.rumours_are_told_once, check_spread),
    ],
)
def test_the_membership_mutant_is_noticed(mutant: Mutant, check: object) -> None:
    assert callable(check)
    with mutant(), pytest.raises(AssertionError):
        check()
