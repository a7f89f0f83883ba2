"""One identity at two addresses: what the membership core says about it, and to whom."""

from __future__ import annotations

import random

import pytest

from swarm.errors import BadMessage
from swarm.membership import (
    Config,
    MemberChanged,
    MemberIdentity,
    Membership,
    SendPacket,
    TwinSuspected,
    decode_message_untrusted,
    encode_message,
)
from swarm.membership.messages import GENERATION_MAX, INCARNATION_MAX, Claim, Message, Rumours
from swarm.model.liveness import MemberStatus, Sample
from tests.fakes.gossip_network import GossipNetwork, address, node_id

HERE, THERE = address(1), address(9)


def claim(number: int, where: str, *, generation: int = 1, incarnation: int = 0) -> Claim:
    return Claim(node_id(number), generation, incarnation, MemberStatus.ALIVE, f"n{number}", where)


def core(*, generation: int = 1) -> Membership:
    """n1 at HERE, which has heard of n2 and n3."""
    made = Membership(
        identity=MemberIdentity(node_id(1), "n1", HERE, generation), config=Config(), rng=random.Random(1), now=0.0
    )
    made.set_admitted({node_id(n): (f"n{n}", address(n)) for n in (1, 2, 3)}, 0.0)
    for number in (2, 3):
        tell(made, Rumours(claim(number, address(number))), 0.0)
    made.take_effects()
    return made


def tell(made: Membership, message: Message, now: float) -> None:
    ip, port = message.me.address.split(":")
    made.on_packet((ip, int(port)), message, now)
    made.check()


def suspected(made: Membership) -> list[str]:
    return [effect.address for effect in made.take_effects() if isinstance(effect, TwinSuspected)]


def told(made: Membership, where: str) -> list[Claim]:
    """Claims about n2 in rumours sent to that address."""
    packets = [e for e in made.take_effects() if isinstance(e, SendPacket) and e.address == where]
    return [c for p in packets if isinstance(p.message, Rumours) for c in p.message.claims if c.node_id == node_id(2)]


@pytest.mark.parametrize("generation", [1, 2, 7])
def test_this_nodes_id_at_another_address_in_its_own_generation_or_a_later_one_is_asked_about(generation: int) -> None:
    made = core()
    tell(made, Rumours(claim(2, address(2)), (claim(1, THERE, generation=generation),)), 1.0)
    assert suspected(made) == [THERE]


def test_an_older_start_at_another_address_is_where_this_host_was_before() -> None:
    made = core(generation=5)
    tell(made, Rumours(claim(2, address(2)), (claim(1, THERE, generation=4, incarnation=9),)), 1.0)
    assert suspected(made) == []


def test_the_same_suspicion_is_raised_once_a_second_at_most() -> None:
    made = core()
    lie = Rumours(claim(2, address(2)), (claim(1, THERE, generation=3),))
    seen = []
    for tenth in range(25):
        tell(made, lie, 1.0 + tenth / 10)
        seen += suspected(made)
        lie = Rumours(claim(2, address(2)), (claim(1, THERE, generation=4 + tenth),))
    assert seen == [THERE] * 3


def test_whoever_sees_a_member_at_another_address_says_so_where_it_was() -> None:
    made = core()
    tell(made, Rumours(claim(2, THERE, generation=2)), 1.0)
    assert [(c.generation, c.address) for c in told(made, address(2))] == [(2, THERE)]
    assert made.members()[node_id(2)].address == THERE


def test_a_second_daemon_in_the_same_generation_is_told_of_the_first() -> None:
    made = core()
    tell(made, Rumours(claim(2, THERE)), 1.0)
    assert [(c.generation, c.address) for c in told(made, THERE)] == [(1, address(2))]
    assert made.members()[node_id(2)].address == address(2), "the first one keeps its place"


def test_a_member_is_told_of_its_twin_once_a_second_at_most() -> None:
    made = core()
    packets = 0
    for tenth in range(20):
        tell(made, Rumours(claim(2, THERE)), 1.0 + tenth / 10)
        packets += len(told(made, THERE))
    assert packets == 2


def test_a_member_that_was_dead_and_comes_back_elsewhere_has_moved_and_nobody_is_told() -> None:
    made = core()
    dead = Claim(node_id(2), 1, 0, MemberStatus.DEAD, "n2", address(2), node_id(3))
    tell(made, Rumours(claim(3, address(3)), (dead,)), 5.0)
    assert made.members()[node_id(2)].status is MemberStatus.DEAD
    made.take_effects()
    tell(made, Rumours(claim(2, THERE, generation=2)), 6.0)
    assert told(made, address(2)) == []
    assert made.members()[node_id(2)].address == THERE


def test_a_count_of_starts_that_was_behind_is_told_in_one_change_and_samples_follow_it() -> None:
    made = core()
    tell(made, Rumours(claim(2, address(2)), (claim(1, HERE, generation=8, incarnation=3),)), 1.0)
    changes = [e.new for e in made.take_effects() if isinstance(e, MemberChanged) and e.new.node_id == node_id(1)]
    assert [(change.generation, change.incarnation) for change in changes] == [(8, 4)]
    made.observe_sample(Sample(node_id(1), 1, 1, cpu_used_permille=5), 1.5)
    assert made.members()[node_id(1)].sample == Sample(node_id(1), 8, 1, cpu_used_permille=5)


def test_an_incarnation_that_cannot_be_outbid_is_counted_and_changes_nothing() -> None:
    made = core()
    before = made.members()[node_id(1)]
    tell(made, Rumours(claim(2, address(2)), (claim(1, THERE, incarnation=INCARNATION_MAX),)), 1.0)
    assert made.counters["absurd_claim"] == 1
    assert suspected(made) == []
    after = made.members()[node_id(1)]
    assert (after.generation, after.incarnation) == (before.generation, before.incarnation)


@pytest.mark.parametrize("beyond", [{"generation": GENERATION_MAX + 1}, {"incarnation": INCARNATION_MAX + 1}])
def test_a_counter_that_no_member_could_outbid_is_no_message_about_anybody(beyond: dict[str, int]) -> None:
    lie = encode_message(Rumours(claim(2, HERE), (claim(3, THERE, **beyond),)))
    with pytest.raises(BadMessage):
        decode_message_untrusted(lie)


def test_a_member_in_whose_name_the_largest_generation_was_forged_is_alive_again_after_its_next_word() -> None:
    network = GossipNetwork(3)
    network.run(2)
    forged = claim(3, address(3), generation=GENERATION_MAX)
    network.intend(1, lambda core: core.on_packet(("10.77.0.13", 4747), Rumours(forged), network.now))
    network.run(5)
    assert network.all_alive()
    network.run_until(lambda: network.view(1, 3).generation == GENERATION_MAX, at_most_s=1)
