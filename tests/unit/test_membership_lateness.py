"""A member that is late itself: which answers are a sign of good health, and which pings are told as lost."""

from __future__ import annotations

import random

from swarm.membership import Config, MemberIdentity, Membership, SendPacket
from swarm.membership.messages import Ack, Claim, Ping, Rumours
from swarm.model.liveness import MemberStatus
from tests.fakes.gossip_network import address, node_id

CONFIG = Config()
OTHER = Claim(node_id(2), 1, 0, MemberStatus.ALIVE, "n2", address(2))
SOURCE = ("10.77.0.12", 4747)


def unwell(stall_s: float) -> Membership:
    """n1, which knows n2 and has just been stopped for so long."""
    made = Membership(identity=MemberIdentity(node_id(1), "n1", address(1), 1), config=CONFIG, rng=random.Random(1), now=0.0)
    made.set_admitted({node_id(2): ("n2", address(2))}, 0.0)
    made.on_packet(SOURCE, Rumours(OTHER), 0.0)
    made.on_stall(stall_s, 1.0)
    made.take_effects()
    return made


def pinged(core: Membership, now: float) -> int:
    """The sequence of the ping that the next round sends to n2."""
    core.tick(now)
    [ping] = [e.message for e in core.take_effects() if isinstance(e, SendPacket) and isinstance(e.message, Ping)]
    return ping.sequence


def test_an_answer_that_took_the_time_which_only_bad_health_gives_is_no_sign_of_good_health() -> None:
    core = unwell(5.0)
    before = core.health_score
    core.on_packet(SOURCE, Ack(OTHER, pinged(core, 1.0)), 1.0 + 3 * CONFIG.direct_timeout_s)
    assert core.health_score == before == 4


def test_an_answer_in_ordinary_time_is_one() -> None:
    core = unwell(5.0)
    core.on_packet(SOURCE, Ack(OTHER, pinged(core, 1.0)), 1.0 + CONFIG.direct_timeout_s / 2)
    assert core.health_score == 3


def test_a_ping_for_which_bad_health_waits_longer_than_ten_seconds_is_still_told_as_lost() -> None:
    core = unwell(5.0)
    prober, record = core._prober, core._table.records[node_id(2)]
    core.on_stall(5.0, 2.0)
    assert core.health_score == CONFIG.health_score_max
    record.rtt_s = CONFIG.round_trip_max_s
    prober.ping(record, 2.0)
    waits_s = 3 * CONFIG.round_trip_max_s * (CONFIG.health_score_max + 1)
    assert waits_s > 10.0
    assert prober.take_lost(2.0 + waits_s - 0.1) == []
    assert [flight.target for flight in prober.take_lost(2.0 + waits_s)] == [node_id(2)]
    prober.check()
