"""Messages of consensus: what is packed comes back, and no bytes do more than raise `BadMessage`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.consensus import messages
from swarm.consensus.messages import Append, Message, Pulled, decode_message_untrusted, encode_message
from swarm.consensus.quorum import has_quorum, majority, quorum_value, voter_sets
from swarm.errors import BadMessage
from swarm.model.entry import Configuration, Entry, Voter

counts = st.integers(0, 2**63 - 1)
small = st.integers(0, 1000)
plain: list[type[Message]] = [
    messages.PreVote,
    messages.PreVoteReply,
    messages.Vote,
    messages.VoteReply,
    messages.AppendReply,
    messages.Heartbeat,
    messages.HeartbeatReply,
    messages.TimeoutNow,
    messages.Pull,
]


@st.composite
def appends(draw: st.DrawFn) -> Append | Pulled:
    previous, term = draw(small), draw(small)
    terms = sorted(draw(st.lists(st.integers(term, 2000), max_size=4)))
    entries = tuple(
        Entry(previous + 1 + place, at, draw(st.text(max_size=5)), draw(small), draw(st.binary(max_size=20)), draw(small), 1.5)
        for place, at in enumerate(terms)
    )
    kind = draw(st.sampled_from((Append, Pulled)))
    return kind(max([2000, *terms]), draw(small), draw(small), previous, term, entries, draw(counts))




def built(kind: type[Message]) -> st.SearchStrategy[Message]:
    by_type = {"NodeId": st.text(max_size=5), "bool": st.booleans()}
    fields = {name: by_type.get(str(annotation), counts) for parent in kind.__mro__ for name, annotation in names_of(parent)}
    return st.builds(kind, **fields)


def names_of(parent: type) -> list[tuple[str, object]]:
    return [item for item in vars(parent).get("__annotations__", {}).items() if not item[0].startswith("_")]


any_message = st.one_of(appends(), *map(built, plain))


@given(any_message)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert decode_message_untrusted(encode_message(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_bad_message(data: bytes) -> None:
    try:
        decode_message_untrusted(data)
    except BadMessage:
        pass


@given(any_message, st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_decodes_or_raises_bad_message(message: Message, place: int, change: int) -> None:
    data = bytearray(encode_message(message))
    data[place % len(data)] ^= change
    try:
        decode_message_untrusted(bytes(data))
    except BadMessage:
        pass


def entry(index: int, term: int) -> Entry:
    return Entry(index, term, "x", 1, b"", 0, 0.0)


@pytest.mark.parametrize(
    "entries", [(entry(3, 1),), (entry(2, 1), entry(2, 1)), (entry(2, 9),), (entry(2, 0),), (entry(2, 3), entry(3, 2))]
)
def test_entries_that_contradict_each_other_are_refused(entries: tuple[Entry, ...]) -> None:
    for kind in (Append, Pulled):
        with pytest.raises(BadMessage):
            decode_message_untrusted(encode_message(kind(3, 0, 1, 1, 1, entries, 0)))


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(BadMessage):
        decode_message_untrusted(encode_message(messages.TimeoutNow(-1, 0, 0)))


voters = st.sets(st.sampled_from("abcdefg"), min_size=1, max_size=5).map(lambda names: tuple(Voter(n, 1) for n in sorted(names)))
configurations = st.builds(Configuration, voters, st.one_of(st.just(()), voters))


@given(configurations, st.dictionaries(st.sampled_from("abcdefg"), st.integers(0, 9)))
def test_a_quorum_has_reached_its_value_in_every_set(configuration: Configuration, reached: dict[str, int]) -> None:
    value = quorum_value(configuration, lambda voter: reached.get(voter.node_id, 0))
    for members in voter_sets(configuration):
        there = [voter for voter in members if reached.get(voter.node_id, 0) >= value]
        assert len(there) >= majority(len(members))


@given(configurations, st.sets(st.sampled_from("abcdefg")), st.sets(st.sampled_from("abcdefg")))
def test_two_quorums_of_one_configuration_share_a_voter(configuration: Configuration, one: set[str], other: set[str]) -> None:
    if all(has_quorum(configuration, lambda voter, some=some: voter.node_id in some) for some in (one, other)):  # type: ignore[misc]
        for members in voter_sets(configuration):
            assert {voter.node_id for voter in members} & one & other
