"""Whatever members or strangers send, a daemon's gossip goes on, counts what it refuses, does not grow, believes no recording.

The same with a million packets is a measurement: `./testnet/run bench-membership mutated-packets`.
"""

from __future__ import annotations

import pytest

from testnet.bench.feeding import GROWTH_OBJECTS_MAX, Outcome, Replay, feed_mutated, replay_all

PACKETS = 20_000


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """An error that would end a daemon is raised here."""
    return feed_mutated(PACKETS, seed=7)


@pytest.fixture(scope="module")
def replays() -> list[Replay]:
    return replay_all(seed=7)


def test_mutated_packets_end_nothing_and_every_one_is_seen(outcome: Outcome) -> None:
    assert sum(fed.packets for fed in outcome.mutated) == PACKETS
    assert [fed.uncounted for fed in outcome.mutated] == [0, 0]


def test_some_mutated_packets_pass_and_most_are_refused_with_a_reason(outcome: Outcome) -> None:
    before, after = outcome.mutated
    assert 0.5 * before.packets < before.counted["dropped_bad_message"] < before.packets
    assert before.counted["dropped_unauthenticated"] == 0, "what is mutated before its seal opens"
    assert after.dropped == after.packets, "nothing that was touched after its seal reaches the core"
    assert {"dropped_bad_message", "dropped_unknown_key", "dropped_replayed", "dropped_unproven"} <= set(after.counted)


def test_mutated_packets_make_a_daemon_send_less_than_it_received(outcome: Outcome) -> None:
    for fed in outcome.mutated:
        assert 0 < fed.bytes_out < fed.bytes_in


def test_nothing_grows_with_the_number_of_mutated_packets(outcome: Outcome) -> None:
    assert outcome.growth.more_objects < GROWTH_OBJECTS_MAX
    assert outcome.growth.members[0] == outcome.growth.members[1]


def test_a_recording_is_refused_whole_in_every_other_life_and_cluster(replays: list[Replay]) -> None:
    assert len(replays) == 6
    for replay in replays:
        assert replay.packets > 1_000
        assert replay.accepted == 0, replay.what
        assert replay.not_alive == [], replay.what
