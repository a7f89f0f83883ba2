"""Sentences of SWIM and Lifeguard, and the known edge cases of such layers, each as a claim about the core."""

from __future__ import annotations

import random

import msgspec
import pytest

from swarm.errors import BadMessage
from swarm.membership import (
    Config,
    MemberIdentity,
    Membership,
    SendPacket,
    SyncState,
    TryConnect,
    decode_message_untrusted,
    encode_message,
)
from swarm.membership.broadcast import retransmit_limit
from swarm.membership.health import LocalHealth
from swarm.membership.messages import Ack, Claim, Ping, ProbeReport, ProbeRequest, Rumours
from swarm.membership.suspicion import suspicion_s
from swarm.model.liveness import MemberStatus, Sample
from swarm.model.node import VerdictKind
from tests.fakes.gossip_network import GossipNetwork, address, node_id

ALIVE, SUSPECT, DEAD, LEFT = MemberStatus.ALIVE, MemberStatus.SUSPECT, MemberStatus.DEAD, MemberStatus.LEFT
CONFIG = Config()


def claim(number: int, *, generation: int = 1, incarnation: int = 0, status: MemberStatus = ALIVE, accuser: int = 0) -> Claim:
    kind = VerdictKind.HOST_SILENT if status in (SUSPECT, DEAD) else None
    who = node_id(accuser) if accuser else ""
    return Claim(node_id(number), generation, incarnation, status, f"n{number}", address(number), who, kind)


class Member:
    """Core of n1 among `count` members that all said hello at time 0."""

    def __init__(self, count: int = 4) -> None:
        identity = MemberIdentity(node_id(1), "n1", address(1), 1)
        self.core = Membership(identity=identity, config=CONFIG, rng=random.Random(1), now=0.0)
        self.core.set_admitted({node_id(n): (f"n{n}", address(n)) for n in range(1, count + 1)}, 0.0)
        for number in range(2, count + 1):
            self.tell(number, Rumours(claim(number)), 0.0)
        self.core.take_effects()

    def tell(self, number: int, message: object, now: float) -> None:
        ip, port = address(number).split(":")
        self.core.on_packet((ip, int(port)), message, now)  # type: ignore[arg-type]
        self.core.check()

    def rumour(self, teller: int, about: Claim, now: float) -> None:
        self.tell(teller, Rumours(claim(teller), (about,)), now)

    def sent(self, kind: type) -> list[tuple[str, object]]:
        packets = [effect for effect in self.core.take_effects() if isinstance(effect, SendPacket)]
        return [(packet.address, packet.message) for packet in packets if isinstance(packet.message, kind)]

    def status(self, number: int) -> MemberStatus:
        return self.core.members()[node_id(number)].status

    def me(self) -> tuple[int, int, MemberStatus]:
        view = self.core.members()[node_id(1)]
        return view.generation, view.incarnation, view.status


# ---- SWIM -----------------------------------------------------------------------------------------------------------


def test_alive_overrides_suspect_only_with_a_greater_incarnation() -> None:
    member = Member()
    member.rumour(2, claim(3, incarnation=4, status=SUSPECT, accuser=2), 1.0)
    member.rumour(2, claim(3, incarnation=4), 1.0)
    assert member.status(3) is SUSPECT
    member.rumour(2, claim(3, incarnation=5), 1.0)
    assert member.status(3) is ALIVE


def test_suspect_overrides_alive_of_the_same_incarnation_and_not_of_a_greater_one() -> None:
    member = Member()
    member.rumour(2, claim(3, incarnation=4), 1.0)
    member.rumour(2, claim(3, incarnation=3, status=SUSPECT, accuser=2), 1.0)
    assert member.status(3) is ALIVE
    member.rumour(2, claim(3, incarnation=4, status=SUSPECT, accuser=2), 1.0)
    assert member.status(3) is SUSPECT


def test_a_lost_ping_makes_k_helpers_ping_and_connect_and_this_node_connect() -> None:
    member = Member(6)
    member.core.tick(1.0)
    pinged = {message.target: where for where, message in member.sent(Ping)}  # type: ignore[attr-defined]
    assert len(pinged) == 5
    member.core.tick(1.0 + CONFIG.direct_timeout_s)
    effects = member.core.take_effects()
    requests = [e.message for e in effects if isinstance(e, SendPacket) and isinstance(e.message, ProbeRequest)]
    connects = [e for e in effects if isinstance(e, TryConnect)]
    assert {r.target for r in requests} == {c.node_id for c in connects} == set(pinged)
    assert len(requests) == 5 * CONFIG.indirect_probes


def test_a_helpers_success_is_as_good_as_an_answer() -> None:
    member = Member(3)
    member.core.tick(1.0)
    member.core.tick(1.0 + CONFIG.direct_timeout_s)
    requests = [message for where, message in member.sent(ProbeRequest) if where == address(2)]
    assert requests and requests[0].target == node_id(3)  # type: ignore[attr-defined]
    member.tell(2, ProbeReport(claim(2), 1, node_id(3), True, ""), 1.2)
    member.core.tick(1.5)
    assert member.status(3) is ALIVE


def test_round_robin_pings_everybody_once_before_anybody_twice() -> None:
    member = Member(31)
    targets: list[str] = []
    now = 1.0
    for _ in range(10):
        member.core.tick(now)
        for _, message in member.sent(Ping):
            targets.append(message.target)  # type: ignore[attr-defined]
            member.tell(int(message.target, 16), Ack(claim(int(message.target, 16)), message.sequence), now)  # type: ignore[attr-defined]
        now += CONFIG.probe_interval_s
    assert len(targets) == 30 and len(set(targets)) == 30


def test_updates_are_sent_a_bounded_number_of_times() -> None:
    member = Member(9)
    member.rumour(2, claim(9, status=LEFT, incarnation=1), 0.1)
    sends = 0
    for step in range(1, 60):
        member.core.tick(0.1 + step * 0.25)
        for _, message in [*member.sent(Ping), *member.sent(Rumours)]:
            sends += sum(c.node_id == node_id(9) for c in message.claims)  # type: ignore[attr-defined]
    assert 1 <= sends <= retransmit_limit(9, CONFIG.retransmit_factor)


# ---- Lifeguard ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("confirmations", "expected"), [(0, 5.0), (1, 5.0 - 4.7 * 0.63093), (2, 0.3), (9, 0.3)])
def test_suspicion_shrinks_logarithmically_with_confirmations(confirmations: int, expected: float) -> None:
    found = suspicion_s(confirmations=confirmations, needed=2, minimum_s=0.3, maximum_s=5.0)
    assert found == pytest.approx(expected, abs=1e-4)


def test_missing_nacks_raise_the_health_score_and_answers_lower_it() -> None:
    health = LocalHealth(7)
    health.on_failed_probe(reports_expected=3, reports_received=1)
    assert (health.score, health.factor) == (2, 3)
    health.on_failed_probe(reports_expected=3, reports_received=3)
    assert health.score == 2
    for _ in range(5):
        health.on_answer()
    assert health.score == 0
    for _ in range(9):
        health.on_stall(100)
    assert health.score == 7


def test_a_suspect_hears_of_its_suspicion_with_the_very_ping() -> None:
    member = Member(4)
    member.rumour(2, claim(3, status=SUSPECT, accuser=2), 2.0)
    member.core.take_effects()
    member.core.tick(3.0)
    to_suspect = [message for where, message in member.sent(Ping) if where == address(3)]
    assert to_suspect[0].claims[0].node_id == node_id(3)  # type: ignore[attr-defined]
    assert to_suspect[0].claims[0].status is SUSPECT  # type: ignore[attr-defined]


# ---- the sixteen edge cases -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [SUSPECT, DEAD])
def test_case_01_refutes_suspect_and_dead_above_the_accused_incarnation_and_trusts_itself_less(status: MemberStatus) -> None:
    member = Member()
    member.rumour(2, claim(1, incarnation=6, status=status, accuser=3), 1.0)
    assert member.me() == (1, 7, ALIVE)
    assert member.core.health_score == 1
    assert member.core.counters["refuted"] == 1


def test_case_02_a_restart_wins_by_its_generation_over_any_incarnation() -> None:
    member = Member()
    member.rumour(2, claim(3, generation=1, incarnation=99, status=DEAD, accuser=2), 2.0)
    assert member.status(3) is DEAD
    member.tell(3, Rumours(claim(3, generation=2, incarnation=0)), 2.1)
    assert member.status(3) is ALIVE
    member.rumour(2, claim(3, generation=1, incarnation=100, status=DEAD, accuser=2), 2.2)
    assert member.status(3) is ALIVE


def test_case_03_another_address_is_taken_only_from_a_newer_claim_of_the_member() -> None:
    member = Member()
    moved = msgspec.structs.replace(claim(3), address="10.9.9.9:4747")
    member.rumour(2, moved, 1.0)
    assert member.core.members()[node_id(3)].address == address(3)
    member.rumour(2, msgspec.structs.replace(moved, generation=2), 1.0)
    assert member.core.members()[node_id(3)].address == "10.9.9.9:4747"


def test_case_03_the_catalog_moves_a_member_only_when_it_is_not_heard_and_the_entry_is_new() -> None:
    member = Member()
    nodes = {node_id(n): (f"n{n}", address(n)) for n in range(1, 5)}
    member.rumour(2, msgspec.structs.replace(claim(3, generation=2), address="10.9.9.9:4747"), 1.0)
    member.rumour(2, claim(4, status=DEAD, accuser=2), 2.0)
    member.core.set_admitted(nodes, 2.0)
    assert member.core.members()[node_id(3)].address == "10.9.9.9:4747"
    member.core.set_admitted({**nodes, node_id(4): ("n4", "10.9.9.8:4747")}, 2.0)
    assert member.core.members()[node_id(4)].address == "10.9.9.8:4747"


def test_case_04_a_ping_for_another_id_is_not_answered() -> None:
    member = Member()
    member.tell(2, Ping(claim(2), 5, node_id(3)), 1.0)
    assert not member.sent(Ack)
    member.tell(2, Ping(claim(2), 6, node_id(1)), 1.0)
    assert [message.sequence for _, message in member.sent(Ack)] == [6]  # type: ignore[attr-defined]


def test_case_05_a_table_that_says_dead_is_a_suspicion_and_one_that_says_left_is_believed() -> None:
    member = Member()
    remote = SyncState(claim(2), (claim(3, status=DEAD, accuser=2), claim(4, incarnation=1, status=LEFT)))
    member.core.on_push_pull(remote, 2.0)
    assert member.status(3) is SUSPECT
    assert member.status(4) is LEFT


def test_case_06_blocked_udp_is_a_condition_and_not_a_death() -> None:
    network = GossipNetwork(3)
    network.run(2)
    network.loss = 1.0
    network.run(60)
    assert not network.deaths()
    assert "UDP does not get through" in network.view(1, 2).evidence


def test_case_07_a_helper_that_fails_says_so() -> None:
    member = Member()
    member.tell(2, ProbeRequest(claim(2), 77, node_id(3), address(3)), 1.0)
    probe = next(e for e in member.core.take_effects() if isinstance(e, TryConnect))
    member.core.on_connect_result(probe.probe_id, "silent", 1.2)
    member.core.tick(1.2)
    reports = [message for where, message in member.sent(ProbeReport) if where == address(2)]
    assert [(r.sequence, r.reached, r.connect) for r in reports] == [(77, False, "silent")]  # type: ignore[attr-defined]


def test_case_08_one_blind_observer_cannot_keep_accusing() -> None:
    network = GossipNetwork(4)
    network.run(2)
    network.cut.add((1, 3))
    network.run(30)
    assert not network.deaths()
    seen = [change.new for _, change in network.hosts[1].changes if change.new.node_id == node_id(3)]
    assert not [view for view in seen if view.generation and view.status is SUSPECT]


def test_case_09_a_leaver_answers_for_a_second_and_an_old_alive_does_not_bring_it_back() -> None:
    member = Member()
    member.core.leave(1.0)
    member.core.take_effects()
    member.tell(2, Ping(claim(2), 8, node_id(1)), 1.5)
    assert member.sent(Ack)
    assert not member.core.has_left(1.5) and member.core.has_left(2.0)
    other = Member()
    other.rumour(2, claim(3, incarnation=1, status=LEFT), 1.0)
    other.rumour(4, claim(3, incarnation=0), 1.1)
    other.rumour(4, claim(3, incarnation=1), 1.1)
    assert other.status(3) is LEFT


def test_case_10_the_dead_are_tried_again_for_a_day_and_those_who_left_never() -> None:
    member = Member()
    member.rumour(2, claim(3, status=DEAD, accuser=2), 2.0)
    member.rumour(2, claim(4, incarnation=1, status=LEFT), 2.0)
    member.tell(2, Rumours(claim(2, incarnation=1, status=LEFT)), 2.0)
    member.core.take_effects()
    member.core.tick(100.0)
    assert [where for where, _ in member.sent(Ping)] == [address(3)]
    member.core.tick(3.0 + 24 * 3600)
    assert not member.sent(Ping)


def test_case_11_samples_are_latest_wins_bounded_in_bytes_and_raise_no_incarnation() -> None:
    member = Member(200)
    for number in range(2, 201):
        member.tell(number, Rumours(claim(number), (), (Sample(node_id(number), 1, 5), Sample(node_id(number), 1, 4))), 0.5)
    assert member.core.members()[node_id(7)].sample == Sample(node_id(7), 1, 5)
    member.core.take_effects()
    member.core.tick(1.0)
    for _, message in [*member.sent(Ping), *member.sent(Rumours)]:
        assert len(encode_message(message)) <= CONFIG.packet_bytes_max  # type: ignore[arg-type]
    assert member.me()[1] == 0


def test_case_12_who_is_not_admitted_is_not_heard() -> None:
    member = Member()
    member.tell(9, Ping(claim(9), 1, node_id(1)), 1.0)
    assert not member.core.take_effects()
    assert node_id(9) not in member.core.members()
    assert member.core.counters["not_admitted"] == 1


def test_case_13_decoding_is_bounded() -> None:
    packet = encode_message(Rumours(claim(2)))
    with pytest.raises(BadMessage):
        decode_message_untrusted(packet + b"\0")
    with pytest.raises(BadMessage):
        decode_message_untrusted(packet, bytes_max=len(packet) - 1)


def test_case_14_a_slow_reader_of_events_does_not_hold_up_answers() -> None:
    member = Member()
    member.rumour(2, claim(3, status=DEAD, accuser=2), 2.0)  # its event is not taken
    member.tell(2, Ping(claim(2), 9, node_id(1)), 2.0)
    assert member.sent(Ack)


def test_case_15_after_a_pause_outstanding_probes_accuse_nobody() -> None:
    member = Member()
    member.core.tick(1.0)
    member.core.on_stall(10.0, 11.0)
    member.core.tick(11.0)
    assert [member.status(n) for n in (2, 3, 4)] == [ALIVE] * 3
    assert member.core.health_score == 4
    assert not [e for e in member.core.take_effects() if isinstance(e, TryConnect)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_case_16_one_two_and_three_members_work_without_helpers_or_confirmations(count: int) -> None:
    network = GossipNetwork(count)
    network.run(2)
    assert network.all_alive()
    if count > 1:
        network.kill_host(count)
        network.run_until(lambda: network.all_see(count, DEAD), at_most_s=1.5)
