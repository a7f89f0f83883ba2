"""Hostile bytes at the rejoin handshake, in what is sealed to a node, and in what stands in the log: refused, never more."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadMessage
from swarm.model.generation import GENERATION_MAX
from swarm.model.ids import ClusterId, NodeId
from swarm.wire import rejoin
from swarm.wire.codec import encode
from tests.catalog_kit import Log, make_node

CLUSTER = ClusterId("ab" * 16)
GOOD = [
    encode(rejoin.Recall(1, NodeId("cd" * 16), CLUSTER, 1 << 40)),
    encode(rejoin.Recalled(b"sealed")),
    encode(rejoin.Follows(1 << 40)),
    encode(rejoin.Handed(CLUSTER, bytes(32), (bytes(32),))),
]


@given(st.one_of(st.binary(max_size=200), st.tuples(st.sampled_from(GOOD), st.integers(0, 199), st.binary(max_size=3))))
def test_any_bytes_decode_or_are_a_bad_message(drawn: bytes | tuple[bytes, int, bytes]) -> None:
    data = drawn if isinstance(drawn, bytes) else drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + len(drawn[2]) :]
    for decode in (
        rejoin.decode_recall_untrusted,
        rejoin.decode_recall_reply_untrusted,
        lambda each: rejoin.decode_handed_untrusted(each, CLUSTER),
    ):
        with contextlib.suppress(BadMessage):
            decode(data)


@given(st.lists(st.binary(min_size=31, max_size=33), max_size=3))
def test_what_is_handed_over_holds_secrets_of_their_length_or_is_refused(secrets: list[bytes]) -> None:
    handed = rejoin.Handed(CLUSTER, bytes(32), tuple(secrets))
    whole = all(len(each) == 32 for each in secrets)
    try:
        assert rejoin.decode_handed_untrusted(encode(handed), CLUSTER) == handed and whole
    except BadMessage:
        assert not whole


def test_a_question_of_a_program_that_names_no_generation_is_one_of_none() -> None:
    question = rejoin.decode_recall_untrusted(encode([0, 1, "cd" * 16, CLUSTER]))
    assert question.recovery_generation == rejoin.GENERATION_UNSAID


@pytest.mark.parametrize("generation", [rejoin.GENERATION_UNSAID - 1, GENERATION_MAX + 1])
def test_an_answer_that_names_no_recovery_generation_is_refused(generation: int) -> None:
    with pytest.raises(BadMessage, match="no recovery generation"):
        rejoin.decode_recall_reply_untrusted(encode(rejoin.Follows(generation)))


def test_secrets_of_another_cluster_are_refused() -> None:
    handed = encode(rejoin.Handed(ClusterId("ef" * 16), bytes(32)))
    with pytest.raises(BadMessage, match="another cluster"):
        rejoin.decode_handed_untrusted(handed, CLUSTER)


@given(st.sampled_from(["secret.rotate", "secret.ack", "secret.advance"]), st.binary(max_size=120))
def test_any_payload_of_a_rotations_entries_applies_or_is_rejected_and_the_state_stays_whole(kind: str, payload: bytes) -> None:
    log = Log(make_node("n1"))
    log.apply_entry(log.raw(kind, 1, payload))
    log.catalog.check()
    assert log.catalog.secrets.phase == "none"
