"""How often a load is told, and how much a member distrusts itself when its own loop runs late."""

from __future__ import annotations

import random

import pytest

from swarm.membership import Config, MemberIdentity, Membership, SendPacket
from swarm.membership.health import LocalHealth
from swarm.membership.messages import SAMPLE_BYTES_TYPICAL, Ack, Claim, Ping
from swarm.membership.samples import SampleBoard, refresh_interval_s
from swarm.model.ids import NodeId
from swarm.model.liveness import EngineState, MemberStatus, Sample
from swarm.wire import codec
from tests.fakes.gossip_network import address, node_id

CONFIG = Config()
ME = NodeId("ab" * 16)


def sample(sequence: int, *, cpu: int = 0, engine: EngineState = EngineState.UP) -> Sample:
    return Sample(ME, 1, sequence, cpu_used_permille=cpu, engine=engine)


def told_at(board: SampleBoard, members: int, samples: list[Sample]) -> list[int]:
    """The seconds at which a sample a second is told to others."""
    return [
        second for second, each in enumerate(samples) if board.observe(each, members=members, config=CONFIG, now=float(second))
    ]


def test_in_a_small_cluster_every_second() -> None:
    assert told_at(SampleBoard(), 10, [sample(n) for n in range(1, 6)]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("members", [100, 1_000, 5_000])
def test_what_a_refresh_of_all_costs_a_member_and_second_is_the_same_for_every_size(members: int) -> None:
    spent = members * CONFIG.sample_sends * SAMPLE_BYTES_TYPICAL / refresh_interval_s(members, CONFIG)
    assert spent == pytest.approx(CONFIG.sample_bytes_per_s)


def test_in_a_large_cluster_more_seldom_though_the_latest_is_known_here() -> None:
    board = SampleBoard()
    assert told_at(board, 1_000, [sample(n) for n in range(1, 90)]) == [0, 40, 80]
    assert board.latest[ME].sequence == 89


def test_a_change_that_matters_is_told_early_and_a_small_one_is_not() -> None:
    calm, busy, busier = sample(1), sample(12, cpu=100), sample(13, cpu=199)
    loads = [calm, *(sample(n) for n in range(2, 12)), busy, busier, *(sample(n, cpu=150) for n in range(14, 30))]
    assert told_at(SampleBoard(), 1_000, loads) == [0, 11]


def test_a_load_that_swings_every_second_is_still_told_no_more_often_than_four_times_an_interval() -> None:
    swinging = [sample(n, cpu=900 * (n % 2)) for n in range(1, 42)]
    assert told_at(SampleBoard(), 1_000, swinging) == [0, 11, 22, 33]


def test_another_state_of_the_engine_is_told_at_once() -> None:
    states = [EngineState.UP, EngineState.DOWN, EngineState.DOWN, EngineState.UP]
    assert told_at(SampleBoard(), 1_000, [sample(n, engine=state) for n, state in enumerate(states, 1)]) == [0, 1, 3]


def test_an_older_sample_of_this_node_changes_nothing() -> None:
    board = SampleBoard()
    assert told_at(board, 10, [sample(5), sample(4)]) == [0]
    assert board.latest[ME].sequence == 5


def test_an_ordinary_sample_is_as_long_as_stated() -> None:
    ordinary = Sample(ME, 12, 40_000, 420, 610, 333, 1250, 12, EngineState.UP, 3)
    assert 0.9 * SAMPLE_BYTES_TYPICAL <= len(codec.encode(ordinary)) <= SAMPLE_BYTES_TYPICAL


@pytest.mark.parametrize(
    ("lag_s", "pressure", "score"),
    [
        *((0.0, None, 0), (0.14, None, 0), (0.15, None, 1), (0.47, None, 3), (5.0, None, 4)),
        *((0.01, 999, 0), (0.05, 500, 1), (0.05, 499, 0), (0.31, 800, 3), (0.0, 0, 0)),
    ],
)
def test_a_late_loop_is_distrusted_by_its_own_member_and_pressure_counts_only_where_it_is_felt(
    lag_s: float, pressure: int | None, score: int
) -> None:
    health = LocalHealth(7)
    health.on_pressure(lag_s=lag_s, cpu_pressure_permille=pressure)
    assert (health.score, health.factor) == (score, score + 1)


def test_answers_do_not_lower_the_score_below_what_the_loops_lag_allows_and_it_goes_with_the_lag() -> None:
    health = LocalHealth(7)
    health.on_stall(1.0)
    health.on_pressure(lag_s=0.2, cpu_pressure_permille=None)
    for _ in range(9):
        health.on_answer()
    assert health.score == 1
    health.on_pressure(lag_s=0.0, cpu_pressure_permille=None)
    assert health.score == 0


def test_a_member_whose_loop_is_late_probes_more_seldom_and_waits_longer() -> None:
    def pings_in_ten_seconds(lag_s: float) -> int:
        core = Membership(
            identity=MemberIdentity(node_id(1), "n1", address(1), 1), config=CONFIG, rng=random.Random(1), now=0.0
        )
        core.set_admitted({node_id(2): ("n2", address(2))}, 0.0)
        core.observe_pressure(lag_s=lag_s, cpu_pressure_permille=None, now=0.0)
        now, pings, other = 0.0, 0, Claim(node_id(2), 1, 0, MemberStatus.ALIVE, "n2", address(2))
        while (now := max(now, core.next_deadline)) < 10.0:
            core.tick(now)
            for effect in core.take_effects():
                if isinstance(effect, SendPacket) and isinstance(effect.message, Ping):
                    pings += 1
                    core.on_packet(("10.77.0.12", 4747), Ack(other, effect.message.sequence), now)
        return pings

    assert (pings_in_ten_seconds(0.0), pings_in_ten_seconds(0.2)) == (40, 20)
