"""Packets, frames and tokens: what goes in comes out, and bytes that somebody touched are refused by the right error.

Mutations come in two halves: before sealing (a member that speaks nonsense) and after (a stranger changes what one said).
"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadMessage, OperatorError, Unauthenticated
from swarm.membership import decode_message_untrusted, encode_message
from swarm.membership.messages import GENERATION_MAX, Ack, Claim, Ping
from swarm.model.ids import ClusterId, NodeId
from swarm.model.liveness import MemberStatus
from swarm.wire import boot, frame
from swarm.wire.envelope import PLAINTEXT_BYTES_MAX, Sealer
from swarm.wire.keys import Keyring
from swarm.wire.limits import FRAME_BYTES_MAX, PACKET_BYTES_MAX
from swarm.wire.token import format_token, parse_token

CLUSTER = ClusterId("ab" * 16)
ONE, TWO = NodeId("11" * 16), NodeId("22" * 16)
KEY = bytes(range(32))


def sealers() -> tuple[Sealer, Sealer]:
    pair = Sealer(CLUSTER, Keyring(KEY), ONE, 1), Sealer(CLUSTER, Keyring(KEY), TWO, 1)
    for each in pair:
        each.prove(ONE, 0)
        each.prove(TWO, 0)
    return pair


def mutated(data: bytes, *, where: int, bits: int, cut: int) -> bytes:
    """`data` with one byte changed, or (when `cut` is not 0) a piece of that length missing or doubled."""
    if not data:
        return bytes([bits])
    where %= len(data)
    if cut > 0:
        return data[:where] + data[where + cut :]
    if cut < 0:
        return data[:where] + data[where : where - cut] + data[where:]
    return data[:where] + bytes([data[where] ^ bits]) + data[where + 1 :]


touches = st.fixed_dictionaries(
    {"where": st.integers(0, 10_000), "bits": st.integers(1, 255), "cut": st.sampled_from([0, 0, 0, 1, 7, -1, -7])}
)

frames = st.one_of(
    st.builds(frame.Hello, st.text(max_size=32), st.text(max_size=32), *[st.integers(0, 2**32)] * 3, st.booleans()),
    st.builds(frame.Message, st.text(max_size=30), st.binary(max_size=300)),
    st.builds(frame.Call, st.integers(0, 2**63), st.text(max_size=30), st.integers(0, 10**6), st.binary(max_size=300)),
    st.builds(frame.Answer, st.integers(0, 2**63), st.binary(max_size=300)),
    st.builds(frame.Failure, st.integers(0, 2**63), *[st.text(max_size=40)] * 5),
)


@given(st.binary(max_size=PLAINTEXT_BYTES_MAX))
def test_what_one_seals_the_other_opens(plaintext: bytes) -> None:
    one, two = sealers()
    packet = one.seal(ONE, plaintext)
    assert len(packet) <= PACKET_BYTES_MAX
    assert two.open_untrusted(packet) == (ONE, plaintext)


@given(st.binary(max_size=400), touches)
def test_a_packet_changed_after_sealing_never_opens(plaintext: bytes, touch: dict[str, int]) -> None:
    one, two = sealers()
    packet = one.seal(ONE, plaintext)
    changed = mutated(packet, **touch)
    if changed != packet:
        with pytest.raises((Unauthenticated, BadMessage)):
            two.open_untrusted(changed)
    assert two.open_untrusted(packet) == (ONE, plaintext), "a forgery takes nothing away from the real packet"


counts = st.integers(0, GENERATION_MAX)
claims = st.builds(
    Claim,
    node_id=st.just(ONE),
    generation=counts,
    incarnation=counts,
    status=st.just(MemberStatus.ALIVE),
    name=st.text("abc-", min_size=1, max_size=20),
    address=st.just("10.77.0.11:4747"),
)
gossip = st.one_of(
    st.builds(Ping, claims, counts, st.just(TWO), st.lists(claims, max_size=3).map(tuple)),
    st.builds(Ack, claims, counts, st.lists(claims, max_size=3).map(tuple)),
)


@given(gossip, touches)
def test_a_member_that_seals_a_changed_message_says_something_else_or_a_bad_message(
    message: Ping | Ack, touch: dict[str, int]
) -> None:
    """Half of the mutations of packets: before sealing, where the seal opens and the decoder stands alone."""
    one, two = sealers()
    plaintext = encode_message(message)
    assert decode_message_untrusted(two.open_untrusted(one.seal(ONE, plaintext))[1]) == message
    changed = two.open_untrusted(one.seal(ONE, mutated(plaintext, **touch)))[1]
    with contextlib.suppress(BadMessage):
        decode_message_untrusted(changed, bytes_max=PACKET_BYTES_MAX)


@given(gossip, touches)
def test_a_message_changed_after_sealing_never_arrives(message: Ping | Ack, touch: dict[str, int]) -> None:
    """The other half: by a stranger, after sealing."""
    one, two = sealers()
    packet = one.seal(ONE, encode_message(message))
    changed = mutated(packet, **touch)
    if changed != packet:
        with pytest.raises((Unauthenticated, BadMessage)):
            two.open_untrusted(changed)


@given(st.binary(max_size=400))
def test_a_member_that_seals_nonsense_is_only_a_bad_message(plaintext: bytes) -> None:
    one, two = sealers()
    with contextlib.suppress(BadMessage):
        decode_message_untrusted(two.open_untrusted(one.seal(ONE, plaintext))[1], bytes_max=PACKET_BYTES_MAX)


@given(st.binary(max_size=PACKET_BYTES_MAX + 100))
def test_any_bytes_at_all_are_refused_as_a_packet(data: bytes) -> None:
    with pytest.raises((Unauthenticated, BadMessage)):
        sealers()[1].open_untrusted(data)


@given(st.lists(st.integers(0, 3_000), max_size=60))
def test_every_packet_opens_at_most_once_in_any_order(order: list[int]) -> None:
    one, two = sealers()
    packets = [one.seal(ONE, b"") for _ in range(max(order, default=0) + 1)]
    accepted = []
    for number in order:
        with contextlib.suppress(Unauthenticated):
            two.open_untrusted(packets[number])
            accepted.append(number)
    assert len(set(accepted)) == len(accepted)
    newest = -1
    for number in order:
        assert number in accepted or newest - number >= 1_024, "lost although inside the window"
        newest = max(newest, number)


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 50), max_size=40))
def test_frames_survive_any_cutting_into_pieces(sent: list[frame.Frame], cuts: list[int]) -> None:
    stream = b"".join(frame.encode_frame(item) for item in sent)
    reader = frame.FrameReader(FRAME_BYTES_MAX)
    received: list[frame.Frame] = []
    for cut in cuts:
        piece, stream = stream[:cut], stream[cut:]
        reader.feed(piece)
        received.extend(reader.frames())
    reader.feed(stream)
    received.extend(reader.frames())
    assert received == sent


@given(frames, touches)
def test_a_changed_frame_is_another_frame_or_a_bad_message(sent: frame.Frame, touch: dict[str, int]) -> None:
    reader = frame.FrameReader(4_096)
    reader.feed(mutated(frame.encode_frame(sent), **touch))
    with contextlib.suppress(BadMessage):
        list(reader.frames())


@given(st.binary(max_size=2_000))
def test_a_frame_reader_raises_nothing_but_bad_message(data: bytes) -> None:
    reader = frame.FrameReader()
    reader.feed(data)
    with contextlib.suppress(BadMessage):
        list(reader.frames())


@given(st.binary(max_size=500))
def test_bootstrap_messages_raise_nothing_but_bad_message(data: bytes) -> None:
    for decode in (boot.decode_question_untrusted, boot.decode_reply_untrusted, boot.decode_entry_untrusted):
        with contextlib.suppress(BadMessage):
            decode(data)


@given(st.binary(min_size=32, max_size=32))
def test_a_token_gives_its_secret_back(secret: bytes) -> None:
    token = format_token(secret)
    assert parse_token(token) == secret
    assert parse_token(f"  {token.upper()}\n") == secret


@given(st.binary(min_size=32, max_size=32), st.integers(7, 62), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_one_wrong_character_in_a_token_is_found(secret: bytes, where: int, character: str) -> None:
    token = format_token(secret)
    changed = token[:where] + character + token[where + 1 :]
    if changed != token:
        with pytest.raises(OperatorError) as caught:
            parse_token(changed)
        assert changed not in str(caught.value) + caught.value.cause + caught.value.hint


@given(st.text(max_size=80))
def test_any_text_as_a_token_is_one_clear_error(text: str) -> None:
    with pytest.raises(OperatorError, match="cannot read the join token"):
        parse_token(text)
